//! Internal snapshots as `-l` names them.

use diskweave::SnapshotName;

/// An id or a name; or `snapshot.id=ID`, `snapshot.name=NAME` or both with a comma between, in which
/// a comma of the name's own is doubled. As `qemu-img` has it, what begins with `snapshot.` is of
/// the second kind.
pub(crate) fn parse(text: &str) -> Result<SnapshotName, String> {
    if !text.starts_with("snapshot.") {
        return Ok(SnapshotName::IdOrName(text.to_string()));
    }
    let (mut id, mut name) = (None, None);
    for part in parts(text) {
        match part.split_once('=') {
            Some(("snapshot.id", value)) => id = Some(value.to_string()),
            Some(("snapshot.name", value)) => name = Some(value.to_string()),
            _ => {
                return Err(format!(
                    "{part:?} is neither snapshot.id=ID nor snapshot.name=NAME"
                ));
            }
        }
    }
    Ok(match (id, name) {
        (Some(id), Some(name)) => SnapshotName::Both { id, name },
        (Some(id), None) => SnapshotName::Id(id),
        (None, name) => SnapshotName::Name(name.unwrap_or_default()),
    })
}

/// `text` split at single commas, the doubled ones made single.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_told_apart() {
        let name = |name: &str| name.to_string();
        assert_eq!(parse("snap"), Ok(SnapshotName::IdOrName(name("snap"))));
        assert_eq!(parse("a=b,c"), Ok(SnapshotName::IdOrName(name("a=b,c"))));
        assert_eq!(parse("snapshot.id=3"), Ok(SnapshotName::Id(name("3"))));
        assert_eq!(
            parse("snapshot.name=a,,b=c,snapshot.id=3"),
            Ok(SnapshotName::Both {
                id: name("3"),
                name: name("a,b=c"),
            })
        );
        for wrong in ["snapshot.", "snapshot.uuid=3", "snapshot.id=3,name=4"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
