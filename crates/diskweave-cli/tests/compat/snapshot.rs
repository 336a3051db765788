//! `snapshot`.

use super::table::{Table, What};

const LONG: &str = "--create, --apply and --delete take the name that their help says they take; those of \
                    qemu-img 10.0.2 do not";
const NAMES: &str = "a snapshot's name is its own and is not empty: of two of one name only the first could be \
                     named";

pub(crate) fn table() -> Table {
    let mut table = Table::new("snapshot");
    let base = [
        "img create -qf qcow2 a 4M",
        "io qcow2 a write -P 1 64k 128k",
        "copy a none",
        "img snapshot -c one a",
        "io qcow2 a write -P 2 64k 64k",
        "img snapshot -c two a",
        "io qcow2 a write -P 3 1M 64k",
        "img create -qf raw r 1M",
        "img create -qf vhdx v 8M",
        "img create -qf qcow2 -b none -F qcow2 child",
        "img create -qf qcow2 -o compat=0.10 old 4M",
        "img create -qf qcow2 -o data_file=data external 1M",
        "folder d",
    ];
    table
        .given(&base)
        .case("list", "snapshot a")
        .case("list-said", "snapshot -l a")
        .case("list-long", "snapshot --list -f qcow2 a")
        .case("list-shared", "snapshot -U -l a")
        .case("list-quiet", "snapshot -q -l a")
        .case("list-none", "snapshot -l none")
        .case("list-raw", "snapshot -l r")
        .case("list-vhdx", "snapshot -l v")
        .case(
            "list-options",
            "snapshot --image-opts -l driver=qcow2,file.filename=a",
        )
        .case("create", "snapshot -c three a")
        .leaves("qcow2", "a")
        .case("create-first", "snapshot -c first none")
        .leaves("qcow2", "none")
        .case("create-in-child", "snapshot -q -c first child")
        .leaves("qcow2", "child")
        .case("create-in-version-2", "snapshot -c first old")
        .leaves("qcow2", "old")
        .case("create-long", "snapshot --create first old")
        .differs(What::Code, LONG)
        .differs(What::Stderr, LONG)
        .differs(What::Files, LONG)
        .case("create-second-of-name", "snapshot -c one a")
        .differs(What::Code, NAMES)
        .differs(What::Stderr, NAMES)
        .differs(What::Files, NAMES)
        .case("create-without-name", "snapshot -c '' a")
        .differs(What::Code, NAMES)
        .differs(What::Stderr, NAMES)
        .differs(What::Files, NAMES)
        .case("create-external", "snapshot -c x external")
        .case("apply", "snapshot -a one a")
        .leaves("qcow2", "a")
        .case("apply-by-id", "snapshot -a 2 a")
        .leaves("qcow2", "a")
        .case("apply-unknown", "snapshot -a three a")
        .case("delete", "snapshot -d one a")
        .leaves("qcow2", "a")
        .case("delete-by-id", "snapshot -d 2 a")
        .leaves("qcow2", "a")
        .case("delete-unknown", "snapshot -d three a")
        .case("create-raw", "snapshot -f raw -c x r")
        .case("create-raw-guessed", "snapshot -c x r")
        .case("delete-raw", "snapshot -f raw -d x r")
        .case("apply-raw", "snapshot -f raw -a x r")
        .case("create-vhdx", "snapshot -c x v")
        .case("apply-vhdx", "snapshot -a x v")
        .case("delete-vhdx", "snapshot -d x v")
        .case("shared-create", "snapshot -U -c x a")
        .case("no-name", "snapshot")
        .case("two-names", "snapshot a none")
        .case("name-taken-for-snapshot", "snapshot -c a")
        .case("create-and-delete", "snapshot -c x -d y a")
        .case("list-and-create", "snapshot -l -c x a")
        .case("create-twice", "snapshot -c x -c y a")
        .case("missing", "snapshot -l nothere")
        .case("missing-create", "snapshot -c x nothere")
        .case("folder", "snapshot -l d")
        .case("format-unknown", "snapshot -f zzz -l a")
        .case("format-wrong", "snapshot -f vhdx -l a")
        .case("unknown-option", "snapshot --nosuch a")
        .case("create-without-value", "snapshot a -c")
        .given(&["corpus q-snap3-v2"])
        .case("list-version-2", "snapshot -l disk.qcow2")
        .given(&["corpus q-vmstate-area"])
        .case("list-machine-state", "snapshot -l disk.qcow2")
        .given(&["corpus q-bad-snaptable-unaligned"])
        .case("list-unaligned-table", "snapshot -l disk.qcow2");
    table
}
