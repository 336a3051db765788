//! `check`.

use super::table::{Table, What};

const END: &str = "refcounts that are written anew lie behind everything that is in the file, not in space that is \
                   taken to be free in it";
const NO_TABLE: &str =
    "what cannot be a table, as it does not begin with a cluster, is not read as one";
const DOUBTFUL: &str = "leaks are given up where every reference is told: behind an entry that makes no sense may be \
                        what nothing else refers to";
const OWN_WORDS: &str =
    "faults of a VHDX are told in this program's words, with their place and rule";
const LOG: &str = "an image with a log is checked as the log leaves it, which is done in memory";

pub(crate) fn table() -> Table {
    let mut table = Table::new("check");
    sound(&mut table);
    mistakes(&mut table);
    damaged(&mut table);
    poked(&mut table);
    other_formats(&mut table);
    table
}

fn sound(table: &mut Table) {
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -P 2 2M 64k",
            "img create -qf qcow2 -b a -F qcow2 child",
            "img create -qf qcow2 empty 0",
            "img create -qf qcow2 -o compat=0.10 old 1G",
            "img create -qf qcow2 -o extended_l2=on extended 8M",
            "io qcow2 extended write -P 3 0 2k; write -P 4 1M 256k",
            "img create -qf qcow2 -o cluster_size=512 small 1M",
            "io qcow2 small write -P 3 0 100k",
            "img create -qf qcow2 -o data_file=data,data_file_raw=on external 1M",
            "io qcow2 external write -P 3 0 100k",
            "img convert -cf qcow2 -O qcow2 a packed",
            "img snapshot -c one a",
        ])
        .case("human", "check a")
        .case("json", "check --output json a")
        .case("json-joined", "check --output=json -f qcow2 a")
        .case("quiet", "check -q a")
        .case("quiet-json", "check -q --output json a")
        .case("child", "check child")
        .case("empty", "check empty")
        .case("empty-json", "check --output json empty")
        .case("old", "check -f qcow2 old")
        .case("extended", "check extended")
        .case("small-clusters", "check small")
        .case("data-file", "check external")
        .case("data-file-json", "check --output json external")
        .case("packed", "check packed")
        .case("packed-json", "check --output=json packed")
        .case("shared", "check -U a")
        .case("cache-none", "check -T none a")
        .case("cache-writeback", "check --cache=writeback a")
        .case("options", "check --image-opts driver=qcow2,file.filename=a")
        .case(
            "json-name",
            "check 'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"a\"}}'",
        )
        .case("repair-of-nothing", "check -r all a")
        .case("repair-of-no-leak", "check -r leaks a")
        .case("repair-long-json", "check --repair=all --output=json a");
}

fn mistakes(table: &mut Table) {
    table
        .given(&[
            "img create -qf qcow2 a 1M",
            "img create -qf raw r 1M",
            "folder d",
        ])
        .case("no-name", "check")
        .case("two-names", "check a a")
        .case("missing", "check nothere")
        .case("folder", "check d")
        .case("unknown-option", "check --nosuch a")
        .case("unknown-letter", "check -u a")
        .case("repair-what", "check -r foo a")
        .case("repair-nothing-said", "check a -r")
        .case("format-unknown", "check -f zzz a")
        .case("format-wrong", "check -f qcow2 r")
        .case("format-vhdx", "check -f vhdx a")
        .case("cache-unknown", "check -T foo a")
        .case("output-unknown", "check --output xml a")
        .case("shared-repair", "check -U -r all a")
        .case(
            "options-and-format",
            "check -f qcow2 --image-opts driver=qcow2,file.filename=a",
        )
        .case("options-without-file", "check --image-opts driver=qcow2")
        .case("missing-repaired", "check -r all nothere")
        .case("raw", "check r")
        .case("raw-said", "check -f raw a")
        .case("raw-repaired", "check -r all r")
        .case("raw-said-repaired", "check -r leaks -f raw r")
        .case("raw-json", "check --output json r");
}

fn damaged(table: &mut Table) {
    table
        .given(&["corpus q-leak-clusters"])
        .case("leak", "check disk.qcow2")
        .case("leak-json", "check --output json disk.qcow2")
        .case("leak-quiet", "check -q disk.qcow2")
        .case("leak-mended", "check -r leaks disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .case("leak-mended-with-all", "check -r all disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .case(
            "leak-mended-json",
            "check -r leaks --output json disk.qcow2",
        )
        .leaves("qcow2", "disk.qcow2")
        .given(&["corpus q-refcount-shared-cluster"])
        .case("shared-cluster", "check disk.qcow2")
        .case("shared-cluster-json", "check --output=json disk.qcow2")
        .case("shared-cluster-leaks", "check -r leaks disk.qcow2")
        .case("shared-cluster-mended", "check -r all disk.qcow2")
        .case(
            "shared-cluster-mended-json",
            "check -r all --output json disk.qcow2",
        )
        .given(&["corpus q-refcount-zero-in-use"])
        .case("zero-in-use", "check disk.qcow2")
        .case("zero-in-use-json", "check --output json disk.qcow2")
        .case("zero-in-use-leaks", "check -r leaks disk.qcow2")
        .case("zero-in-use-mended", "check -r all disk.qcow2")
        .differs(What::Stdout, END)
        .leaves("qcow2", "disk.qcow2")
        .given(&["corpus q-dirty-bit"])
        .case("dirty", "check disk.qcow2")
        .case("dirty-json", "check --output json disk.qcow2")
        .case("dirty-mended", "check -r all disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .given(&["corpus q-corrupt-bit"])
        .case("corrupt-bit", "check disk.qcow2")
        .case("corrupt-bit-mended", "check -r all disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .given(&["corpus q-badread-l1-unaligned"])
        .case("l1-unaligned", "check disk.qcow2")
        .differs(What::Stdout, NO_TABLE)
        .differs(What::Stderr, NO_TABLE)
        .given(&["corpus q-badread-l2-unaligned"])
        .case("l2-unaligned", "check disk.qcow2")
        .case("l2-unaligned-json", "check --output json disk.qcow2")
        .case("l2-unaligned-leaks", "check -r leaks disk.qcow2")
        .case("l2-unaligned-mended", "check -r all disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .given(&["corpus q-badread-deflate"])
        .case("deflate", "check disk.qcow2")
        .given(&["corpus q-badread-extl2-bitmap"])
        .case("subclusters", "check disk.qcow2")
        .case("subclusters-mended", "check -r all disk.qcow2")
        .given(&["corpus q-soft-data-past-eof"])
        .case("past-the-end", "check disk.qcow2")
        .case("past-the-end-json", "check --output json disk.qcow2")
        .case("past-the-end-leaks", "check -r leaks disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .differs(What::Stdout, DOUBTFUL)
        .differs(What::Stderr, DOUBTFUL)
        .differs(What::Files, DOUBTFUL)
        .case("past-the-end-mended", "check -r all disk.qcow2")
        .leaves("qcow2", "disk.qcow2")
        .given(&["corpus q-soft-truncated-tail"])
        .case("short-tail", "check disk.qcow2")
        .given(&["corpus q-bitmap-inuse"])
        .case("bitmap-in-use", "check disk.qcow2")
        .given(&["corpus q-bitmap-3"])
        .case("bitmaps", "check disk.qcow2")
        .given(&["corpus q-snap3-v2"])
        .case("snapshots-of-version-2", "check disk.qcow2")
        .given(&["corpus q-vmstate-area"])
        .case("machine-state", "check disk.qcow2")
        .given(&["corpus q-lazy-refcounts"])
        .case("lazy", "check --output json disk.qcow2")
        .given(&["corpus q-bad-snaptable-unaligned"])
        .case("snapshot-table-unaligned", "check disk.qcow2")
        .given(&["corpus q-bad-rt-unaligned"])
        .case("refcount-table-unaligned", "check disk.qcow2")
        .given(&["corpus q-bad-l1-too-small"])
        .case("l1-too-small", "check disk.qcow2")
        .given(&["corpus q-bad-l1-huge"])
        .case("l1-huge", "check disk.qcow2")
        .given(&["corpus q-bad-incompat-bit"])
        .case("unknown-feature", "check disk.qcow2")
        .given(&["corpus q-bad-truncated-header"])
        .case("short-header", "check -f qcow2 disk.qcow2");
}

fn poked(table: &mut Table) {
    // One table of either sort: header 0, refcount table 1, refcount block 2, L1 3, L2 4, data from 5.
    let made = "img create -qf qcow2 a 1M";
    let written = "io qcow2 a write -P 1 0 256k";
    table
        .given(&[made, written, "poke a 0 51464900"])
        .case("magic", "check a")
        .case("magic-said", "check -f qcow2 a")
        .given(&[made, written, "poke a 4 00000009"])
        .case("version", "check a")
        .given(&[made, written, "poke a 0x20010 0001"])
        .case("leaks-far-behind", "check a")
        .given(&[made, written, "poke a 0x2000a 0003"])
        .case("refcount-too-high", "check a")
        .case("refcount-too-high-leaks", "check -r leaks a")
        .case("refcount-too-high-mended", "check -r all a")
        .given(&[
            made,
            written,
            "length a 1048576",
            "poke a 0x20012 000100010001",
        ])
        .case("three-leaks", "check a")
        .case("three-leaks-mended", "check -r leaks a")
        .given(&[made, written, "poke a 0x40000 00"])
        .case("copied-flag-missing", "check a")
        .case("copied-flag-missing-mended", "check -r all a")
        .given(&[made, written, "poke a 0x30000 00"])
        .case("copied-flag-of-table", "check a")
        .case("copied-flag-of-table-mended", "check -r all a")
        .given(&[made, written, "poke a 0x20008 0000"])
        .case("table-not-counted", "check a")
        .given(&[made, written, "poke a 0x10000 0000000000000000"])
        .case("no-refcount-block", "check a")
        .case("no-refcount-block-mended", "check -r all a")
        .differs(What::Stdout, END)
        .leaves("qcow2", "a")
        .given(&[made, written, "poke a 72 0000000000000001"])
        .case("dirty-bit-alone", "check a")
        .case("dirty-bit-alone-mended", "check -r all a");
}

fn other_formats(table: &mut Table) {
    table
        .given(&["img create -qf vhdx a 8M", "io vhdx a write -P 1 0 1M"])
        .case("vhdx", "check a")
        .case("vhdx-json", "check -f vhdx --output json a")
        .case("vhdx-mended", "check -r all a")
        .given(&["corpus vhdx-badread-bat-past-eof"])
        .case("vhdx-past-the-end", "check disk.vhdx")
        .differs(What::Stderr, OWN_WORDS)
        .given(&["corpus vhdx-bad-both-headers"])
        .case("vhdx-no-header", "check disk.vhdx")
        .given(&["corpus vhdx-log-multi"])
        .case("vhdx-log", "check disk.vhdx")
        .differs(What::Code, LOG)
        .differs(What::Stdout, LOG)
        .differs(What::Stderr, LOG)
        .case("vhdx-log-replayed", "check -r all disk.vhdx")
        .leaves("vhdx", "disk.vhdx");
}
