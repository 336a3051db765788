//! Guests on one image.
//!
//! Every word of a sector says whose it is: the sector's number, and how often it was written. So
//! what comes from elsewhere tells so, and each guest knows exactly what its own sectors hold.

use std::sync::{Arc, Mutex};

use blockdev_core::{
    Below, DiscardMode, Holes, Layer, MemoryStorage, Result, Storage, ZeroFlags, ZerosBelow,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RoundRobinScheduler;
use shuttle::{Runner, thread};

use super::{Host, config, many_orders};
use crate::{Backing, CreateOptions, NewSnapshot, OpenOptions, Qcow2Image, Qcow2Writer};

const SECTOR: u64 = 512;
/// Sectors of a cluster, one for each of two guests.
const PER_CLUSTER: u64 = 2;
/// Clusters of a disk.
const CLUSTERS: u64 = 8;

fn options() -> CreateOptions {
    let mut options = CreateOptions::new(CLUSTERS * PER_CLUSTER * SECTOR);
    options.cluster_bits = 10;
    options
}

/// Subclusters of a sector, in clusters of 16 KiB.
fn extended() -> CreateOptions {
    let mut options = CreateOptions::new(2 * 32 * SECTOR);
    (options.cluster_bits, options.extended_l2) = (14, true);
    options
}

fn over_another() -> CreateOptions {
    let (name, format) = ("below".into(), "raw".into());
    CreateOptions {
        backing: Some(Backing { name, format }),
        ..options()
    }
}

/// A new image, and what `life` makes of it.
fn image(options: CreateOptions, life: impl Fn(&mut Disk) + Send + Sync + 'static) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::default());
    let writer = Qcow2Writer::create(storage.clone(), options).expect("it is made");
    writer.finish().expect("it is made");
    let (new, made) = (storage.to_vec(), Arc::new(Mutex::new(Vec::new())));
    let into = Arc::clone(&made);
    Runner::new(RoundRobinScheduler::new(1), config()).run(move || {
        let mut disk = Disk::open(&new);
        life(&mut disk);
        *into.lock().expect("one thread") = disk.finish();
    });
    let made = made.lock().expect("one thread");
    made.clone()
}

/// Every sector written once.
fn fill(disk: &mut Disk) {
    disk.write(0, CLUSTERS * PER_CLUSTER, 1);
}

fn fill_and_keep(disk: &mut Disk) {
    fill(disk);
    let mut new = NewSnapshot::now("one");
    (new.date_sec, new.date_nsec) = (1, 2);
    disk.image.create_snapshot(&new).expect("it is taken");
}

fn word(sector: u64, turn: u64) -> u64 {
    (sector + 1) << 32 | turn
}

fn stamped(first: u64, sectors: u64, turn: u64) -> Vec<u8> {
    (first..first + sectors)
        .flat_map(|sector| [word(sector, turn); 64])
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// What is below tells so.
struct Marked;

impl Below for Marked {
    fn read_at(&self, buf: &mut [u8], _: u64) -> Result<()> {
        buf.fill(0xBB);
        Ok(())
    }
}

/// What a sector reads as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The image does not hold it.
    Absent,
    Zeros,
    /// Written, in which turn.
    Turn(u64),
    /// Something in between: another was just at it.
    Torn,
}

/// What `sector` of `image` reads as; nothing of it is another's.
fn seen(image: &Qcow2Image, sector: u64) -> Seen {
    let (mut buf, mut holes) = ([0xEE; 512], Holes::new());
    image
        .read_at(&mut buf, sector * SECTOR, &mut holes)
        .expect("it reads");
    if !holes.is_empty() {
        let alone = image.backing_file().is_none();
        return if alone { Seen::Zeros } else { Seen::Absent };
    }
    let words = buf.chunks_exact(8);
    let mut words = words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    let first = words.next().expect("there are 64");
    let mut seen = match first {
        0 => Seen::Zeros,
        word => Seen::Turn(word & 0xFFFF_FFFF),
    };
    for word in words.chain([first]) {
        assert!(
            word == 0 || word >> 32 == sector + 1,
            "sector {sector} reads {word:#x}"
        );
        if word != first {
            seen = Seen::Torn;
        }
    }
    seen
}

struct Disk {
    host: Arc<Host>,
    image: Qcow2Image,
}

impl Disk {
    fn open(bytes: &[u8]) -> Self {
        let host = Host::new(bytes.to_vec());
        let storage = Arc::clone(&host) as Arc<dyn Storage>;
        let image = Qcow2Image::open(storage, &OpenOptions::read_write()).expect("it opens");
        Self { host, image }
    }

    fn write(&self, first: u64, sectors: u64, turn: u64) {
        let bytes = stamped(first, sectors, turn);
        let outcome = self.image.write_at(&bytes, first * SECTOR, &ZerosBelow);
        outcome.expect("it writes");
    }

    fn pack(&self, first: u64, turn: u64) {
        let bytes = stamped(first, PER_CLUSTER, turn);
        let outcome = self.image.write_compressed(&bytes, first * SECTOR);
        outcome.expect("it writes");
    }

    fn zero(&self, first: u64, sectors: u64, may_unmap: bool) {
        let flags = ZeroFlags {
            may_unmap,
            no_fallback: false,
        };
        let (offset, len) = (first * SECTOR, sectors * SECTOR);
        let outcome = self.image.zero(offset, len, flags, &Marked);
        outcome.expect("it writes");
    }

    fn give_up(&self, first: u64, mode: DiscardMode) {
        let (offset, len) = (first * SECTOR, PER_CLUSTER * SECTOR);
        self.image.discard(offset, len, mode).expect("it discards");
    }

    fn seen(&self, sector: u64) -> Seen {
        seen(&self.image, sector)
    }

    /// Flushes; a crash from then on leaves what `own` sectors hold.
    fn flush(&self, own: &[(u64, Seen)]) {
        self.image.flush().expect("it flushes");
        let stable: Arc<dyn Storage> = Arc::new(MemoryStorage::from(self.host.stable()));
        let report = crate::check(Arc::clone(&stable), &OpenOptions::read_only());
        let report = report.expect("it can be checked");
        assert_eq!(report.corruptions, 0, "{:?}", report.findings);
        let left = Qcow2Image::open(stable, &OpenOptions::read_only()).expect("it opens");
        for (sector, expected) in own {
            assert_eq!(
                seen(&left, *sector),
                *expected,
                "sector {sector} after a crash"
            );
        }
    }

    /// Closes the image; it is clean.
    fn finish(self) -> Vec<u8> {
        let Self { host, image } = self;
        Box::new(image).close().expect("it closes");
        let storage = Arc::clone(&host) as Arc<dyn Storage>;
        let report = crate::check(storage, &OpenOptions::read_only()).expect("it can be checked");
        assert!(report.is_clean(), "{:?}", report.findings);
        host.bytes()
    }
}

/// Lets guests live together on a copy of `image` under many orders; looks at the disk `after`.
fn together(
    name: &str,
    image: Vec<u8>,
    guests: &'static [fn(&Disk)],
    after: impl Fn(&Disk) + Send + Sync + 'static,
) {
    many_orders(name, move || {
        let disk = Disk::open(&image);
        thread::scope(|scope| {
            for guest in guests {
                scope.spawn(|| guest(&disk));
            }
        });
        after(&disk);
        disk.finish();
    });
}

/// Two guests write one sector each of the same cluster, and flush.
const NEIGHBOURS: &[fn(&Disk)] = &[
    |disk| {
        disk.write(0, 1, 2);
        disk.flush(&[(0, Seen::Turn(2))]);
        disk.write(0, 1, 3);
    },
    |disk| {
        disk.write(1, 1, 2);
        disk.write(1, 1, 3);
        disk.flush(&[(1, Seen::Turn(3))]);
    },
    |disk| {
        disk.seen(0);
        disk.seen(1);
    },
];

fn neighbours_are_there(disk: &Disk) {
    assert_eq!([0, 1].map(|sector| disk.seen(sector)), [Seen::Turn(3); 2]);
}

#[test]
fn neighbours_in_a_new_cluster_both_write() {
    let image = image(options(), |_| ());
    together("two guests in a new cluster", image, NEIGHBOURS, |disk| {
        neighbours_are_there(disk);
    });
}

#[test]
fn a_flush_covers_what_was_overwritten_in_place() {
    let image = image(options(), fill);
    together("two guests in place", image, NEIGHBOURS, |disk| {
        neighbours_are_there(disk);
    });
}

#[test]
fn neighbours_in_a_cluster_of_a_snapshot_both_write() {
    let image = image(options(), fill_and_keep);
    together("two guests in a copy", image, NEIGHBOURS, |disk| {
        neighbours_are_there(disk);
        disk.flush(&[]);
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::from(disk.host.bytes()));
        let old = Qcow2Image::open_snapshot(storage, "one", &OpenOptions::read_only());
        let old = old.expect("it opens");
        assert_eq!([0, 1].map(|sector| seen(&old, sector)), [Seen::Turn(1); 2]);
    });
}

#[test]
fn neighbours_in_subclusters_write_zero_and_read() {
    let image = image(extended(), |disk| disk.write(2, 1, 1));
    let guests: &[fn(&Disk)] = &[
        |disk| {
            disk.write(0, 1, 2);
            disk.zero(3, 1, false);
            disk.flush(&[(0, Seen::Turn(2)), (3, Seen::Zeros)]);
        },
        |disk| {
            disk.write(1, 1, 2);
            disk.write(1, 1, 3);
        },
        |disk| {
            disk.write(2, 1, 2);
            disk.flush(&[(2, Seen::Turn(2))]);
            disk.zero(2, 1, true);
        },
    ];
    together("three guests in subclusters", image, guests, |disk| {
        let expected = [Seen::Turn(2), Seen::Turn(3), Seen::Zeros, Seen::Zeros];
        assert_eq!([0, 1, 2, 3].map(|sector| disk.seen(sector)), expected);
    });
}

/// The clusters that are given up are used for others, or punched out.
#[test]
fn what_is_given_up_is_whole_until_its_readers_are_gone() {
    let image = image(over_another(), |disk| disk.write(0, 4, 1));
    let guests: &[fn(&Disk)] = &[
        |disk| {
            for sector in [0, 1, 2, 3] {
                let seen = disk.seen(sector);
                assert!(matches!(seen, Seen::Absent | Seen::Turn(1)), "{seen:?}");
            }
        },
        |disk| {
            disk.give_up(0, DiscardMode::ToParent);
            disk.give_up(2, DiscardMode::ToParent);
            disk.flush(&[(0, Seen::Absent), (3, Seen::Absent)]);
            disk.write(8, 4, 2);
            disk.flush(&[(8, Seen::Turn(2)), (11, Seen::Turn(2))]);
        },
        |disk| {
            for first in [4, 6, 12] {
                disk.write(first, 2, 2);
                assert_eq!([0, 1].map(|n| disk.seen(first + n)), [Seen::Turn(2); 2]);
            }
        },
    ];
    together("a reader of what is given up", image, guests, |disk| {
        assert_eq!([0, 3].map(|sector| disk.seen(sector)), [Seen::Absent; 2]);
        let there = [4, 5, 6, 7, 8, 11, 12, 13].map(|sector| disk.seen(sector));
        assert_eq!(there, [Seen::Turn(2); 8]);
    });
}

#[test]
fn a_late_writer_does_not_write_into_what_became_anothers() {
    let image = image(options(), |disk| disk.write(0, 4, 1));
    let guests: &[fn(&Disk)] = &[
        |disk| disk.write(0, 1, 2),
        |disk| disk.write(2, 2, 2),
        |disk| {
            disk.give_up(0, DiscardMode::Best);
            disk.give_up(2, DiscardMode::Best);
            disk.flush(&[]);
            disk.write(8, 4, 2);
            disk.flush(&[(8, Seen::Turn(2)), (11, Seen::Turn(2))]);
            disk.write(4, 2, 3);
        },
    ];
    together("writers of what is given up", image, guests, |disk| {
        for sector in 0..4 {
            let seen = disk.seen(sector);
            assert!(matches!(seen, Seen::Zeros | Seen::Turn(2)), "{seen:?}");
        }
        let whole = [4, 5, 8, 9, 10, 11].map(|sector| disk.seen(sector));
        assert_eq!(whole[..2], [Seen::Turn(3); 2]);
        assert_eq!(whole[2..], [Seen::Turn(2); 4]);
    });
}

#[test]
fn packed_clusters_are_replaced_under_their_readers() {
    let image = image(options(), |disk| (0..3).for_each(|n| disk.pack(n * 2, 1)));
    let guests: &[fn(&Disk)] = &[
        |disk| {
            disk.pack(0, 2);
            disk.flush(&[(0, Seen::Turn(2)), (1, Seen::Turn(2))]);
            disk.pack(0, 3);
        },
        |disk| {
            disk.write(2, 1, 2);
            disk.pack(4, 2);
            disk.flush(&[(2, Seen::Turn(2)), (3, Seen::Turn(1)), (4, Seen::Turn(2))]);
        },
        |disk| {
            for sector in [0, 3, 5, 1] {
                assert!(matches!(disk.seen(sector), Seen::Turn(_)));
            }
        },
    ];
    together("guests that pack", image, guests, |disk| {
        let expected = [3, 3, 2, 1, 2, 2].map(Seen::Turn);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|sector| disk.seen(sector)), expected);
    });
}

/// What is copied along with a neighbour's sector does not come back.
#[test]
fn a_copy_does_not_bring_back_what_was_replaced_meanwhile() {
    let image = image(options(), fill_and_keep);
    let guests: &[fn(&Disk)] = &[
        |disk| {
            disk.write(0, 1, 2);
            disk.write(2, 1, 2);
        },
        |disk| {
            disk.zero(0, 2, false);
            assert_eq!(disk.seen(1), Seen::Zeros);
        },
        |disk| {
            disk.pack(2, 3);
            assert_eq!(disk.seen(3), Seen::Turn(3));
        },
    ];
    together(
        "whole clusters replaced beside a copy",
        image,
        guests,
        |disk| {
            assert_eq!(
                [1, 3].map(|sector| disk.seen(sector)),
                [Seen::Zeros, Seen::Turn(3)]
            );
        },
    );
}

/// A guest by chance: sectors of its own in clusters that it shares, and a cluster of its own.
fn live(disk: &Disk, guest: u64, start: Seen) {
    let shared = [guest % 2, PER_CLUSTER + guest % 2];
    let own = (2 + guest) * PER_CLUSTER;
    let mut model = Vec::from([(own, start), (own + 1, start)]);
    if guest < 2 {
        model.extend(shared.map(|sector| (sector, start)));
    }
    let mut rng = thread_rng();
    for turn in 2..6 {
        let what = rng.gen_range(0..9);
        match what {
            0 | 1 if guest < 2 => {
                let slot = &mut model[2 + what];
                slot.1 = Seen::Turn(turn);
                disk.write(slot.0, 1, turn);
            }
            0..=2 => {
                let slot = &mut model[rng.gen_range(0..2)];
                slot.1 = Seen::Turn(turn);
                disk.write(slot.0, 1, turn);
            }
            3 | 4 => {
                model[0].1 = Seen::Turn(turn);
                model[1].1 = Seen::Turn(turn);
                if what == 3 {
                    disk.write(own, PER_CLUSTER, turn);
                } else {
                    disk.pack(own, turn);
                }
            }
            5 => {
                disk.zero(own, PER_CLUSTER, rng.gen_range(0..2) == 0);
                model[0].1 = Seen::Zeros;
                model[1].1 = Seen::Zeros;
            }
            6 => {
                disk.give_up(own, DiscardMode::Best);
                model[0].1 = Seen::Zeros;
                model[1].1 = Seen::Zeros;
            }
            7 => disk.flush(&model),
            _ => {
                for sector in [0, 1, 2, 3, 4, 6, 8] {
                    disk.seen(sector);
                }
            }
        }
        let (sector, expected) = model[rng.gen_range(0..model.len())];
        assert_eq!(disk.seen(sector), expected, "sector {sector}");
    }
    for (sector, expected) in model {
        assert_eq!(disk.seen(sector), expected, "sector {sector}");
    }
}

#[test]
fn guests_find_what_they_left_whatever_others_do() {
    let empty = image(options(), |_| ());
    let first: &[fn(&Disk)] = &[
        |disk| live(disk, 0, Seen::Zeros),
        |disk| live(disk, 1, Seen::Zeros),
        |disk| live(disk, 2, Seen::Zeros),
    ];
    together("lives on an empty disk", empty, first, |_| ());
    let second: &[fn(&Disk)] = &[
        |disk| live(disk, 0, Seen::Turn(1)),
        |disk| live(disk, 1, Seen::Turn(1)),
        |disk| live(disk, 2, Seen::Turn(1)),
    ];
    together(
        "lives on a full disk",
        image(options(), fill),
        second,
        |_| (),
    );
    let kept = image(options(), fill_and_keep);
    together("lives on a disk with a snapshot", kept, second, |_| ());
}
