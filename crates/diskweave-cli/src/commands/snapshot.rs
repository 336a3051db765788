//! `snapshot`: the internal snapshots of an image, listed.

use diskweave::core::locate::ChainPolicy;
use serde_json::Value;

use super::{qcow2_facts, shown};
use crate::args::{Output, Snapshot};
use crate::failure::Failure;
use crate::output::plain::print;
use crate::output::{json, snapshot_table};

pub(crate) fn run(args: &Snapshot) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let disk = args.open.disk(&args.file, args.format.as_ref());
    // They are all in the image itself.
    let chain = disk
        .policy(ChainPolicy::Deny)
        .open(&args.file)
        .map_err(about)?;
    let snapshots = qcow2_facts::snapshots(chain.top()).map_err(about)?;
    match args.output {
        Output::Human => print(&snapshot_table::text(&snapshots))?,
        Output::Json => {
            let snapshots: Vec<Value> = snapshots.iter().map(qcow2_facts::snapshot).collect();
            json::print(&snapshots)?;
        }
    }
    Ok(0)
}
