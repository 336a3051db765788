//! Direct files beside plain memory.

use std::path::Path;
use std::sync::Barrier;
use std::thread;

use super::*;
use crate::{ErrorKind, FileOptions, FileStorage, MemoryStorage, Storage};

/// The alignments that hosts ask for; the file systems that tests run on may be content with less.
const BLOCKS: [u64; 2] = [512, 4096];

fn open(path: &Path, block: u64) -> FileStorage {
    let options = FileOptions::read_write().with_direct(true);
    let mut storage = FileStorage::open(path, options).unwrap();
    let direct = storage.direct.take().unwrap();
    let rules = DirectRules {
        memory: direct.rules.memory.max(512),
        block: direct.rules.block.max(block),
        unit: direct.rules.unit,
    };
    storage.direct = Some(Direct::new(direct.file, rules));
    storage
}

/// Numbers without an order to them, the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A place or a length: on blocks, beside them, or anywhere.
    fn about(&mut self, end: u64) -> u64 {
        let any = self.below(end);
        match self.below(4) {
            0 => any - any % 4096,
            1 => any - any % 512,
            2 => (any - any % 4096 + self.below(3))
                .saturating_sub(1)
                .min(end - 1),
            _ => any,
        }
    }
}

fn len_of(storage: &dyn Storage) -> usize {
    usize::try_from(storage.len().unwrap()).unwrap()
}

fn all_of(storage: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; len_of(storage)];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_direct_file_holds_what_memory_holds_after_any_changes() {
    let dir = tempfile::tempdir().unwrap();
    for (round, block) in (1..=12).zip(BLOCKS.into_iter().cycle()) {
        let path = dir.path().join(round.to_string());
        std::fs::write(
            &path,
            vec![0xAA; 9000 + 777 * usize::try_from(round).unwrap()],
        )
        .unwrap();
        let direct = open(&path, block);
        let memory = MemoryStorage::from(std::fs::read(&path).unwrap());
        let mut numbers = Numbers(round);
        for step in 0..150 {
            let at = numbers.about(60_000);
            let len = numbers.about(if step % 10 == 0 { 600_000 } else { 9_000 });
            let change = numbers.below(8);
            for storage in [&direct as &dyn Storage, &memory] {
                match change {
                    0 => storage.set_len(at + len % 5_000).unwrap(),
                    1 => storage.zero_range(at, len).unwrap(),
                    2 => storage.punch_hole(at, len).unwrap(),
                    _ => {
                        let len = usize::try_from(len.max(2)).unwrap();
                        let bytes: Vec<u8> = (0..=250).cycle().skip(step).take(len + 1).collect();
                        storage
                            .write_at(&bytes[usize::from(change == 3)..len], at)
                            .unwrap_or_else(|error| {
                                panic!("round {round} step {step}: {len} bytes at {at}: {error}")
                            });
                    }
                }
            }
            let there = len_of(&memory);
            assert_eq!(
                len_of(&direct),
                there,
                "round {round} step {step} changed the length"
            );
            let from = numbers.about(there as u64 + 1);
            let len = numbers.about(there as u64 - from + 1);
            let mut read = [vec![1; usize::try_from(len).unwrap()], Vec::new()];
            read[1] = read[0].clone();
            direct.read_at(&mut read[0], from).unwrap();
            memory.read_at(&mut read[1], from).unwrap();
            assert!(
                read[0] == read[1],
                "round {round} step {step}: {len} bytes at {from}"
            );
            let beyond = direct.read_at(&mut [0; 700], (there as u64).saturating_sub(from % 700));
            assert!(
                beyond.is_err(),
                "round {round} step {step} read past the end"
            );
        }
        assert!(all_of(&direct) == memory.to_vec(), "round {round}");
        drop(direct);
        assert!(
            std::fs::read(&path).unwrap() == memory.to_vec(),
            "round {round} from outside"
        );
    }
}

/// Cells of 1536 bytes, in a file that grows by being written to: the first 512 bytes of each are one
/// writer's, who writes whole blocks, and the rest is that of three others, who share blocks with him, with
/// each other, and with the file's end. None may undo what another wrote.
#[test]
fn writers_beside_each_other_in_one_block_lose_no_bytes() {
    const CELL: u64 = 1536;
    const CELLS: u64 = 80;
    const SHARES: [(u64, u64); 4] = [(0, 512), (512, 341), (853, 341), (1194, 342)];
    let dir = tempfile::tempdir().unwrap();
    for block in BLOCKS {
        let path = dir.path().join(block.to_string());
        std::fs::write(&path, []).unwrap();
        let storage = open(&path, block);
        let ready = Barrier::new(SHARES.len() + 1);
        let written = thread::scope(|scope| {
            let writers = SHARES.map(|(first, len)| {
                let (storage, ready) = (&storage, &ready);
                scope.spawn(move || {
                    let mut numbers = Numbers(first + 1);
                    let mut mine = vec![0; usize::try_from(CELL * CELLS).unwrap()];
                    ready.wait();
                    for step in 1..=3 * CELLS {
                        // Along with the file's end at first, anywhere then.
                        let cell = if step <= CELLS {
                            step - 1
                        } else {
                            numbers.below(CELLS)
                        };
                        let byte = u8::try_from(1 + step % 255).unwrap();
                        let (skip, len) = match first {
                            0 => (0, len),
                            _ => (numbers.below(100), len - 100),
                        };
                        let at = cell * CELL + first + skip;
                        let part = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
                        mine[part.clone()].fill(byte);
                        storage.write_at(&mine[part], at).unwrap();
                    }
                    mine
                })
            });
            // What changes the length, or the space, of all the others.
            ready.wait();
            for step in 0..40 {
                storage.allocate(CELL * step, 1).unwrap();
                storage.punch_hole(CELL * CELLS + 100, 50).unwrap();
            }
            writers.map(|writer| writer.join().unwrap())
        });
        let mut expected = written[0].clone();
        for other in &written[1..] {
            for (byte, other) in expected.iter_mut().zip(other) {
                *byte |= other;
            }
        }
        let mut seen = std::fs::read(&path).unwrap();
        seen.resize(expected.len(), 0);
        assert!(seen == expected, "blocks of {block}: from outside");
        let mut read = all_of(&storage);
        read.resize(expected.len(), 0);
        assert!(read == expected, "blocks of {block}: directly");
    }
}

#[test]
fn requests_pass_the_page_cache_by_and_files_without_a_way_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [7; 5000]).unwrap();
    let storage = open(&path, 512);
    let flags = rustix::fs::fcntl_getfl(storage.as_file().unwrap()).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::DIRECT));
    let read_only = FileOptions::read_only().with_direct(true);
    let refused = FileStorage::open(&path, read_only).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked, "the lock is the same");
    drop(storage);
    let reader = FileStorage::open(&path, read_only).unwrap();
    assert!(reader.is_direct());
    assert_eq!(all_of(&reader), [7; 5000]);
    let refused = reader.write_at(&[1], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let none = FileStorage::open("/proc/version", read_only).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Unsupported);
}
