//! `convert`.

use super::table::{Table, What};

const LEFT: &str = "where no image was made no file is left";
const READING: &str = "what is wrong with the source is told, not only where it is";

pub(crate) fn table() -> Table {
    let mut table = Table::new("convert");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -P 2 3M 300000; write -z 1M 64k",
            "img snapshot -c one a",
            "io qcow2 a write -P 7 0 64k",
            "img create -qf qcow2 -b a -F qcow2 child 5M",
            "io qcow2 child write -P 9 2M 4k",
            "img convert -f qcow2 -O raw a r",
            "img convert -f qcow2 -O vhdx a v",
            "img create -qf qcow2 empty 0",
            "img create -qf qcow2 there 4M",
            "length small 1048576",
            "length odd 513",
            "folder d",
        ])
        .case("to-raw", "convert a o")
        .case("to-raw-said", "convert -f qcow2 -O raw a o")
        .case("to-qcow2", "convert -O qcow2 a o")
        .leaves("qcow2", "o")
        .case("raw-to-qcow2", "convert -f raw -O qcow2 r o")
        .leaves("qcow2", "o")
        .case("to-vhdx", "convert -O vhdx a o")
        .leaves("vhdx", "o")
        .case("vhdx-to-qcow2", "convert -O qcow2 v o")
        .leaves("qcow2", "o")
        .case("vhdx-to-raw", "convert -f vhdx v o")
        .case("child", "convert child o")
        .case("child-kept", "convert -O qcow2 -B a -F qcow2 child o")
        .leaves("qcow2", "o")
        .case("empty", "convert -O qcow2 empty o")
        .leaves("qcow2", "o")
        .case("odd", "convert -f raw -O qcow2 odd o")
        .leaves("qcow2", "o")
        .case("odd-to-raw", "convert -f raw odd o")
        .case("packed", "convert -c -O qcow2 a o")
        .leaves("qcow2", "o")
        .case(
            "packed-zstd",
            "convert -c -O qcow2 -o compression_type=zstd a o",
        )
        .leaves("qcow2", "o")
        .case("clusters", "convert -O qcow2 -o cluster_size=4k a o")
        .leaves("qcow2", "o")
        .case("version-2", "convert -O qcow2 -o compat=0.10 a o")
        .leaves("qcow2", "o")
        .case(
            "preallocated",
            "convert -O qcow2 -o preallocation=metadata a o",
        )
        .leaves("qcow2", "o")
        .case("snapshot", "convert -l one a o")
        .case("snapshot-by-id", "convert -l snapshot.id=1 a o")
        .case("snapshot-missing", "convert -l two a o")
        .case("several", "convert -O raw r small o")
        .case("into-raw", "convert -n -f qcow2 -O raw a r")
        .case("into-qcow2", "convert -n -O qcow2 a there")
        .leaves("qcow2", "there")
        .case("into-smaller", "convert -n -O raw a small")
        .case("into-nothing", "convert -n -O raw a nothere")
        .case(
            "target-is-zero",
            "convert -n --target-is-zero -O qcow2 a there",
        )
        .leaves("qcow2", "there")
        .case("target-is-zero-alone", "convert --target-is-zero a o")
        .case("sparse-size", "convert -S 64k a o")
        .case("dense", "convert -S 0 a o")
        .case("workers", "convert -m 4 -W a o")
        .case("one-worker", "convert -m 1 -O qcow2 a o")
        .leaves("qcow2", "o")
        .case("workers-none", "convert -m 0 a o")
        .case("workers-many", "convert -m 17 a o")
        .case("cache-modes", "convert -t none -T writeback a o")
        .case("cache-unknown", "convert -t foo a o")
        .differs(What::Files, LEFT)
        .case("source-cache-unknown", "convert -T foo a o")
        .case("quiet", "convert -q a o")
        .case("progress", "convert -p -f raw -O raw small o")
        .case("rate", "convert -r 100M a o")
        .case("rate-malformed", "convert -r x a o")
        .case("salvage", "convert --salvage a o")
        .case("shared", "convert -U a o")
        .case(
            "options",
            "convert --image-opts driver=qcow2,file.filename=a o",
        )
        .case(
            "target-options",
            "convert -n --target-image-opts a driver=qcow2,file.filename=there",
        )
        .leaves("qcow2", "there")
        .case(
            "target-options-without-n",
            "convert --target-image-opts a driver=raw,file.filename=o",
        )
        .case("over-another", "convert a small")
        .case("nothing", "convert")
        .case("one-name", "convert a")
        .case("missing", "convert nothere o")
        .case("folder", "convert d o")
        .case("target-folder-missing", "convert a gone/o")
        .case("onto-itself", "convert a a")
        .case("format-unknown", "convert -f zzz a o")
        .case("target-format-unknown", "convert -O zzz a o")
        .case("format-wrong", "convert -f vhdx a o")
        .case("option-unknown", "convert -O qcow2 -o foo=1 a o")
        .case("clusters-bad", "convert -O qcow2 -o cluster_size=3 a o")
        .case("packed-raw", "convert -c -O raw a o")
        .case("packed-into", "convert -n -c -O raw a r")
        .case("backing-of-raw", "convert -O raw -B a -F qcow2 child o")
        .case("backing-without-format", "convert -O qcow2 -B a child o")
        .case("sparse-malformed", "convert -S x a o")
        .case("sparse-unaligned", "convert -S 1000 a o")
        .case(
            "options-and-n",
            "convert -n -o cluster_size=4k -O qcow2 a there",
        )
        .case("bitmaps-to-raw", "convert --bitmaps -O raw a o")
        .differs(What::Files, LEFT)
        .case("skip-broken-alone", "convert --skip-broken-bitmaps a o")
        .case(
            "source-options",
            "convert --source-image-opts driver=qcow2,file.filename=a o",
        )
        .case("copy-range", "convert -C a o")
        .case("output-format-long", "convert --output-format=raw a o")
        .case(
            "options-long",
            "convert -O qcow2 --options=cluster_size=4k a o",
        )
        .leaves("qcow2", "o")
        .case("unknown-option", "convert --nosuch a o")
        .given(&["corpus q-badread-deflate"])
        .case("unreadable", "convert disk.qcow2 o")
        .differs(What::Stderr, READING)
        .differs(What::Files, LEFT)
        .given(&[
            "img create -qf qcow2 a 4M",
            "img create -qf qcow2 -b a -F qcow2 child",
            "remove a",
        ])
        .case("parent-missing", "convert child o");
    table
}
