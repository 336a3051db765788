//! `measure`.

use super::table::Table;

pub(crate) fn table() -> Table {
    let mut table = Table::new("measure");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -z 1M 64k; write -P 2 2M 64k",
            "img snapshot -c one a",
            "io qcow2 a write -P 3 3M 64k",
            "img create -qf qcow2 -b a -F qcow2 child 5M",
            "img convert -cf qcow2 -O qcow2 a packed",
            "img convert -f qcow2 -O raw a r",
            "img create -qf qcow2 -o compat=0.10 old 4M",
            "copy a marked",
            "img bitmap --add marked b0",
        ])
        .case("raw", "measure a")
        .case("qcow2", "measure -O qcow2 a")
        .case("json", "measure -O qcow2 --output json a")
        .case("of-raw", "measure -f raw -O qcow2 r")
        .case("of-child", "measure -O qcow2 child")
        .case("of-packed", "measure -O qcow2 packed")
        .case("of-old", "measure -O qcow2 old")
        .case("of-marked", "measure -O qcow2 --output=json marked")
        .case("cluster-size", "measure -O qcow2 -o cluster_size=4k a")
        .case("version", "measure -O qcow2 -o compat=0.10 a")
        .case("extended", "measure -O qcow2 -o extended_l2=on a")
        .case("preallocated", "measure -O qcow2 -o preallocation=full a")
        .case("snapshot", "measure -O qcow2 -l one a")
        .case(
            "snapshot-by-name",
            "measure -O qcow2 -l snapshot.name=one a",
        )
        .case("snapshot-by-id", "measure -O qcow2 -l snapshot.id=1 a")
        .case("no-snapshot", "measure -O qcow2 -l two a")
        .case("size", "measure --size 1G")
        .case("size-qcow2", "measure -O qcow2 --size 1G")
        .case("size-json", "measure --output=json -O qcow2 -s 1T")
        .case("size-odd", "measure -O qcow2 --size 1000001")
        .case("size-zero", "measure --size 0")
        .case("size-hexadecimal", "measure --size 0x100000")
        .case("size-fraction", "measure --size 1.5G")
        .case("target-format", "measure --target-format=qcow2 --size 1M")
        .case("shared", "measure -U a")
        .case(
            "options",
            "measure --image-opts driver=qcow2,file.filename=a",
        )
        .case("nothing", "measure")
        .case("both", "measure --size 1M a")
        .case("two-names", "measure a r")
        .case("missing", "measure nothere")
        .case("size-malformed", "measure --size 1x")
        .case("size-negative", "measure --size -1")
        .case("size-huge", "measure --size 16E")
        .case("format-without-file", "measure -f raw --size 1M")
        .case("snapshot-without-file", "measure -l x --size 1M")
        .case("options-without-file", "measure --image-opts --size 1M")
        .case("output-unknown", "measure --output xml a")
        .case("target-unknown", "measure -O zzz a")
        .case("target-vhdx", "measure -O vhdx --size 1G")
        .case("target-vmdk", "measure -O vmdk a")
        .case("option-unknown", "measure -O qcow2 -o foo=1 a")
        .case("cluster-size-bad", "measure -O qcow2 -o cluster_size=3 a")
        .case(
            "cluster-size-large",
            "measure -O qcow2 -o cluster_size=4M a",
        )
        .case("refcount-bits-bad", "measure -O qcow2 -o refcount_bits=3 a")
        .case("size-as-option", "measure -O qcow2 -o size=1G --size 1M")
        .case("unknown-option", "measure --nosuch a")
        .case(
            "options-and-format",
            "measure -f qcow2 --image-opts driver=qcow2,file.filename=a",
        )
        .case("share-without-file", "measure -U --size 1M");
    table
}
