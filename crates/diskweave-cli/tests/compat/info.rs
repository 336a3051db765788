//! `info`.

use super::table::{Table, What};

const LOG: &str = "an image with a log is read as the log leaves it, which is done in memory";
const CHILD: &str = "QEMU's VHDX driver has no children";

const JSON: &str = "what is wrong with JSON is told in the words of another parser";

pub(crate) fn table() -> Table {
    let mut table = Table::new("info");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k",
            "img create -qf qcow2 -b a -F qcow2 child",
            "img create -qf qcow2 -b child -F qcow2 grandchild 6M",
            "img create -qf qcow2 -o compat=0.10 old 1G",
            "img create -qf qcow2 -o extended_l2=on,lazy_refcounts=on,cluster_size=128k extended 8M",
            "img create -qf qcow2 -o data_file=data,data_file_raw=on external 1M",
            "img create -qf qcow2 -o compression_type=zstd,refcount_bits=1 zstd 1M",
            "img create -qf raw r 4M",
            "img create -qf vhdx v 8M",
            "img create -qf qcow2 empty 0",
            "length odd 513",
            "length nothing 0",
            "copy a marked",
            "img bitmap --add marked b0",
            "img bitmap --add -g 4k --disable marked b1",
            "copy a snaps",
            "img snapshot -c one snaps",
            "folder d",
            "copy child renamed,2",
        ])
        .case("human", "info a")
        .case("json", "info --output=json a")
        .case("format-said", "info -f qcow2 a")
        .case("child", "info child")
        .case("child-json", "info --output json child")
        .case("chain", "info --backing-chain grandchild")
        .case("chain-json", "info --backing-chain --output=json grandchild")
        .case("old", "info old")
        .case("old-json", "info --output=json old")
        .case("extended", "info extended")
        .case("extended-json", "info --output=json extended")
        .case("data-file", "info external")
        .case("data-file-json", "info --output=json external")
        .case("zstd", "info zstd")
        .case("raw", "info -f raw r")
        .case("raw-guessed", "info r")
        .case("raw-json", "info --output=json r")
        .case("vhdx", "info v")
        .case("vhdx-json", "info --output=json v")
        .case("empty", "info empty")
        .case("odd", "info odd")
        .case("no-bytes", "info nothing")
        .case("bitmaps", "info marked")
        .case("bitmaps-json", "info --output=json marked")
        .case("snapshots", "info snaps")
        .case("snapshots-json", "info --output=json snaps")
        .case("as-raw", "info -f raw a")
        .case("shared", "info -U a")
        .case("comma", "info renamed,2")
        .case("options", "info --image-opts driver=qcow2,file.filename=a")
        .case("options-comma", "info --image-opts driver=qcow2,file.filename=renamed,,2")
        .case("json-name", "info 'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"a\"}}'")
        .case("json-malformed", "info 'json:{bad'")
        .differs(What::Stderr, JSON)
        .case("json-list", "info 'json:[1]'")
        .case("options-without-driver", "info --image-opts filename=a")
        .case("options-unknown", "info --image-opts driver=qcow2,file.filename=a,nosuch=1")
        .case("options-and-format", "info -f qcow2 --image-opts driver=qcow2,file.filename=a")
        .case("no-name", "info")
        .case("two-names", "info a r")
        .case("missing", "info nothere")
        .case("missing-json", "info --output=json nothere")
        .case("folder", "info d")
        .case("output-unknown", "info --output xml a")
        .case("format-unknown", "info -f zzz a")
        .case("format-wrong", "info -f qcow2 r")
        .case("format-wrong-vhdx", "info -f vhdx a")
        .case("unknown-option", "info --nosuch a")
        .case("ambiguous-option", "info --o=json a")
        .given(&[
            "img create -qf qcow2 a 4M",
            "img create -qf qcow2 -b a -F qcow2 child",
            "remove a",
        ])
        .case("parent-missing", "info child")
        .case("parent-missing-chain", "info --backing-chain child")
        .given(&["corpus q-corrupt-bit"])
        .case("corrupt-bit", "info disk.qcow2")
        .given(&["corpus q-dirty-bit"])
        .case("dirty-bit", "info disk.qcow2")
        .given(&["corpus q-bad-version-4"])
        .case("version-4", "info disk.qcow2")
        .given(&["corpus q-bad-magic"])
        .case("magic", "info disk.qcow2")
        .case("magic-said", "info -f qcow2 disk.qcow2")
        .given(&["corpus q-bad-incompat-bit"])
        .case("unknown-feature", "info disk.qcow2")
        .given(&["corpus q-bad-cluster-bits-8"])
        .case("cluster-bits-8", "info disk.qcow2")
        .given(&["corpus q-bad-refcount-order-7"])
        .case("refcount-order-7", "info disk.qcow2")
        .given(&["corpus q-bad-header-length-72"])
        .case("header-length-72", "info disk.qcow2")
        .given(&["corpus q-bad-comp-type-2"])
        .case("compression-type-2", "info disk.qcow2")
        .given(&["corpus q-bad-backing-self"])
        .case("own-parent", "info --backing-chain disk.qcow2")
        .given(&["corpus q-bad-l1-unaligned"])
        .case("l1-unaligned", "info disk.qcow2")
        .given(&["corpus vhdx-bad-signature"])
        .case("vhdx-signature", "info -f vhdx disk.vhdx")
        .given(&["corpus vhdx-bad-both-headers"])
        .case("vhdx-no-header", "info disk.vhdx")
        .given(&["corpus vhdx-log-multi"])
        .case("vhdx-log", "info disk.vhdx")
        .differs(What::Stderr, LOG)
        .differs(What::Stdout, LOG)
        .differs(What::Code, LOG)
        .given(&["corpus vhdx-diff-2"])
        .case("vhdx-child", "info disk.vhdx")
        .differs(What::Stderr, CHILD)
        .differs(What::Stdout, CHILD)
        .differs(What::Code, CHILD);
    table
}
