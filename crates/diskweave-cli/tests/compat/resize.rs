//! `resize`.

use super::table::Table;

pub(crate) fn table() -> Table {
    let mut table = Table::new("resize");
    table
        .given(&["img create -qf qcow2 a 1M"])
        .case("no-name", "resize");
    table
}
