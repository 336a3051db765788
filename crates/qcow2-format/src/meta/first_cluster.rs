//! The first cluster with other extensions or another backing file's name, and the order in which
//! its bytes are written so that at every instant the one or the other is there whole.
//!
//! A sector of 512 bytes is written whole or not at all. What does not fit into the first goes
//! elsewhere in the cluster first:
//!
//! ```text
//!   now     │ header │ extensions │ name │                          │
//!   1       │ header │ extensions │ name │ new extensions │ new name │   written
//!   2       │ header ······················► header_length           │   one sector
//!   3       │ header │ new extensions │ new name │ …                  │   written
//!   4       │ header ► header_length                                 │   one sector
//! ```
//!
//! Between 2 and 4 the header is longer than it need be; what lies in it is nothing that a reader of
//! any version looks at.

use crate::Qcow2Error;
use crate::ondisk::extension::{END, RawExtension, extension};
use crate::ondisk::header::{BACKING_FILE, HEADER_LENGTH, V2_BYTES};
use crate::ondisk::read;

/// What the host writes whole or not at all.
const SECTOR: usize = 512;

/// Bytes and where they go; a barrier follows each step.
pub(crate) type Step = Vec<(usize, Vec<u8>)>;

/// What follows the header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Extensions by kind, in their order.
    pub(crate) extensions: Vec<(u32, Vec<u8>)>,
    /// Name of the backing file; empty when there is none.
    pub(crate) name: Vec<u8>,
}

impl Trailer {
    /// What follows a header of `header_length` bytes in `cluster`, which was judged when the image
    /// was opened.
    pub(crate) fn decode(cluster: &[u8], header_length: usize) -> Self {
        let name = place_of_name(cluster).and_then(|place| cluster.get(place));
        let mut extensions = Vec::new();
        let mut at = header_length;
        while let Some(head) = read::<RawExtension>(cluster, at) {
            let start = at + size_of::<RawExtension>();
            let length = usize::try_from(head.length.get()).unwrap_or(usize::MAX);
            let data = cluster.get(start..start.saturating_add(length));
            match data {
                Some(data) if head.kind.get() != END => {
                    extensions.push((head.kind.get(), data.to_vec()));
                    at = (start + length).next_multiple_of(8);
                }
                _ => break,
            }
        }
        Self {
            extensions,
            name: name.unwrap_or_default().to_vec(),
        }
    }

    /// Sets the data of the extension of this kind, or drops it; a new one comes first.
    pub(crate) fn set(&mut self, kind: u32, data: Option<&[u8]>) {
        let at = self.extensions.iter().position(|(other, _)| *other == kind);
        match (at, data) {
            (Some(at), Some(data)) => self.extensions[at].1 = data.to_vec(),
            (Some(at), None) => drop(self.extensions.remove(at)),
            (None, Some(data)) => self.extensions.insert(0, (kind, data.to_vec())),
            (None, None) => {}
        }
    }

    fn encode(&self) -> Vec<u8> {
        let known = self.extensions.iter();
        let mut bytes: Vec<u8> = known
            .flat_map(|(kind, data)| extension(*kind, data))
            .collect();
        bytes.extend(extension(END, &[]));
        bytes
    }
}

/// Where the backing file's name lies, if there is one.
fn place_of_name(cluster: &[u8]) -> Option<std::ops::Range<usize>> {
    let offset = u64::from_be_bytes(cluster[BACKING_FILE..BACKING_FILE + 8].try_into().ok()?);
    let size = u32::from_be_bytes(
        cluster[BACKING_FILE + 8..BACKING_FILE + 12]
            .try_into()
            .ok()?,
    );
    let start = usize::try_from(offset).ok().filter(|start| *start > 0)?;
    Some(start..start.checked_add(usize::try_from(size).ok()?)?)
}

/// How to make `cluster`, whose header has `old_length` bytes, one that begins with `header` and goes
/// on with `trailer`. The fields that place the name and, in version 3, the header's length are set
/// here.
///
/// # Errors
/// [`Qcow2Error::Limit`] when the cluster has no room to do it safely.
pub(crate) fn replace(
    cluster: &[u8],
    old_length: usize,
    header: &[u8],
    trailer: &Trailer,
) -> Result<Vec<Step>, Qcow2Error> {
    let extensions = trailer.encode();
    let name = &trailer.name;
    let length = header.len();
    let behind = length + extensions.len();
    // The first sector with the name at `name_at`, and the header said to be `length` long.
    let first = |name_at: usize, said: usize, with_extensions: bool| {
        let mut sector = cluster[..SECTOR].to_vec();
        sector[..length].copy_from_slice(header);
        let placed = if name.is_empty() { 0 } else { name_at as u64 };
        sector[BACKING_FILE..BACKING_FILE + 8].copy_from_slice(&placed.to_be_bytes());
        let size = u32::try_from(name.len()).expect("at most 1023 bytes");
        sector[BACKING_FILE + 8..BACKING_FILE + 12].copy_from_slice(&size.to_be_bytes());
        if length > V2_BYTES {
            let said = u32::try_from(said).expect("inside a cluster");
            sector[HEADER_LENGTH..HEADER_LENGTH + 4].copy_from_slice(&said.to_be_bytes());
        }
        if with_extensions {
            sector[length..].fill(0);
            let there = extensions.len().min(SECTOR - length);
            sector[length..length + there].copy_from_slice(&extensions[..there]);
            if let Some(room) = SECTOR
                .checked_sub(name_at)
                .filter(|room| *room >= name.len())
            {
                let from = SECTOR - room;
                sector[from..from + name.len()].copy_from_slice(name);
            }
        }
        sector
    };
    if behind + name.len() <= SECTOR {
        return Ok(vec![vec![(0, first(behind, length, true))]]);
    }
    let old_name = place_of_name(cluster).unwrap_or(0..0);
    let old_end = old_length + Trailer::decode(cluster, old_length).encode().len();
    if behind <= SECTOR && cluster.len() > SECTOR {
        // Only the name lies further on, beside everything that is still in use.
        let mut at = SECTOR.max(old_end);
        if at < old_name.end && old_name.start < at + name.len() {
            at = old_name.end;
        }
        check_room(at + name.len(), cluster.len())?;
        return Ok(vec![
            vec![(at, name.clone())],
            vec![(0, first(at, length, true))],
        ]);
    }
    if length <= V2_BYTES || cluster.len() == SECTOR {
        // Version 2 has no way to say that its extensions are elsewhere.
        let found = behind + name.len();
        return Err(no_room(found, SECTOR));
    }
    let aside = (behind + name.len())
        .max(old_end)
        .max(old_name.end)
        .max(SECTOR)
        .next_multiple_of(8);
    let end = aside + extensions.len() + name.len();
    check_room(end, cluster.len())?;
    let mut moved = extensions.clone();
    moved.extend_from_slice(name);
    let mut rest = extensions[SECTOR - length..].to_vec();
    rest.extend_from_slice(name);
    Ok(vec![
        vec![(aside, moved)],
        vec![(0, first(aside + extensions.len(), aside, false))],
        vec![(SECTOR, rest)],
        vec![(0, first(behind, length, true))],
    ])
}

fn check_room(end: usize, cluster: usize) -> Result<(), Qcow2Error> {
    if end > cluster {
        return Err(no_room(end, cluster));
    }
    Ok(())
}

fn no_room(found: usize, limit: usize) -> Qcow2Error {
    Qcow2Error::Limit {
        structure: "header",
        offset: 0,
        field: "bytes of extensions and backing file name",
        found: found as u64,
        limit: limit as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster with a header of `length` bytes and a trailer behind it.
    fn cluster(size: usize, length: usize, trailer: &Trailer) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[..length].fill(7);
        let area = trailer.encode();
        bytes[length..length + area.len()].copy_from_slice(&area);
        let at = length + area.len();
        bytes[at..at + trailer.name.len()].copy_from_slice(&trailer.name);
        let place = if trailer.name.is_empty() {
            0
        } else {
            at as u64
        };
        bytes[8..16].copy_from_slice(&place.to_be_bytes());
        let size = u32::try_from(trailer.name.len()).unwrap();
        bytes[16..20].copy_from_slice(&size.to_be_bytes());
        if length > V2_BYTES {
            bytes[100..104].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        }
        bytes
    }

    fn seen(bytes: &[u8], v3: bool) -> Trailer {
        let length = if v3 {
            u32::from_be_bytes(bytes[100..104].try_into().unwrap()) as usize
        } else {
            V2_BYTES
        };
        Trailer::decode(bytes, length)
    }

    fn trailer(extensions: &[(u32, usize)], name: usize) -> Trailer {
        Trailer {
            extensions: extensions
                .iter()
                .map(|(kind, len)| (*kind, vec![5; *len]))
                .collect(),
            name: vec![b'n'; name],
        }
    }

    /// Every step, torn at every sector, shows the old trailer or the new one.
    #[test]
    fn at_every_instant_it_is_the_one_or_the_other() {
        let shapes = [
            trailer(&[], 0),
            trailer(&[(1, 5)], 9),
            trailer(&[(1, 5), (2, 384)], 100),
            trailer(&[(2, 384), (3, 700)], 1023),
            trailer(&[(1, 40)], 600),
        ];
        let mut tried = 0;
        for length in [V2_BYTES, 112] {
            for size in [512, 4096, 65_536] {
                for (old, new) in shapes
                    .iter()
                    .flat_map(|a| shapes.iter().map(move |b| (a, b)))
                {
                    if length + old.encode().len() + old.name.len() > size {
                        continue;
                    }
                    let start = cluster(size, length, old);
                    let Ok(steps) = replace(&start, length, &start[..length], new) else {
                        let end = |t: &Trailer| length + t.encode().len() + t.name.len();
                        let aside = end(old).max(end(new)) + end(new) - length;
                        let v2 = length == V2_BYTES && end(new) > 512;
                        assert!(size == 512 || v2 || aside + 8 > size);
                        continue;
                    };
                    let mut durable = start;
                    for step in steps {
                        for (at, bytes) in &step {
                            let sectors = (at + bytes.len()).div_ceil(512) - at / 512;
                            for kept in 0..1u32 << sectors.min(8) {
                                let mut torn = durable.clone();
                                for (n, byte) in bytes.iter().enumerate() {
                                    if kept >> ((at + n) / 512 - at / 512) & 1 != 0 {
                                        torn[at + n] = *byte;
                                    }
                                }
                                let now = seen(&torn, length > V2_BYTES);
                                assert!(now == *old || now == *new, "{length}, {size}");
                                tried += 1;
                            }
                        }
                        for (at, bytes) in step {
                            durable[at..at + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                    assert_eq!(seen(&durable, length > V2_BYTES), *new);
                    let said = u32::from_be_bytes(durable[100..104].try_into().unwrap());
                    assert!(length == V2_BYTES || said as usize == length);
                }
            }
        }
        assert!(tried > 300, "{tried}");
    }
}
