//! `dd`.

use super::table::Table;

pub(crate) fn table() -> Table {
    let mut table = Table::new("dd");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 64k 128k; write -P 2 3M 300000",
            "img create -qf qcow2 -b a -F qcow2 child",
            "img convert -f qcow2 -O raw a r",
            "img convert -f qcow2 -O vhdx a v",
            "length odd 513",
            "poke odd 500 0102030405060708090a0b0c0d",
            "img create -qf qcow2 empty 0",
        ])
        .case("whole", "dd if=a of=o bs=64k")
        .case("whole-by-sectors", "dd if=a of=o")
        .case("to-qcow2", "dd -O qcow2 if=a of=o bs=1M")
        .leaves("qcow2", "o")
        .case("to-vhdx", "dd -O vhdx if=a of=o bs=1M")
        .leaves("vhdx", "o")
        .case("of-child", "dd -f qcow2 if=child of=o bs=1M")
        .case("of-vhdx", "dd if=v of=o bs=1M")
        .case("of-raw", "dd -f raw if=r of=o bs=1M")
        .case("as-raw", "dd -f raw if=a of=o bs=1M")
        .case("over-another", "dd if=a of=odd bs=1M")
        .case("odd", "dd -f raw if=odd of=o")
        .case("odd-to-qcow2", "dd -f raw -O qcow2 if=odd of=o")
        .leaves("qcow2", "o")
        .case("one-sector-of-odd", "dd -f raw if=odd of=o count=1")
        .case("empty", "dd if=empty of=o")
        .case("count", "dd if=a of=o bs=1M count=2")
        .case("skip", "dd if=a of=o bs=1M skip=3")
        .case("skip-and-count", "dd if=a of=o bs=64k skip=1 count=2")
        .case("count-past-the-end", "dd if=a of=o bs=1M skip=3 count=5")
        .case("skip-to-the-end", "dd if=a of=o bs=1M skip=4")
        .case("skip-past-the-end", "dd if=a of=o bs=1M skip=10")
        .case("small-blocks", "dd if=a of=o bs=3 count=5")
        .case("odd-blocks", "dd if=a of=o bs=65537 count=3 skip=2")
        .case("no-blocks", "dd if=a of=o count=0")
        .case("block-with-unit", "dd if=a of=o bs=1k count=100 skip=64")
        .case(
            "last-one-counts",
            "dd if=r if=a of=p of=o bs=1M count=1 count=2",
        )
        .case("shared", "dd -U if=a of=o bs=1M")
        .case(
            "options",
            "dd --image-opts if=driver=qcow2,file.filename=a of=o bs=1M",
        )
        .case("nothing", "dd")
        .case("no-target", "dd if=a")
        .case("no-source", "dd of=o")
        .case("source-missing", "dd if=nothere of=o")
        .case("target-folder-missing", "dd if=a of=d/o")
        .case("onto-itself", "dd if=a of=a bs=1M")
        .case("block-malformed", "dd if=a of=o bs=x")
        .case("block-zero", "dd if=a of=o bs=0")
        .case("block-too-large", "dd if=a of=o bs=2G")
        .case("count-malformed", "dd if=a of=o count=x")
        .case("count-with-unit", "dd if=a of=o count=1k")
        .case("count-negative", "dd if=a of=o count=-1")
        .case("skip-malformed", "dd if=a of=o skip=x")
        .case("unknown-operand", "dd if=a of=o conv=notrunc")
        .case("seek", "dd if=a of=o seek=1")
        .case("bare-operand", "dd if=a of=o foo")
        .case("unknown-option", "dd -n if=a of=o")
        .case("format-unknown", "dd -f zzz if=a of=o")
        .case("target-format-unknown", "dd -O zzz if=a of=o")
        .case("format-wrong", "dd -f qcow2 if=r of=o");
    table
}
