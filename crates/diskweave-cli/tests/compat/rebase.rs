//! `rebase`.

use super::table::{Table, What};

const PACKED: &str = "what is copied into an image is not compressed, which is refused";

pub(crate) fn table() -> Table {
    let mut table = Table::new("rebase");
    table
        .given(&[
            "img create -qf qcow2 base 4M",
            "io qcow2 base write -P 1 0 256k; write -P 2 3M 64k",
            "img create -qf qcow2 other 4M",
            "io qcow2 other write -P 1 0 64k; write -P 5 1M 64k",
            "img create -qf qcow2 -b base -F qcow2 middle",
            "io qcow2 middle write -P 3 128k 64k",
            "img create -qf qcow2 -b middle -F qcow2 top",
            "io qcow2 top write -P 4 2M 64k",
            "img create -qf qcow2 small 1M",
            "img convert -f qcow2 -O raw base r",
            "img create -qf qcow2 -b nothere -F qcow2 -u orphan 4M",
        ])
        .case("to-other", "rebase -b other -F qcow2 top")
        .leaves("qcow2", "top")
        .case("to-grandparent", "rebase -b base -F qcow2 top")
        .leaves("qcow2", "top")
        .case("to-same", "rebase -b middle -F qcow2 top")
        .leaves("qcow2", "top")
        .case("to-raw", "rebase -b r -F raw top")
        .leaves("qcow2", "top")
        .case("to-smaller", "rebase -b small -F qcow2 top")
        .leaves("qcow2", "top")
        .case("to-nothing", "rebase -b '' top")
        .leaves("qcow2", "top")
        .case("quiet", "rebase -q -b base -F qcow2 top")
        .leaves("qcow2", "top")
        .case("unsafe", "rebase -u -b other -F qcow2 top")
        .leaves("qcow2", "top")
        .case("unsafe-missing", "rebase -u -b nowhere -F qcow2 top")
        .leaves("facts", "top")
        .case("unsafe-to-nothing", "rebase -u -b '' top")
        .leaves("qcow2", "top")
        .case("unsafe-orphan", "rebase -u -b base -F qcow2 orphan")
        .leaves("qcow2", "orphan")
        .case("orphan", "rebase -b base -F qcow2 orphan")
        .case("missing-parent", "rebase -b nowhere -F qcow2 top")
        .case("without-format", "rebase -b base top")
        .leaves("qcow2", "top")
        .case("unsafe-without-format", "rebase -u -b base top")
        .case("packed", "rebase -c -b other -F qcow2 top")
        .differs(What::Code, PACKED)
        .differs(What::Stderr, PACKED)
        .differs(What::Files, PACKED)
        .leaves("qcow2", "top")
        .case("packed-unsafe", "rebase -c -u -b other -F qcow2 top")
        .leaves("qcow2", "top")
        .case("raw", "rebase -b base -F qcow2 -f raw r")
        .case("no-name", "rebase")
        .case("no-backing", "rebase top")
        .case("two-names", "rebase -b base top middle")
        .case("missing", "rebase -b base nothere")
        .case("format-unknown", "rebase -f zzz -b base -F qcow2 top")
        .case("backing-format-unknown", "rebase -b base -F zzz top")
        .case("cache-unknown", "rebase -t foo -b base -F qcow2 top")
        .case("source-cache-unknown", "rebase -T foo -b base -F qcow2 top")
        .case(
            "options-and-format",
            "rebase --image-opts -f qcow2 -b base driver=qcow2,file.filename=top",
        )
        .case("unknown-option", "rebase --nosuch top");
    table
}
