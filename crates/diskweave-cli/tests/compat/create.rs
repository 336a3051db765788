//! `create`.

use super::table::Table;

pub(crate) fn table() -> Table {
    let mut table = Table::new("create");
    table
        .given(&["img create -qf qcow2 a 1M"])
        .case("no-name", "create");
    table
}
