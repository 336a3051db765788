//! `create`.

use super::table::{Table, What};

const LEFT: &str = "where no image was made no file is left";

pub(crate) fn table() -> Table {
    let mut table = Table::new("create");
    table
        .given(&[
            "img create -qf qcow2 base 4M",
            "io qcow2 base write -P 1 0 64k",
            "img create -qf raw r 2M",
            "folder d",
        ])
        .case("raw", "create n 1M")
        .case("raw-said", "create -f raw n 1048576")
        .case("raw-odd", "create -f raw n 1000")
        .case(
            "raw-preallocated",
            "create -f raw -o preallocation=full n 1M",
        )
        .case("qcow2", "create -f qcow2 n 4M")
        .case("quiet", "create -q -f qcow2 n 4M")
        .case("size-fraction", "create -f qcow2 n 1.5G")
        .case("size-zero", "create -f qcow2 n 0")
        .case("size-large", "create -f qcow2 n 1T")
        .case("size-as-option", "create -f qcow2 -o size=4M n")
        .case("clusters", "create -f qcow2 -o cluster_size=4k n 4M")
        .case("clusters-large", "create -f qcow2 -o cluster_size=2M n 40M")
        .case("version-2", "create -f qcow2 -o compat=0.10 n 4M")
        .case("version-name", "create -f qcow2 -o compat=v3 n 4M")
        .case("extended", "create -f qcow2 -o extended_l2=on n 4M")
        .case("lazy", "create -f qcow2 -o lazy_refcounts=on n 4M")
        .case("narrow", "create -f qcow2 -o refcount_bits=1 n 4M")
        .case("wide", "create -f qcow2 -o refcount_bits=64 n 4M")
        .case("zstd", "create -f qcow2 -o compression_type=zstd n 4M")
        .case("data-file", "create -f qcow2 -o data_file=n.raw n 1M")
        .case(
            "data-file-raw",
            "create -f qcow2 -o data_file=n.raw,data_file_raw=on n 1M",
        )
        .case("metadata", "create -f qcow2 -o preallocation=metadata n 1M")
        .leaves("qcow2", "n")
        .case("falloc", "create -f qcow2 -o preallocation=falloc n 1M")
        .leaves("qcow2", "n")
        .case("full", "create -f qcow2 -o preallocation=full n 1M")
        .leaves("qcow2", "n")
        .case(
            "several-options",
            "create -f qcow2 -o cluster_size=4k,refcount_bits=8 -o lazy_refcounts=on n 4M",
        )
        .case("child", "create -f qcow2 -b base -F qcow2 n")
        .case("child-sized", "create -f qcow2 -b base -F qcow2 n 8M")
        .case("child-of-raw", "create -f qcow2 -b r -F raw n")
        .case(
            "child-by-options",
            "create -f qcow2 -o backing_file=base,backing_fmt=qcow2 n",
        )
        .case(
            "child-unopened",
            "create -u -f qcow2 -b nothere -F qcow2 n 4M",
        )
        .case("child-of-nothing", "create -f qcow2 -b nothere -F qcow2 n")
        .case("child-without-format", "create -f qcow2 -b base n")
        .case(
            "child-unopened-unsized",
            "create -u -f qcow2 -b base -F qcow2 n",
        )
        .case("child-of-itself", "create -f qcow2 -b n -F qcow2 n")
        .case("child-raw", "create -f raw -b base -F qcow2 n")
        .case("backing-format-alone", "create -f qcow2 -F qcow2 n 1M")
        .case("backing-format-unknown", "create -f qcow2 -b base -F zzz n")
        .case("backing-empty", "create -f qcow2 -b '' -F qcow2 n 1M")
        .case("vhdx", "create -f vhdx n 8M")
        .leaves("vhdx", "n")
        .case("vhdx-fixed", "create -f vhdx -o subformat=fixed n 8M")
        .leaves("vhdx", "n")
        .case("vhdx-blocks", "create -f vhdx -o block_size=1M n 8M")
        .leaves("vhdx", "n")
        .case("over-another", "create -f qcow2 r 1M")
        .case("no-name", "create")
        .case("no-size", "create -f qcow2 n")
        .case("too-many", "create n 1M more")
        .case("size-malformed", "create n 1x")
        .case("size-negative", "create n -- -1")
        .case("size-twice", "create -f qcow2 -o size=1M n 2M")
        .case("format-unknown", "create -f zzz n 1M")
        .case("option-unknown", "create -f qcow2 -o foo=1 n 1M")
        .case(
            "option-of-other-format",
            "create -f raw -o cluster_size=4k n 1M",
        )
        .case("option-list-empty", "create -f qcow2 -o '' n 1M")
        .case(
            "option-list-comma",
            "create -f qcow2 -o cluster_size=4k, n 1M",
        )
        .case("clusters-bad", "create -f qcow2 -o cluster_size=3 n 1M")
        .case(
            "clusters-too-large",
            "create -f qcow2 -o cluster_size=4M n 1M",
        )
        .case(
            "clusters-malformed",
            "create -f qcow2 -o cluster_size=x n 1M",
        )
        .case("refcounts-bad", "create -f qcow2 -o refcount_bits=3 n 1M")
        .case(
            "refcounts-of-version-2",
            "create -f qcow2 -o compat=0.10,refcount_bits=8 n 1M",
        )
        .case("version-unknown", "create -f qcow2 -o compat=2.0 n 1M")
        .case(
            "preallocation-unknown",
            "create -f qcow2 -o preallocation=some n 1M",
        )
        .case(
            "compression-unknown",
            "create -f qcow2 -o compression_type=lz4 n 1M",
        )
        .case(
            "extended-small",
            "create -f qcow2 -o extended_l2=on,cluster_size=4k n 1M",
        )
        .case(
            "switch-malformed",
            "create -f qcow2 -o lazy_refcounts=maybe n 1M",
        )
        .case("too-large", "create -f qcow2 -o cluster_size=512 n 1T")
        .case("subformat-unknown", "create -f vhdx -o subformat=odd n 8M")
        .differs(What::Files, LEFT)
        .case("folder-missing", "create -f qcow2 gone/n 1M")
        .case("onto-a-folder", "create -f qcow2 d 1M")
        .case("unknown-option", "create --nosuch n 1M");
    table
}
