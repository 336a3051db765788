//! `convert`.

use super::table::Table;

pub(crate) fn table() -> Table {
    let mut table = Table::new("convert");
    table
        .given(&["img create -qf qcow2 a 1M"])
        .case("no-name", "convert");
    table
}
