//! A long life of image files, for `cargo xtask soak`.

use blockdev_core::OpenOptions;
use testkit::model::Soak;

use crate::random::shape;

#[test]
#[ignore = "cargo xtask soak says for how long"]
fn soak() {
    testkit::model::soak(&Soak {
        format: "vhdx",
        shape: |seed| shape(seed, true),
        check: |storage| vhdx_format::check(storage, &OpenOptions::read_only()),
        steps: 3000,
    });
}
