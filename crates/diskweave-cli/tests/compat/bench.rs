//! `bench`.

use super::table::Table;

pub(crate) fn table() -> Table {
    let mut table = Table::new("bench");
    table
        .given(&[
            "img create -qf qcow2 a 4M",
            "io qcow2 a write -P 1 0 4M",
            "img create -qf raw r 4M",
            "length odd 513",
            "img create -qf qcow2 empty 0",
        ])
        .case("read", "bench -c 10 a")
        .case("read-much", "bench -c 1000 -s 64k a")
        .case("read-raw", "bench -c 100 -f raw r")
        .case("all-said", "bench -c 10 -d 4 -s 64k -o 1M -S 128k a")
        .case(
            "long-options",
            "bench --count=10 --depth=2 --buffer-size=4k --offset=4k --step-size=8k a",
        )
        .case("around-the-end", "bench -c 2000 -d 1 -S 12k a")
        .case("write", "bench -w -c 10 a")
        .leaves("qcow2", "a")
        .case("write-pattern", "bench -w --pattern 65 -c 16 -s 64k a")
        .leaves("qcow2", "a")
        .case("write-raw", "bench -w -f raw --pattern 0x41 -c 20 r")
        .case("write-odd-bytes", "bench -w -c 3 -s 100 --pattern 7 a")
        .leaves("qcow2", "a")
        .case("write-guessed-raw", "bench -w -c 2 r")
        .case("flush", "bench -w -c 200 --flush-interval 64 a")
        .leaves("qcow2", "a")
        .case(
            "flush-undrained",
            "bench -w -c 20 -d 2 --flush-interval 4 --no-drain a",
        )
        .leaves("qcow2", "a")
        .case("no-drain-alone", "bench -w -c 2 --no-drain a")
        .leaves("qcow2", "a")
        .case("quiet", "bench -q -c 10 a")
        .case("threads", "bench -i threads -c 2 a")
        .case("io-uring", "bench -i io_uring -c 2 a")
        .case("cache", "bench -t unsafe -c 2 a")
        .case("native-direct", "bench -t none -n -c 2 a")
        .case("native-cached", "bench -n -c 2 a")
        .case("native-by-name", "bench -i native -c 2 a")
        .case("shared", "bench -U -c 2 a")
        .case(
            "options",
            "bench --image-opts -c 2 driver=qcow2,file.filename=a",
        )
        .case("step-zero", "bench -S 0 -c 10 a")
        .case("pattern-of-reads", "bench --pattern 3 -c 2 a")
        .case("past-the-end", "bench -o 8M -c 2 a")
        .case("too-long", "bench -c 5 -s 3M a")
        .case("write-too-long", "bench -c 2 -s 8M -w r -f raw")
        .case("empty", "bench -c 2 empty")
        .case("odd", "bench -c 1 -d 1 -o 512 -s 512 odd")
        .case("no-name", "bench")
        .case("two-names", "bench a r")
        .case("missing", "bench -c 2 nothere")
        .case("count-malformed", "bench -c x a")
        .case("count-with-unit", "bench -c 1k a")
        .case("count-zero", "bench -c 0 a")
        .case("count-huge", "bench -c 99999999999 a")
        .case("depth-zero", "bench -d 0 a")
        .case("size-zero", "bench -s 0 a")
        .case("size-malformed", "bench -s x a")
        .case("step-negative", "bench -S -1 a")
        .case("offset-malformed", "bench -o x a")
        .case("pattern-large", "bench -w --pattern 256 a")
        .case("pattern-malformed", "bench -w --pattern x a")
        .case("flush-of-reads", "bench --flush-interval 64 -c 10 a")
        .case("flush-too-often", "bench -w --flush-interval 2 -c 10 a")
        .case("flush-malformed", "bench -w --flush-interval x a")
        .case("aio-unknown", "bench -i foo -c 2 a")
        .case("cache-unknown", "bench -t foo -c 2 a")
        .case("shared-write", "bench -U -w -c 2 a")
        .case("format-unknown", "bench -f zzz -c 2 a")
        .case("unknown-option", "bench --nosuch a");
    table
}
