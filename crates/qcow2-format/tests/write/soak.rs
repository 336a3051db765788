//! A long life of image files, for `cargo xtask soak`.

use blockdev_core::OpenOptions;
use testkit::model::Soak;

use crate::random::shape;

#[test]
#[ignore = "cargo xtask soak says for how long"]
fn soak() {
    testkit::model::soak(&Soak {
        format: "qcow2",
        shape: |seed| shape(seed, &[9, 10, 12, 14, 16, 17], 500).1,
        check: |storage| qcow2_format::check(storage, &OpenOptions::read_only()),
        steps: 5000,
    });
}
