//! `resize`.

use super::table::{Table, What};

const PREALLOCATION: &str = "space is not set aside for what is added, which is refused";
const VHDX: &str = "QEMU gives no VHDX another size; here it gets it";

pub(crate) fn table() -> Table {
    let mut table = Table::new("resize");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -P 2 3M 300000",
            "img create -qf qcow2 -b a -F qcow2 child",
            "copy a snaps",
            "img snapshot -c one snaps",
            "img create -qf raw r 2M",
            "img create -qf vhdx v 8M",
            "img create -qf qcow2 -o compat=0.10 old 1M",
            "img create -qf qcow2 -o extended_l2=on extended 1M",
        ])
        .case("grow", "resize a 8M")
        .leaves("qcow2", "a")
        .case("grow-by", "resize a +1M")
        .leaves("qcow2", "a")
        .case("grow-much", "resize a 4T")
        .leaves("qcow2", "a")
        .case("grow-quiet", "resize -q a 8M")
        .leaves("qcow2", "a")
        .case("grow-child", "resize child 8M")
        .leaves("qcow2", "child")
        .case("grow-old", "resize old 2G")
        .leaves("qcow2", "old")
        .case("grow-extended", "resize extended 2M")
        .leaves("qcow2", "extended")
        .case("grow-with-snapshots", "resize snaps 8M")
        .leaves("qcow2", "snaps")
        .case("grow-raw", "resize -f raw r 3M")
        .case("grow-raw-guessed", "resize r 3M")
        .case("grow-preallocated", "resize --preallocation=metadata a 8M")
        .leaves("qcow2", "a")
        .differs(What::Code, PREALLOCATION)
        .differs(What::Stdout, PREALLOCATION)
        .differs(What::Stderr, PREALLOCATION)
        .differs(What::Files, PREALLOCATION)
        .case(
            "grow-raw-preallocated",
            "resize --preallocation=full -f raw r 3M",
        )
        .differs(What::Code, PREALLOCATION)
        .differs(What::Stdout, PREALLOCATION)
        .differs(What::Stderr, PREALLOCATION)
        .differs(What::Files, PREALLOCATION)
        .case("same", "resize a 4M")
        .case("shrink", "resize --shrink a 1M")
        .leaves("qcow2", "a")
        .case("shrink-by", "resize --shrink a -1M")
        .leaves("qcow2", "a")
        .case("shrink-raw", "resize --shrink -f raw r 1M")
        .case("shrink-unasked", "resize a 1M")
        .case("shrink-with-snapshots", "resize --shrink snaps 1M")
        .leaves("qcow2", "snaps")
        .case("shrink-below-nothing", "resize --shrink a -5M")
        .case("shrink-vhdx", "resize --shrink v 4M")
        .differs(What::Code, VHDX)
        .differs(What::Stdout, VHDX)
        .differs(What::Stderr, VHDX)
        .differs(What::Files, VHDX)
        .case(
            "options",
            "resize --image-opts driver=qcow2,file.filename=a 8M",
        )
        .leaves("qcow2", "a")
        .case("size-odd", "resize a 4194305")
        .leaves("qcow2", "a")
        .case("nothing", "resize")
        .case("no-size", "resize a")
        .case("three-words", "resize a 8M 9M")
        .case("size-malformed", "resize a x")
        .case("size-bare-sign", "resize a +")
        .case("missing", "resize nothere 8M")
        .case("format-unknown", "resize -f zzz a 8M")
        .case("format-wrong", "resize -f vhdx a 8M")
        .case("preallocation-unknown", "resize --preallocation=some a 8M")
        .case(
            "preallocation-of-less",
            "resize --shrink --preallocation=full a 1M",
        )
        .case("unknown-option", "resize --nosuch a 8M");
    table
}
