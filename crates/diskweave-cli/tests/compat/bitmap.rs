//! `bitmap`.

use super::table::{Table, What};

const REFUSED: &str = "bitmaps are listed and not changed: changing one without following every write \
                       afterwards would leave one that says what is not so";

pub(crate) fn table() -> Table {
    let mut table = Table::new("bitmap");
    table
        .given(&[
            "img create -qf qcow2 a 1M",
            "img bitmap --add a b0",
            "img create -qf raw r 1M",
        ])
        .case("nothing", "bitmap")
        .case("no-change", "bitmap a b0")
        .case("no-names", "bitmap --add")
        .case("one-name", "bitmap --add a")
        .case("three-names", "bitmap --add a b c")
        .case("granularity-malformed", "bitmap -g x --add a b")
        .case("granularity-without-add", "bitmap -g 64k --remove a b0")
        .case("source-without-merge", "bitmap -b r --add a b1")
        .case("source-format-alone", "bitmap --add -F raw a b1")
        .case("missing", "bitmap --add nothere b")
        .case("format-unknown", "bitmap -f zzz --add a b1")
        .case("unknown-option", "bitmap --nosuch a b0")
        .case(
            "options-and-format",
            "bitmap -f qcow2 --image-opts --add driver=qcow2,file.filename=a b1",
        )
        .case("merge-without-value", "bitmap a b0 --merge");
    for (name, line) in [
        ("add", "bitmap --add a b1"),
        ("clear", "bitmap --clear a b0"),
        ("disable", "bitmap --disable a b0"),
        ("enable", "bitmap --enable a b0"),
        ("remove", "bitmap --remove a b0"),
    ] {
        table
            .case(name, line)
            .leaves("qcow2", "a")
            .differs(What::Code, REFUSED)
            .differs(What::Stderr, REFUSED);
        if !matches!(name, "enable" | "clear") {
            table.differs(What::Files, REFUSED);
        }
    }
    for (name, line) in [
        ("merge", "bitmap --merge b1 a b0"),
        ("add-raw", "bitmap -f raw --add r b1"),
        ("remove-unknown", "bitmap --remove a b1"),
    ] {
        table
            .case(name, line)
            .leaves("qcow2", "a")
            .differs(What::Stderr, REFUSED);
    }
    table
}
