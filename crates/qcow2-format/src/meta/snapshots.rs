//! The snapshot table (qcow2 specification, "Snapshots").

use zerocopy::IntoBytes;

use crate::Qcow2Error;
use crate::ondisk::read;
use crate::ondisk::snapshot::{RawSnapshot, RawSnapshotExtra};

/// Longest extra data of an entry, in bytes.
pub(crate) const MAX_EXTRA_BYTES: u32 = 1024;

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where its entry lies.
    pub offset: u64,
    /// Unique id, usually a number.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where its L1 table lies.
    pub l1_table_offset: u64,
    /// Entries of its L1 table.
    pub l1_size: u32,
    /// When it was taken: seconds since 1970.
    pub date_sec: u32,
    /// And nanoseconds.
    pub date_nsec: u32,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Bytes of saved machine state; 0 when there is none.
    pub vm_state_size: u64,
    /// Size of the disk when it was taken; `None` in entries that do not tell.
    pub disk_size: Option<u64>,
    /// Instructions executed, for replay; `None` when not counted.
    pub icount: Option<u64>,
}

/// Decodes the entry at byte `at` of `table`, which lies at `offset` of the file; gives the snapshot
/// and where the next entry begins. `None` where the table must be read further: it ends in the
/// middle of the entry.
///
/// # Errors
/// [`Qcow2Error::Limit`] for extra data out of bounds.
pub(crate) fn decode(
    table: &[u8],
    at: usize,
    offset: u64,
) -> Result<Option<(Snapshot, usize)>, Qcow2Error> {
    let place = offset + at as u64;
    let Some(raw) = read::<RawSnapshot>(table, at) else {
        return Ok(None);
    };
    let extra_size = raw.extra_data_size.get();
    if extra_size > MAX_EXTRA_BYTES {
        return Err(Qcow2Error::Limit {
            structure: "snapshot table entry",
            offset: place,
            field: "extra_data_size",
            found: extra_size.into(),
            limit: MAX_EXTRA_BYTES.into(),
        });
    }
    let extra_at = at + size_of::<RawSnapshot>();
    let id_at = extra_at + extra_size as usize;
    let name_at = id_at + usize::from(raw.id_size.get());
    let end = name_at + usize::from(raw.name_size.get());
    if end > table.len() {
        return Ok(None);
    }
    let mut extra = [0; size_of::<RawSnapshotExtra>()];
    let known = (extra_size as usize).min(extra.len());
    extra[..known].copy_from_slice(&table[extra_at..extra_at + known]);
    let extra: RawSnapshotExtra = read(&extra, 0).expect("as long as the structure");
    let text = |from: usize, to: usize| String::from_utf8_lossy(&table[from..to]).into_owned();
    let large = extra.vm_state_size_large.get();
    let snapshot = Snapshot {
        offset: place,
        id: text(id_at, name_at),
        name: text(name_at, end),
        l1_table_offset: raw.l1_table_offset.get(),
        l1_size: raw.l1_size.get(),
        date_sec: raw.date_sec.get(),
        date_nsec: raw.date_nsec.get(),
        vm_clock_nsec: raw.vm_clock_nsec.get(),
        vm_state_size: if known >= 8 {
            large
        } else {
            raw.vm_state_size.get().into()
        },
        disk_size: (known >= 16).then(|| extra.disk_size.get()),
        icount: (known >= 24)
            .then(|| extra.icount.get())
            .filter(|count| *count != u64::MAX),
    };
    Ok(Some((snapshot, end.next_multiple_of(8))))
}

/// The bytes of a new entry, padded.
pub(crate) fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let length = |text: &str| u16::try_from(text.len()).expect("checked when it was named");
    let extra = RawSnapshotExtra {
        vm_state_size_large: snapshot.vm_state_size.into(),
        disk_size: snapshot.disk_size.unwrap_or(0).into(),
        icount: snapshot.icount.unwrap_or(u64::MAX).into(),
    };
    let raw = RawSnapshot {
        l1_table_offset: snapshot.l1_table_offset.into(),
        l1_size: snapshot.l1_size.into(),
        id_size: length(&snapshot.id).into(),
        name_size: length(&snapshot.name).into(),
        date_sec: snapshot.date_sec.into(),
        date_nsec: snapshot.date_nsec.into(),
        vm_clock_nsec: snapshot.vm_clock_nsec.into(),
        // The extra data tells the whole of it.
        vm_state_size: u32::try_from(snapshot.vm_state_size).unwrap_or(0).into(),
        extra_data_size: u32::try_from(size_of_val(&extra)).expect("small").into(),
    };
    let mut bytes = [raw.as_bytes(), extra.as_bytes()].concat();
    bytes.extend_from_slice(snapshot.id.as_bytes());
    bytes.extend_from_slice(snapshot.name.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(extra: &[u8], id: &[u8], name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[12..14].copy_from_slice(&u16::try_from(id.len()).unwrap().to_be_bytes());
        bytes[14..16].copy_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
        bytes[32..36].copy_from_slice(&7u32.to_be_bytes());
        bytes[36..40].copy_from_slice(&u32::try_from(extra.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&[extra, id, name].concat());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn extra_data_of_every_length_is_taken_as_far_as_it_goes() {
        let extra = [
            9u64.to_be_bytes(),
            1000u64.to_be_bytes(),
            u64::MAX.to_be_bytes(),
        ]
        .concat();
        for (len, state, size) in [
            (0, 7, None),
            (8, 9, None),
            (16, 9, Some(1000)),
            (24, 9, Some(1000)),
        ] {
            let table = entry(&extra[..len], b"1", b"first");
            let (snapshot, next) = decode(&table, 0, 0x1000).unwrap().unwrap();
            assert_eq!((snapshot.vm_state_size, snapshot.disk_size), (state, size));
            assert_eq!(
                (snapshot.id.as_str(), snapshot.name.as_str()),
                ("1", "first")
            );
            assert_eq!((snapshot.icount, next), (None, table.len()));
        }
        let longer = entry(&[0; 1024], b"", b"");
        assert!(decode(&longer, 0, 0).unwrap().is_some());
        assert!(decode(&entry(&[0; 1025], b"", b""), 0, 0).is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let snapshot = Snapshot {
            offset: 0x1000,
            id: "17".into(),
            name: "before the update".into(),
            l1_table_offset: 0x5_0000,
            l1_size: 3,
            date_sec: 1,
            date_nsec: 2,
            vm_clock_nsec: 3,
            vm_state_size: 1 << 33,
            disk_size: Some(1 << 40),
            icount: None,
        };
        let bytes = encode(&snapshot);
        let (decoded, next) = decode(&bytes, 0, 0x1000).unwrap().unwrap();
        assert_eq!((decoded, next), (snapshot, bytes.len()));
    }

    #[test]
    fn an_entry_cut_short_asks_for_more() {
        let table = entry(&[], b"1", b"first");
        for len in [0, 39, 40, 45] {
            assert!(decode(&table[..len], 0, 0).unwrap().is_none(), "{len}");
        }
    }
}
