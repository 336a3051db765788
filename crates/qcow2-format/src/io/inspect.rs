//! Reading single structures: for opening, for checking, and for whoever wants to look.

use blockdev_core::{Result, Storage, StorageExt};

use crate::Qcow2Error;
use crate::meta::extensions::Extensions;
use crate::meta::header::Header;
use crate::meta::snapshots::{Snapshot, decode};
use crate::ondisk::header::V3_BYTES;

/// Largest cluster: the header, its extensions and the backing file's name lie in the first one.
const MAX_CLUSTER_BYTES: usize = 2 << 20;

/// Longest snapshot table: 1 KiB for each of the most snapshots there can be.
const MAX_SNAPSHOT_TABLE_BYTES: u64 = 64 << 20;

/// Bytes of the snapshot table read at a time.
const SNAPSHOT_PIECE: usize = 64 << 10;

/// The header with what follows it in the first cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirstCluster {
    /// The header.
    pub header: Header,
    /// Its extensions.
    pub extensions: Extensions,
    /// The backing file's name, where there is one.
    pub backing_file: Option<String>,
}

/// Reads and decodes the first cluster. Features are not judged.
///
/// # Errors
/// [`NotRecognised`](blockdev_core::ErrorKind::NotRecognised) for a file of another format,
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) with the field,
/// [`LimitExceeded`](blockdev_core::ErrorKind::LimitExceeded),
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn first_cluster(storage: &dyn Storage) -> Result<FirstCluster> {
    let mut start = vec![0; V3_BYTES + 8];
    let there = storage.read_up_to(&mut start, 0)?;
    start.truncate(there);
    // Of a longer header only its length matters beyond these bytes.
    let claimed = start.get(100..104).map_or(0, |length| {
        u32::from_be_bytes(length.try_into().expect("four bytes")) as usize
    });
    if (V3_BYTES + 8..=MAX_CLUSTER_BYTES).contains(&claimed) {
        start.resize(claimed, 0);
        let there = storage.read_up_to(&mut start, 0)?;
        start.truncate(there);
    }
    let header = Header::decode(&start)?;
    let mut cluster = vec![0; usize::try_from(header.cluster_size()).expect("at most 2 MiB")];
    storage.read_zero_padded(&mut cluster, 0)?;
    // The backing file's name ends the extensions, wherever the end marker is.
    let name_at = usize::try_from(header.backing_file_offset).unwrap_or(cluster.len());
    let end = if name_at == 0 {
        cluster.len()
    } else {
        name_at.min(cluster.len())
    };
    let from = header.header_length as usize;
    let area = cluster.get(from..end).unwrap_or_default();
    let extensions = Extensions::decode(area, from as u64)?;
    // A place without a length names nothing, as QEMU 10.0 has it.
    let backing_file = match (header.backing_file_offset, header.backing_file_size) {
        (0, _) | (_, 0) => None,
        _ => Some(backing_file(&header, &cluster[name_at..])?),
    };
    Ok(FirstCluster {
        header,
        extensions,
        backing_file,
    })
}

fn backing_file(header: &Header, bytes: &[u8]) -> Result<String, Qcow2Error> {
    let name = &bytes[..header.backing_file_size as usize];
    String::from_utf8(name.to_vec()).map_err(|_| Qcow2Error::Field {
        structure: "backing file name",
        offset: header.backing_file_offset,
        field: "name",
        found: format!("\"{}\"", name.escape_ascii()),
        expected: "UTF-8 text".into(),
    })
}

/// Every internal snapshot, in the order of the table.
///
/// # Errors
/// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) when the table reaches past the end of the file,
/// [`LimitExceeded`](blockdev_core::ErrorKind::LimitExceeded),
/// [`Io`](blockdev_core::ErrorKind::Io).
pub fn snapshots(storage: &dyn Storage, header: &Header) -> Result<Vec<Snapshot>> {
    snapshot_table(storage, header).map(|(snapshots, _)| snapshots)
}

/// Every internal snapshot, and the length of their table in bytes.
pub(crate) fn snapshot_table(
    storage: &dyn Storage,
    header: &Header,
) -> Result<(Vec<Snapshot>, u64)> {
    let mut found = Vec::new();
    let mut piece = Vec::new();
    let (mut piece_at, mut at) = (header.snapshots_offset, 0);
    while found.len() < header.nb_snapshots as usize {
        match decode(&piece, at, piece_at)? {
            Some((snapshot, next)) => {
                found.push(snapshot);
                at = next;
                let length = piece_at + at as u64 - header.snapshots_offset;
                if length > MAX_SNAPSHOT_TABLE_BYTES {
                    return Err(Qcow2Error::Limit {
                        structure: "snapshot table",
                        offset: header.snapshots_offset,
                        field: "length",
                        found: length,
                        limit: MAX_SNAPSHOT_TABLE_BYTES,
                    }
                    .into());
                }
            }
            None => {
                // Read on from the entry that was cut, which is never longer than a piece.
                let start = piece_at + at as u64;
                let known = piece.len().saturating_sub(at);
                let mut next = vec![0; known + SNAPSHOT_PIECE * 3];
                let there = storage.read_up_to(&mut next, start)?;
                if there <= known {
                    return Err(Qcow2Error::Field {
                        structure: "header",
                        offset: 0,
                        field: "nb_snapshots",
                        found: header.nb_snapshots.to_string(),
                        expected: format!("the {} that the file holds", found.len()).into(),
                    }
                    .into());
                }
                next.truncate(there);
                (piece, piece_at, at) = (next, start, 0);
            }
        }
    }
    let length = piece_at + at as u64 - header.snapshots_offset;
    Ok((found, length))
}
