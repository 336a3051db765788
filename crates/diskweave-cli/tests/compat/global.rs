//! What stands before a verb, and in its place.

use super::table::{Table, What};

const HELP: &str = "help tells what this program does, in its own words";
const TRACE: &str = "there are no trace events: what is said of them is taken and has no effect";
const VERSION: &str = "it is this program's version";

pub(crate) fn table() -> Table {
    let mut table = Table::new("global");
    table
        .given(&["img create -qf qcow2 a 1M"])
        .case("nothing", "")
        .case("unknown-verb", "frobnicate a")
        .case("unknown-option", "--frobnicate")
        .case("unknown-letter", "-Z info a")
        .case("empty-verb", "''")
        .case(
            "trace",
            "-T enable=nothing,file=t info --output json nothere",
        )
        .differs(What::Stderr, TRACE)
        .differs(What::Files, TRACE)
        .case("trace-without-value", "-T")
        .case("verb-in-capitals", "INFO a")
        .case("verb-cut-short", "inf a")
        .case("objects-unknown", "info --object nosuch,id=x a")
        .case("help", "--help")
        .differs(What::Stdout, HELP)
        .case("help-letter", "-h")
        .differs(What::Stdout, HELP)
        .case("version", "--version")
        .differs(What::Stdout, VERSION)
        .case("version-letter", "-V")
        .differs(What::Stdout, VERSION)
        .case("help-of-verb", "check --help")
        .differs(What::Stdout, HELP)
        .case("help-of-verb-first", "map -h --nosuch")
        .differs(What::Stdout, HELP)
        .case("dashes-end-options", "check -- a")
        .case("dashes-before-option", "check -- -q")
        .case("options-after-names", "check a -q")
        .case("empty-name", "check ''");
    table
}
