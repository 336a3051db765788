//! `snapshot`.

use diskweave::SnapshotChange;
use diskweave::core::{Error, ErrorKind};

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, QUIET};
use crate::commands::qcow2_facts;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::wording;
use crate::output::plain::print;
use crate::output::snapshot_table;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    FORCE_SHARE,
    OBJECT,
    Flag::switch('l', "list"),
    Flag::value('c', "create"),
    Flag::value('a', "apply"),
    Flag::value('d', "delete"),
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let said = &call.said;
    let wanted = [
        ("list", said.count("list")),
        ("create", said.count("create")),
        ("apply", said.count("apply")),
        ("delete", said.count("delete")),
    ];
    if wanted.iter().map(|(_, times)| times).sum::<usize>() > 1 {
        return Err(call.usage("Cannot mix '-l', '-a', '-c', '-d'"));
    }
    let image = call.one_image()?;
    let change = [
        (
            "create",
            SnapshotChange::Create as fn(String) -> SnapshotChange,
        ),
        ("apply", SnapshotChange::Apply),
        ("delete", SnapshotChange::Delete),
    ]
    .into_iter()
    .find_map(|(name, change)| Some((name, change, said.value(name)?)));
    let Some((verb, change, name)) = change else {
        let chain = image.open_alone()?;
        let snapshots = qcow2_facts::snapshots(chain.top());
        print(&snapshot_table::text(
            &snapshots.map_err(|e| image.cannot_open(&e))?,
        ))?;
        return Ok(0);
    };
    let mut chain = image.open_writable()?;
    let cannot = |error: &Error| {
        let reason = reason(verb, error);
        Complaint::new(format!("Could not {verb} snapshot '{name}': {reason}"))
    };
    // By its name only; ids are each for one.
    let mut meant = name.clone();
    if verb == "delete" {
        let snapshots = qcow2_facts::snapshots(chain.top()).map_err(|e| cannot(&e))?;
        match snapshots.into_iter().find(|snapshot| snapshot.name == name) {
            Some(snapshot) => meant = snapshot.id,
            None => {
                let text = format!("Could not delete snapshot '{name}': snapshot not found");
                return Err(Complaint::new(text));
            }
        }
    }
    diskweave::change_snapshot(&mut chain, &change(meant)).map_err(|e| cannot(&e))?;
    chain.close().map_err(|e| cannot(&e))?;
    Ok(0)
}

fn reason(verb: &str, error: &Error) -> String {
    let unsupported = error.kind() == ErrorKind::Unsupported;
    let missing = error.kind() == ErrorKind::InvalidInput && verb != "create";
    match verb {
        "delete" if unsupported || missing => "snapshot not found".into(),
        "apply" if unsupported => "Block driver does not support snapshots".into(),
        "apply" if missing => "Failed to load snapshot: No such file or directory".into(),
        _ => wording::errno(error),
    }
}
