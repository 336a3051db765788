//! Random logs against a replayer that does literally what [MS-VHDX] §2.3.3 says.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;

use blockdev_core::{Limits, MemoryStorage};
use common::{MIB, index, le64, memory, replay};
use proptest::prelude::*;
use testkit::vhdx_builder::{LogDamage, LogEntry, VhdxBuilder, ids};
use vhdx_format::inspect;

const SECTOR: u64 = 4096;

/// A small ring makes wraps and overwritten entries frequent, but a log is a whole MiB at least: the
/// entries are made large instead.
const RING: u64 = MIB;

/// An entry of the literal replayer: the ring is read around its end.
struct Entry {
    sequence: u64,
    tail: u64,
    length: u64,
    last: u64,
    updates: Vec<(u64, Update)>,
}

enum Update {
    Data(Vec<u8>),
    Zero(u64),
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

/// Steps 3: "verifying each field in the header and descriptors, including the checksum".
fn valid_entry(ring: &[u8], at: u64, guid: &[u8; 16]) -> Option<Entry> {
    let around = |at: u64, len: u64| -> Vec<u8> {
        (at..at + len)
            .map(|byte| ring[index(byte % RING)])
            .collect()
    };
    let header = around(at, 64);
    let length = le32(&header, 8);
    if &header[..4] != b"loge" || length == 0 || !length.is_multiple_of(SECTOR) || length > RING {
        return None;
    }
    let bytes = around(at, length);
    let mut unsealed = bytes.clone();
    unsealed[4..8].fill(0);
    let (tail, sequence, count) = (le32(&header, 12), le64(&header, 16), le32(&header, 24));
    let checksum = u64::from(crc(&unsealed));
    if checksum != le32(&header, 4) || tail % SECTOR != 0 || tail >= RING || sequence == 0 {
        return None;
    }
    if &header[32..48] != guid {
        return None;
    }
    let first_data = (64 + 32 * count).div_ceil(SECTOR);
    let mut updates = Vec::new();
    let mut data = first_data;
    for n in 0..index(count) {
        let d = bytes.get(64 + 32 * n..96 + 32 * n)?;
        let (target, number) = (le64(d, 16), le64(d, 24));
        if number != sequence || target % SECTOR != 0 {
            return None;
        }
        match &d[..4] {
            b"zero" if le64(d, 8).is_multiple_of(SECTOR) => {
                updates.push((target, Update::Zero(le64(d, 8))))
            }
            b"desc" => {
                let sector = bytes.get(index(data * SECTOR)..index((data + 1) * SECTOR))?;
                data += 1;
                let number = le32(sector, 4) << 32 | le32(sector, 4092);
                if &sector[..4] != b"data" || number != sequence {
                    return None;
                }
                let page = [&d[8..16], &sector[8..4092], &d[4..8]].concat();
                updates.push((target, Update::Data(page)));
            }
            _ => return None,
        }
    }
    let last = le64(&header, 56);
    Some(Entry {
        sequence,
        tail,
        length,
        last,
        updates,
    })
}

/// CRC-32C, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::LazyLock<[u32; 256]> = std::sync::LazyLock::new(|| {
        std::array::from_fn(|n| {
            (0..8).fold(u32::try_from(n).unwrap(), |crc, _| {
                if crc & 1 == 1 {
                    crc >> 1 ^ 0x82F6_3B78
                } else {
                    crc >> 1
                }
            })
        })
    });
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        crc >> 8 ^ TABLE[index(u64::from((crc ^ u32::from(*byte)) & 0xFF))]
    })
}

/// Steps 1 to 7, then the replay; `None` when the candidate stays empty.
fn literally(file: &[u8], log_offset: u64, guid: &[u8; 16]) -> Option<Vec<u8>> {
    let ring = &file[index(log_offset)..index(log_offset + RING)];
    let mut candidate: (u64, Vec<Entry>) = (0, Vec::new());
    for start in (0..RING).step_by(index(SECTOR)) {
        let (mut places, mut entries) = (Vec::new(), Vec::<Entry>::new());
        let mut at = start;
        while let Some(entry) = valid_entry(ring, at, guid) {
            if entries
                .last()
                .is_some_and(|head| head.sequence.checked_add(1) != Some(entry.sequence))
            {
                break;
            }
            places.push(at);
            at = (at + entry.length) % RING;
            entries.push(entry);
        }
        let Some(head) = entries.last() else { continue };
        let Some(tail) = places.iter().position(|place| *place == head.tail) else {
            continue;
        };
        if head.sequence > candidate.0 {
            candidate = (head.sequence, entries.split_off(tail));
        }
    }
    let (_, sequence) = candidate;
    let mut file = file.to_vec();
    for (target, update) in sequence.iter().flat_map(|entry| &entry.updates) {
        let (zeros, bytes) = match update {
            Update::Data(bytes) => (Vec::new(), bytes),
            Update::Zero(len) => (vec![0; index(*len)], &Vec::new()),
        };
        let bytes = if bytes.is_empty() { &zeros } else { bytes };
        let end = index(*target) + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[index(*target)..end].copy_from_slice(bytes);
    }
    let last = index(sequence.last()?.last);
    if file.len() < last {
        file.resize(last, 0);
    }
    Some(file)
}

/// A place that updates go to: behind the tables, where they change nothing that opening looks at.
const TARGETS: std::ops::Range<u64> = 4 * MIB / SECTOR..6 * MIB / SECTOR;

#[derive(Debug, Clone)]
struct Step {
    data: Vec<(u64, u8)>,
    zeros: Vec<(u64, u64)>,
    /// A new sequence begins: its number jumps, its tail is itself.
    fresh: bool,
    damage: Option<LogDamage>,
}

fn step() -> impl Strategy<Value = Step> {
    let data = prop::collection::vec((TARGETS, any::<u8>()), 0..60);
    let zeros = prop::collection::vec((TARGETS, 1u64..20), 0..3);
    let damage = prop_oneof![
        20 => Just(None),
        1 => Just(Some(LogDamage::Checksum)),
        1 => Just(Some(LogDamage::Signature)),
        1 => Just(Some(LogDamage::EntryLength(4096))),
        1 => (4096usize..20_000).prop_map(|len| Some(LogDamage::Truncated(len))),
    ];
    (data, zeros, prop::bool::weighted(0.1), damage).prop_map(|(data, zeros, fresh, damage)| Step {
        data,
        zeros,
        fresh,
        damage,
    })
}

/// The steps as a log that goes round the ring, overwriting what it wrote first.
fn log(steps: &[Step], start: u64, first: u64, tail_lag: usize) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    let (mut at, mut sequence, mut since) = (start * SECTOR, first, 0);
    for step in steps {
        if step.fresh {
            sequence += 3;
            since = entries.len();
        }
        let place = u32::try_from(at).unwrap();
        let mut entry = LogEntry::new(sequence).at(place);
        for (target, byte) in &step.data {
            entry = entry.data(target * SECTOR, vec![*byte; 4096]);
        }
        for (target, pages) in &step.zeros {
            entry = entry.zero(target * SECTOR, pages * SECTOR);
        }
        entry.damage.extend(step.damage);
        let oldest = entries.len().saturating_sub(tail_lag).max(since);
        let tail = entries
            .get(oldest)
            .map_or(place, |oldest| oldest.ring_offset);
        at = (at + u64::from(entry.len_bytes())) % RING;
        sequence += 1;
        entries.push(entry.tail(tail));
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_in_memory_and_in_the_file_equals_the_literal_reading_of_the_specification(
        steps in prop::collection::vec(step(), 1..14),
        start in 0..RING / SECTOR,
        first in prop_oneof![1u64..100, Just(u64::MAX - 100)],
        tail_lag in 0usize..8,
        grow in 0u64..3,
    ) {
        let mut builder = VhdxBuilder::new(4 * MIB).file_len(7 * MIB);
        for entry in log(&steps, start, first, tail_lag) {
            builder = builder.log_entry(entry.file_offsets(7 * MIB, (6 + grow) * MIB));
        }
        let layout = builder.layout();
        let file = builder.build().to_vec();
        let right = literally(&file, layout.log_offset, &ids::DEFAULT_LOG.to_bytes_le());

        let storage = memory(&builder.build());
        let header = *inspect::headers(&*storage).unwrap().current().unwrap();
        let log = inspect::log_contents(&*storage, &header, &Limits::default()).unwrap();
        prop_assert_eq!(log.active.is_empty(), right.is_none());
        let result = replay(storage.clone());
        prop_assert_eq!(result.is_ok(), right.is_some());
        if let Some(right) = right {
            let ours = storage.to_vec();
            prop_assert_eq!(ours.len(), right.len());
            // The headers are ours to change; the log stays as it was.
            let from = index(192 << 10);
            prop_assert!(ours[from..] == right[from..], "the file after replay");
            prop_assert!(ours[..64 << 10] == file[..64 << 10], "nothing touches the identifier");
            let image = common::open(Arc::new(MemoryStorage::from(file))).unwrap();
            let host = blockdev_core::Layer::host(&image, blockdev_core::HostFile::Image).unwrap();
            prop_assert_eq!(host.len().unwrap(), right.len() as u64);
            let mut in_memory = vec![0; right.len() - from];
            host.read_at(&mut in_memory, from as u64).unwrap();
            prop_assert!(in_memory[..] == right[from..], "the file as it is shown read-only");
        }
    }
}
