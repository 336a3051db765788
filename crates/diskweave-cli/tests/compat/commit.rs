//! `commit`.

use super::table::{Table, What};

const PROGRESS: &str = "progress is told when there is more of it, and counts other steps";

pub(crate) fn table() -> Table {
    let mut table = Table::new("commit");
    table
        .given(&[
            "img create -qf qcow2 base 4M",
            "io qcow2 base write -P 1 0 256k",
            "img create -qf qcow2 -b base -F qcow2 middle",
            "io qcow2 middle write -P 3 128k 64k",
            "img create -qf qcow2 -b middle -F qcow2 top",
            "io qcow2 top write -P 4 2M 64k; write -z 0 64k",
            "img create -qf qcow2 -b base -F qcow2 longer 6M",
            "io qcow2 longer write -P 6 5M 64k",
            "length r 4194304",
            "img create -qf qcow2 -b r -F raw over-raw",
            "io qcow2 over-raw write -P 8 1M 64k",
        ])
        .case("one", "commit top")
        .leaves("qcow2", "top")
        .leaves("qcow2", "middle")
        .case("quiet", "commit -q top")
        .leaves("qcow2", "top")
        .leaves("qcow2", "middle")
        .case("kept", "commit -d top")
        .leaves("qcow2", "middle")
        .leaves("qcow2", "top")
        .case("into-base", "commit -b base top")
        .leaves("qcow2", "base")
        .leaves("qcow2", "top")
        .leaves("qcow2", "middle")
        .case("middle", "commit -f qcow2 middle")
        .leaves("qcow2", "base")
        .leaves("qcow2", "middle")
        .case("longer", "commit longer")
        .leaves("qcow2", "base")
        .leaves("qcow2", "longer")
        .case("into-raw", "commit over-raw")
        .leaves("qcow2", "over-raw")
        .case("rate", "commit -r 100M top")
        .leaves("qcow2", "top")
        .leaves("qcow2", "middle")
        .case("cache", "commit -t none top")
        .leaves("qcow2", "top")
        .leaves("qcow2", "middle")
        .case("progress", "commit -p top")
        .differs(What::Stdout, PROGRESS)
        .leaves("qcow2", "top")
        .leaves("qcow2", "middle")
        .case("no-parent", "commit base")
        .case("no-parent-raw", "commit -f raw r")
        .case("not-its-parent", "commit -b longer top")
        .case("no-name", "commit")
        .case("two-names", "commit top middle")
        .case("missing", "commit nothere")
        .case("format-unknown", "commit -f zzz top")
        .case("cache-unknown", "commit -t foo top")
        .case("rate-malformed", "commit -r x top")
        .case(
            "options-and-format",
            "commit --image-opts -f qcow2 driver=qcow2,file.filename=top",
        )
        .case("unknown-option", "commit --nosuch top");
    table
}
