//! `compare`.

use super::table::{Table, What};

const RUNS: &str = "the offset is that of what is stored otherwise; QEMU tells of the run before it, where that \
                    ends earlier in one of the images";

pub(crate) fn table() -> Table {
    let mut table = Table::new("compare");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k",
            "copy a b",
            "img convert -f qcow2 -O raw a r",
            "img convert -f qcow2 -O vhdx a v",
            "img convert -cf qcow2 -O qcow2 a packed",
            "img create -qf qcow2 -b a -F qcow2 child",
            "img create -qf qcow2 -b a -F qcow2 changed",
            "io qcow2 changed write -P 9 1M 512",
            "img create -qf qcow2 -b a -F qcow2 longer 5M",
            "img create -qf qcow2 -b a -F qcow2 tail 5M",
            "io qcow2 tail write -P 9 4198400 512",
            "img create -qf qcow2 -b a -F qcow2 zeros",
            "io qcow2 zeros write -z 1M 64k",
            "img create -qf qcow2 empty 0",
        ])
        .case("same", "compare a b")
        .case("itself", "compare a a")
        .case("same-strict", "compare -s a b")
        .case("other-format", "compare -f qcow2 -F raw a r")
        .case("other-format-guessed", "compare r a")
        .case("vhdx", "compare a v")
        .case("packed", "compare a packed")
        .case("child", "compare a child")
        .case("different", "compare a changed")
        .case("different-strict", "compare -s a changed")
        .differs(What::Stdout, RUNS)
        .case("different-quiet", "compare -q a changed")
        .case("longer", "compare a longer")
        .case("longer-strict", "compare -s a longer")
        .case("longer-quiet", "compare -q longer a")
        .case("tail", "compare a tail")
        .case("tail-first", "compare tail a")
        .case("zeros", "compare a zeros")
        .case("zeros-strict", "compare --strict a zeros")
        .differs(What::Stdout, RUNS)
        .case("empty", "compare a empty")
        .case("two-empty", "compare empty empty")
        .case("progress", "compare -p a b")
        .case("progress-quiet", "compare -pq a b")
        .case("progress-different", "compare -p a changed")
        .case("progress-empty", "compare -p empty empty")
        .case("shared", "compare -U a b")
        .case("cache", "compare -T none a b")
        .case(
            "long-options",
            "compare --a-format=qcow2 --b-format=qcow2 --quiet a b",
        )
        .case(
            "options",
            "compare --image-opts driver=raw,file.filename=r driver=qcow2,file.filename=a",
        )
        .case("as-raw", "compare -f raw -F raw a b")
        .case("one-name", "compare a")
        .case("three-names", "compare a b r")
        .case("no-name", "compare")
        .case("missing", "compare nothere a")
        .case("second-missing", "compare a nothere")
        .case("format-unknown", "compare -f zzz a b")
        .case("second-format-unknown", "compare -F zzz a b")
        .case("format-wrong", "compare -f qcow2 r a")
        .case("cache-unknown", "compare -T zz a b")
        .case("unknown-option", "compare --nosuch a b")
        .case("options-and-format", "compare --image-opts -f raw a b")
        .case("options-meant-as-names", "compare -F raw --image-opts a r")
        .given(&["corpus q-badread-deflate", "length r 4194304"])
        .case("unreadable", "compare disk.qcow2 r")
        .case("unreadable-second", "compare -F qcow2 r disk.qcow2");
    table
}
