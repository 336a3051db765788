//! `map`.

use super::table::{Table, What};

const SUBCLUSTERS: &str =
    "a place is told of subclusters that have bytes there, not of those that have none";
const HOLES: &str = "holes of the host's file are not looked for where an image says that there are data: how \
                     the host keeps a file is not the image's word";
const CORRUPT: &str = "the first corruption that is met is not announced by a line of its own, and what was told \
                       before it is told whole";
const VHDX: &str = "QEMU's VHDX driver does not tell where data are; here they have their places";

pub(crate) fn table() -> Table {
    let mut table = Table::new("map");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -z 1M 64k; write -P 2 2M 64k",
            "img create -qf qcow2 -b a -F qcow2 child",
            "io qcow2 child write -P 5 100k 4k; discard 2M 64k",
            "img create -qf qcow2 -b child -F qcow2 grandchild 6M",
            "img convert -cf qcow2 -O qcow2 a packed",
            "img convert -f qcow2 -O vhdx a v",
            "img convert -f qcow2 -O raw a r",
            "img create -qf qcow2 empty 0",
            "img create -qf qcow2 -o extended_l2=on extended 8M",
            "io qcow2 extended write -P 3 0 2k; write -P 4 1M 256k; write -z 1M 4k",
            "img create -qf qcow2 -o data_file=data external 1M",
            "io qcow2 external write -P 3 64k 100k",
            "img create -qf qcow2 -o preallocation=metadata laid 1M",
            "length odd 513",
            "length holes 4194304",
            "io raw holes write -P 1 1M 64k",
        ])
        .case("human", "map a")
        .case("json", "map --output=json a")
        .case("json-apart", "map --output json -f qcow2 a")
        .case("start", "map -s 64k a")
        .case("start-long", "map --start-offset=100k --output=json a")
        .case("length", "map -l 1M --output=json a")
        .case("part", "map -s 70000 -l 5000 a")
        .case("part-json", "map -s 70000 -l 5000 --output=json a")
        .case("no-bytes", "map -l 0 --output=json a")
        .case("past-the-end", "map -s 5M --output=json a")
        .case("past-the-end-human", "map -s 5M a")
        .case("child", "map child")
        .case("child-json", "map --output=json child")
        .case("grandchild", "map --output=json grandchild")
        .case("grandchild-human", "map grandchild")
        .case("packed", "map packed")
        .case("packed-json", "map --output=json packed")
        .case("empty", "map empty")
        .case("empty-json", "map --output=json empty")
        .case("extended", "map extended")
        .case("extended-json", "map --output=json extended")
        .differs(What::Stdout, SUBCLUSTERS)
        .case("data-file", "map external")
        .differs(What::Stdout, HOLES)
        .case("data-file-json", "map --output=json external")
        .differs(What::Stdout, HOLES)
        .case("laid-out", "map --output=json laid")
        .differs(What::Stdout, HOLES)
        .case("vhdx", "map v")
        .differs(What::Code, VHDX)
        .differs(What::Stdout, VHDX)
        .differs(What::Stderr, VHDX)
        .case("vhdx-json", "map --output=json v")
        .differs(What::Stdout, VHDX)
        .case("raw", "map -f raw r")
        .case("raw-json", "map --output=json r")
        .case("raw-holes", "map --output=json holes")
        .case("raw-odd", "map --output=json odd")
        .case("shared", "map -U a")
        .case("options", "map --image-opts driver=qcow2,file.filename=a")
        .case("wrong-format", "map -f raw --output=json a")
        .case(
            "json-name",
            "map 'json:{\"driver\":\"qcow2\",\"file.filename\":\"a\"}'",
        )
        .given(&[
            "img create -qf qcow2 a 4M",
            "img create -qf raw r 4M",
            "folder d",
        ])
        .case("no-name", "map")
        .case("two-names", "map a r")
        .case("missing", "map nothere")
        .case("folder", "map d")
        .case("output-unknown", "map --output xml a")
        .case("start-malformed", "map -s x a")
        .case("start-negative", "map --start-offset -1 a")
        .case("length-malformed", "map -l 1z a")
        .case("length-huge", "map -l 16E a")
        .case("unknown-option", "map --bogus a")
        .case("ambiguous-option", "map --o=json a")
        .case("format-unknown", "map -f zzz a")
        .case(
            "options-and-format",
            "map -f qcow2 --image-opts driver=qcow2,file.filename=a",
        )
        .case("start-without-value", "map a -s")
        .given(&[
            "img create -qf qcow2 a 4M",
            "img create -qf qcow2 -b a -F qcow2 child",
            "remove a",
        ])
        .case("missing-parent", "map child")
        .given(&["corpus q-badread-l2-unaligned"])
        .case("l2-unaligned", "map disk.qcow2")
        .differs(What::Stderr, CORRUPT)
        .case("l2-unaligned-json", "map --output=json disk.qcow2")
        .differs(What::Stdout, CORRUPT)
        .differs(What::Stderr, CORRUPT)
        .given(&["corpus q-zero-alloc"])
        .case("zeros-with-a-place", "map --output=json disk.qcow2")
        .given(&["corpus q-snap3-compressed"])
        .case("snapshots", "map disk.qcow2");
    table
}
