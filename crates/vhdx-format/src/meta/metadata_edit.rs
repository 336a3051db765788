//! Changing items of the metadata region ([MS-VHDX] §2.6): where they go, and the table's bytes.

use std::ops::Range;

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::ondisk::guid::GuidBytes;
use crate::ondisk::metadata_table::{
    BYTES, IS_REQUIRED, IS_USER, MAX_ENTRIES, RawMetadataEntry, RawMetadataTableHeader,
};
use crate::ondisk::read;

/// One item as it is to be.
#[derive(Debug)]
pub(crate) enum ItemChange {
    /// A required item of the system, there before or not.
    Put(Uuid, Vec<u8>),
    /// A system item that is not to be there.
    Remove(Uuid),
}

const HEADER: usize = size_of::<RawMetadataTableHeader>();
const ENTRY: usize = size_of::<RawMetadataEntry>();

/// Makes `table`, the valid table of a region `region_len` bytes long, say what `changes` ask for.
/// Gives where in the region each item that was put goes; `None` where the region has no room.
pub(crate) fn edit(
    table: &mut [u8],
    region_len: u64,
    changes: &[ItemChange],
) -> Option<Vec<(u64, Vec<u8>)>> {
    debug_assert_eq!(table.len(), BYTES);
    let mut entries = decode(table);
    for change in changes {
        let (ItemChange::Put(id, _) | ItemChange::Remove(id)) = change;
        if matches!(change, ItemChange::Remove(_)) {
            entries.retain(|entry| !is_system(entry, *id));
        }
    }
    let mut placed = Vec::new();
    for change in changes {
        let ItemChange::Put(id, bytes) = change else {
            continue;
        };
        let at = entries.iter().position(|entry| is_system(entry, *id));
        let old = at.map(|at| range(&entries[at]));
        let length = bytes.len() as u64;
        // In its own place, if it fits: one log entry changes it as a whole.
        let others = || {
            let others = entries.iter().enumerate();
            others
                .filter(|(n, _)| Some(*n) != at)
                .map(|(_, entry)| range(entry))
        };
        let fits = |start: u64| {
            let end = start + length;
            end <= region_len && others().all(|other| other.end <= start || end <= other.start)
        };
        let starts = old.map(|old| old.start).into_iter();
        let starts = starts
            .chain([BYTES as u64])
            .chain(others().map(|other| other.end));
        let start = starts
            .filter(|start| *start >= BYTES as u64)
            .find(|start| fits(*start))?;
        let flags = at.map_or(IS_REQUIRED, |at| entries[at].flags.get());
        let entry = RawMetadataEntry {
            item_id: GuidBytes::from(*id),
            offset: u32::try_from(start).ok()?.into(),
            length: u32::try_from(length).ok()?.into(),
            flags: flags.into(),
            reserved2: 0.into(),
        };
        match at {
            Some(at) => entries[at] = entry,
            None => entries.push(entry),
        }
        placed.push((start, bytes.clone()));
    }
    encode(table, &entries)?;
    Some(placed)
}

fn is_system(entry: &RawMetadataEntry, id: Uuid) -> bool {
    entry.item_id.get() == id && entry.flags.get() & IS_USER == 0
}

fn range(entry: &RawMetadataEntry) -> Range<u64> {
    let start = u64::from(entry.offset.get());
    start..start + u64::from(entry.length.get())
}

fn decode(table: &[u8]) -> Vec<RawMetadataEntry> {
    let header: RawMetadataTableHeader = read(table, 0).expect("64 KiB hold the header");
    let count = usize::from(header.entry_count.get());
    (0..count)
        .filter_map(|n| read(table, HEADER + n * ENTRY))
        .collect()
}

fn encode(table: &mut [u8], entries: &[RawMetadataEntry]) -> Option<()> {
    let count = u16::try_from(entries.len()).ok()?;
    if count > MAX_ENTRIES {
        return None;
    }
    let mut header: RawMetadataTableHeader = read(table, 0).expect("64 KiB hold the header");
    let before = HEADER + usize::from(header.entry_count.get()) * ENTRY;
    header.entry_count = count.into();
    table[..HEADER].copy_from_slice(header.as_bytes());
    table[HEADER..before].fill(0);
    for (n, entry) in entries.iter().enumerate() {
        let at = HEADER + n * ENTRY;
        table[at..at + ENTRY].copy_from_slice(entry.as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::metadata::MetadataTable;
    use crate::ondisk::metadata_table::SIGNATURE;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    /// Items 1, 2 (a user's) and 3 of 100 bytes each.
    fn table() -> Vec<u8> {
        let mut table = vec![0; BYTES];
        table[..8].copy_from_slice(&SIGNATURE);
        let entries: Vec<RawMetadataEntry> = [(1, IS_REQUIRED), (2, IS_USER), (3, 0)]
            .iter()
            .map(|&(n, flags)| RawMetadataEntry {
                item_id: id(n).into(),
                offset: (u32::try_from(BYTES).unwrap() + u32::try_from(n).unwrap() * 100).into(),
                length: 100.into(),
                flags: flags.into(),
                reserved2: 0.into(),
            })
            .collect();
        encode(&mut table, &entries).unwrap();
        table
    }

    fn shown(table: &[u8]) -> Vec<(u128, u32, u32, bool)> {
        let table = MetadataTable::decode(table, 0);
        assert!(
            table
                .problems(1 << 20)
                .iter()
                .all(|problem| problem.code != "metadata-overlap")
        );
        let base = u32::try_from(BYTES).unwrap();
        let entries = table.entries.iter();
        entries
            .map(|e| (e.item_id.as_u128(), e.offset - base, e.length, e.is_user))
            .collect()
    }

    #[test]
    fn an_item_keeps_its_place_while_it_fits() {
        let mut bytes = table();
        let put = |n, len| ItemChange::Put(id(n), vec![7; len]);
        let placed = edit(&mut bytes, 1 << 20, &[put(1, 90)]).unwrap();
        assert_eq!(placed, [(BYTES as u64 + 100, vec![7; 90])]);
        assert_eq!(shown(&bytes)[0], (1, 100, 90, false));
        // The user's item of the same id is another item.
        edit(&mut bytes, 1 << 20, &[put(2, 100)]).unwrap();
        let all = [
            (1, 100, 90, false),
            (2, 200, 100, true),
            (3, 300, 100, false),
            (2, 0, 100, false),
        ];
        assert_eq!(shown(&bytes), all);
        edit(&mut bytes, 1 << 20, &[put(1, 101)]).unwrap();
        assert_eq!(shown(&bytes)[0], (1, 400, 101, false));
    }

    #[test]
    fn what_is_removed_makes_room() {
        let mut bytes = table();
        let changes = [
            ItemChange::Remove(id(1)),
            ItemChange::Put(id(9), vec![1; 200]),
        ];
        let placed = edit(&mut bytes, BYTES as u64 + 400, &changes).unwrap();
        assert_eq!(placed[0].0, BYTES as u64);
        assert_eq!(shown(&bytes).len(), 3);
        let too_long = [ItemChange::Put(id(9), vec![1; 201])];
        assert!(edit(&mut bytes, BYTES as u64 + 400, &too_long).is_none());
    }
}
