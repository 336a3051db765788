//! `snapshot`: the internal snapshots of an image, listed, taken, applied, deleted.

use std::path::Path;

use diskweave::chain::Chain;
use diskweave::core::locate::ChainPolicy;
use diskweave::{OpenDisk, SnapshotChange};
use serde_json::Value;

use super::{qcow2_facts, shown};
use crate::args::{Output, Snapshot};
use crate::failure::Failure;
use crate::output::plain::print;
use crate::output::{json, snapshot_table};

pub(crate) fn run(args: &Snapshot) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    let disk = args.image.disk();
    if let Some(change) = change(args) {
        let mut chain = open_alone(disk.writable(), &args.image.file).map_err(about)?;
        diskweave::change_snapshot(&mut chain, &change).map_err(about)?;
        chain.close().map_err(about)?;
        return Ok(0);
    }
    let chain = open_alone(disk, &args.image.file).map_err(about)?;
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

/// The change that is asked for, unless they are to be listed.
fn change(args: &Snapshot) -> Option<SnapshotChange> {
    let create = args.create.clone().map(SnapshotChange::Create);
    let apply = || args.apply.clone().map(SnapshotChange::Apply);
    let delete = || args.delete.clone().map(SnapshotChange::Delete);
    create.or_else(apply).or_else(delete)
}

/// Snapshots are all in the image itself.
fn open_alone(disk: OpenDisk, file: &Path) -> diskweave::core::Result<Chain> {
    disk.policy(ChainPolicy::Deny).open(file)
}
