//! `amend`.

use super::table::{Table, What};

const PROGRESS: &str = "progress is told when there is more of it, and counts other steps";

pub(crate) fn table() -> Table {
    let mut table = Table::new("amend");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -z 1M 64k",
            "img create -qf qcow2 -o compat=0.10 old 4M",
            "io qcow2 old write -P 1 64k 128k",
            "img create -qf qcow2 -b a -F qcow2 child",
            "img create -qf qcow2 -o data_file=data external 1M",
            "img create -qf raw r 1M",
            "img create -qf vhdx v 8M",
            "img create -qf qcow2 -o lazy_refcounts=on lazy 1M",
        ])
        .case("to-version-2", "amend -o compat=0.10 a")
        .leaves("qcow2", "a")
        .case("to-version-3", "amend -o compat=1.1 old")
        .leaves("qcow2", "old")
        .case("same-version", "amend -o compat=1.1 a")
        .leaves("qcow2", "a")
        .case("lazy", "amend -o lazy_refcounts=on a")
        .leaves("qcow2", "a")
        .case("not-lazy", "amend -q -f qcow2 -o lazy_refcounts=off lazy")
        .leaves("qcow2", "lazy")
        .case("refcount-bits", "amend -o refcount_bits=64 a")
        .leaves("qcow2", "a")
        .case("refcount-bits-narrow", "amend -o refcount_bits=1 a")
        .leaves("qcow2", "a")
        .case("size", "amend -o size=8M a")
        .leaves("qcow2", "a")
        .case(
            "backing",
            "amend -o backing_file=old,backing_fmt=qcow2 child",
        )
        .leaves("qcow2", "child")
        .case("data-file", "amend -o data_file=moved external")
        .leaves("facts", "external")
        .case(
            "version-and-lazy",
            "amend -o compat=0.10,lazy_refcounts=on a",
        )
        .case("lazy-of-version-2", "amend -o lazy_refcounts=on old")
        .case("cluster-size", "amend -o cluster_size=4k a")
        .case("cluster-size-same", "amend -o cluster_size=64k a")
        .case("preallocation", "amend -o preallocation=full a")
        .case("extended", "amend -o extended_l2=on a")
        .case("compression", "amend -o compression_type=zstd a")
        .case("option-unknown", "amend -o foo=1 a")
        .case("refcount-bits-bad", "amend -o refcount_bits=3 a")
        .case("version-unknown", "amend -o compat=2.0 a")
        .case("raw", "amend -f raw -o size=2M r")
        .case("vhdx", "amend -o size=16M v")
        .case("nothing", "amend")
        .case("no-options", "amend a")
        .case("no-name", "amend -o compat=1.1")
        .case("two-names", "amend -o compat=1.1 a old")
        .case("missing", "amend -o compat=1.1 nothere")
        .case("format-unknown", "amend -f zzz -o compat=1.1 a")
        .case("cache-unknown", "amend -t foo -o compat=1.1 a")
        .case("progress", "amend -p -o compat=0.10 a")
        .differs(What::Stdout, PROGRESS)
        .leaves("qcow2", "a")
        .case("unknown-option", "amend --nosuch a");
    table
}
