//! What layers hold, moved into others; and where disks differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blockdev_core::{
    BlockDevice, ErrorKind, FileId, FileRef, FileRole, FormatDriver, MemoryStorage, NoProgress,
    Progress, RawDriver, RawLayer, Result, Storage,
};
use proptest::prelude::*;

use super::fake::DRIVERS;
use super::model::{chains, make_writable};
use super::sparse::SparseLayer;
use crate::{Chain, ChainBuilder, Differences, Top, View};

fn content(disk: &View<'_>) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// `bytes` cut or filled up with zeros to `len`.
fn as_long(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(len, 0);
    bytes
}

proptest! {
    #[test]
    fn a_base_reads_as_what_was_merged_into_it_and_the_disk_as_before(
        recipes in chains(),
        from in any::<prop::sample::Index>(),
        into in any::<prop::sample::Index>(),
    ) {
        let (chain, _) = make_writable(&recipes, recipes.len());
        let (from, into) = (from.index(recipes.len()), into.index(recipes.len()));
        let disk = content(&chain.whole());
        let depth = |at| u32::try_from(at).unwrap();
        let [upper, base] = [from, into].map(|at| content(&chain.view(depth(at)).unwrap()));
        let merged = chain.merge(depth(from), depth(into), &NoProgress);
        if from >= into || base.len() < upper.len() {
            prop_assert_eq!(merged.unwrap_err().kind(), ErrorKind::InvalidInput);
            return Ok(());
        }
        merged.unwrap();
        prop_assert!(content(&chain.whole()) == disk);
        let mut right = upper.clone();
        if from == 0 {
            right.extend_from_slice(&base[upper.len()..]);
        }
        let now = content(&chain.view(depth(into)).unwrap());
        prop_assert_eq!(&now, &as_long(&right, base.len()));
        // Without the layers that were merged whoever was above reads the same.
        let mut layers = chain.into_layers();
        layers.drain(from..into);
        let shorter = content(&Chain::from_layers(layers).unwrap().whole());
        let right = if from == 0 { now } else { disk };
        prop_assert_eq!(shorter, right);
    }

    #[test]
    fn a_disk_reads_the_same_over_another_base_once_it_has_taken_up_what_differs(
        recipes in chains(),
        others in chains(),
        to_none in any::<bool>(),
    ) {
        let (chain, bytes) = make_writable(&recipes, 1);
        let (other, _) = make_writable(&others, 0);
        let disk: Vec<u8> = bytes.iter().map(|byte| byte.2).collect();
        chain.pull((!to_none).then(|| other.whole()), &NoProgress).unwrap();
        prop_assert!(content(&chain.whole()) == disk);
        let top = chain.into_layers().swap_remove(0);
        let new = if to_none {
            Chain::from_layers(vec![top]).unwrap()
        } else {
            other.under(top)
        };
        prop_assert_eq!(content(&new.whole()), disk);
    }

    #[test]
    fn differences_are_where_bytes_differ(a in chains(), b in chains(), bits in 0..10u32) {
        let ((a, _), (b, _)) = (make_writable(&a, 0), make_writable(&b, 0));
        let len = usize::try_from(a.size().max(b.size())).unwrap();
        let [left, right] = [&a, &b].map(|disk| as_long(&content(&disk.whole()), len));
        let grain = 1u64 << bits;
        let found = Differences::between(a.whole(), b.whole(), grain, &NoProgress).unwrap();
        let found: Vec<_> = found.collect::<Result<_>>().unwrap();
        let mut differs = vec![false; len];
        for range in &found {
            for at in range.clone() {
                differs[usize::try_from(at).unwrap()] = true;
            }
        }
        for (at, told) in differs.iter().enumerate() {
            // Told in units, as far as both are compared at once.
            prop_assert!(*told || left[at] == right[at], "{at}");
        }
        for pair in found.windows(2) {
            prop_assert!(pair[0].end < pair[1].start, "in order, and joined");
        }
        for range in &found {
            let whole = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            prop_assert!(left[whole.clone()] != right[whole]);
        }
    }
}

fn named_parent() -> FileRef {
    FileRef {
        role: FileRole::Parent,
        names: Vec::new(),
        format: None,
        expected: Vec::new(),
        logical_sector_size: None,
    }
}

#[test]
fn a_chain_whose_parents_are_not_open_is_neither_merged_nor_pulled_nor_compared() {
    let mut bottom = SparseLayer::new(4096, 512).writable();
    bottom.refs.push(named_parent());
    let top = SparseLayer::new(4096, 512).writable();
    let chain = Chain::from_layers(vec![top.boxed(), bottom.boxed()]).unwrap();
    let refused = [
        chain.merge(0, 1, &NoProgress).map(drop),
        chain.pull(None, &NoProgress).map(drop),
        chain.empty_top(),
        Differences::between(chain.whole(), chain.whole(), 512, &NoProgress).map(drop),
    ];
    for refusal in refused {
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::NeedsParent);
    }
}

/// Cancels at the second piece.
#[derive(Default)]
struct Impatient {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for Impatient {
    fn start(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) > 0
    }
}

#[test]
fn whoever_watches_is_told_and_can_end_it() {
    let layer = |byte| {
        SparseLayer::new(8 << 10, 1 << 10)
            .writable()
            .with(2 << 10, 4 << 10, byte)
    };
    let chain = Chain::from_layers(vec![layer(1).boxed(), layer(2).boxed()]).unwrap();
    let other = Chain::from_layers(vec![layer(3).boxed()]).unwrap();
    let before = content(&chain.whole());
    let started = |progress: &Impatient, total| {
        assert_eq!(progress.total.load(Ordering::Relaxed), total);
        assert!(progress.done.load(Ordering::Relaxed) < total);
    };
    let progress = Impatient::default();
    assert!(chain.merge(0, 1, &progress).is_err());
    started(&progress, 8 << 10);
    let progress = Impatient::default();
    assert!(chain.pull(Some(other.whole()), &progress).is_err());
    started(&progress, 8 << 10);
    let progress = Impatient::default();
    let mut found = Differences::between(chain.whole(), other.whole(), 512, &progress).unwrap();
    assert!(found.any(|range| range.is_err()));
    assert!(found.next().is_none(), "at its end");
    assert!(content(&chain.whole()) == before);
}

/// Bytes that count how often they are read.
#[derive(Debug)]
struct Watched(MemoryStorage, AtomicU64);

impl Storage for Watched {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_at(buf, offset)
    }

    fn identity(&self) -> Option<FileId> {
        self.0.identity()
    }
}

#[test]
fn what_two_disks_have_from_one_file_is_not_read_to_compare_them() {
    let bytes = MemoryStorage::from(vec![7; 1 << 20]);
    let base = Arc::new(Watched(bytes, AtomicU64::new(0)));
    let reads = || base.1.swap(0, Ordering::Relaxed);
    let drivers: [&dyn FormatDriver; 1] = [&RawDriver];
    let over = |byte, is_file| {
        let mut top = SparseLayer::new(1 << 20, 4096).with(64 << 10, 68 << 10, byte);
        top.refs.push(named_parent());
        let below = match is_file {
            true => ChainBuilder::new(&drivers).build(Top::storage(base.clone(), "raw")),
            // Whoever gives a layer may mean something else by it than what the file is now.
            false => RawLayer::open(base.clone())
                .and_then(|layer| Chain::from_layers(vec![Box::new(layer)])),
        };
        below.unwrap().under(top.boxed())
    };
    for is_file in [true, false] {
        let (a, b) = (over(1, is_file), over(2, true));
        reads();
        let ranges = Differences::between(a.whole(), b.whole(), 512, &NoProgress).unwrap();
        let ranges: Vec<_> = ranges.collect::<Result<_>>().unwrap();
        assert_eq!((ranges.len(), &ranges[0]), (1, &(64 << 10..68 << 10)));
        assert_eq!(reads() > 0, !is_file);
    }
}

/// A file as what it is and as its bytes is not one disk.
#[test]
fn one_file_of_two_formats_is_told_apart() {
    let file = Arc::new(MemoryStorage::from(
        b"FAKE\nsize 4096\ndata 0 512 7\n".to_vec(),
    ));
    let open = |format| {
        let builder = ChainBuilder::new(DRIVERS);
        builder.build(Top::storage(file.clone(), format)).unwrap()
    };
    let (fake, raw) = (open("fake"), open("raw"));
    let found = Differences::between(fake.whole(), raw.whole(), 512, &NoProgress).unwrap();
    assert!(found.map(Result::unwrap).count() > 0);
}

#[test]
fn a_view_of_an_ancestor_takes_no_change() {
    let layer = || SparseLayer::new(4096, 512).writable();
    let chain = Chain::from_layers(vec![layer().boxed(), layer().boxed()]).unwrap();
    let view = chain.view(1).unwrap();
    assert!(chain.view(2).is_none());
    let refusals = [
        view.write_at(&[1], 0),
        view.write_zeroes(0, 1, blockdev_core::ZeroFlags::default()),
        view.discard(0, 1),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    view.flush().unwrap();
    assert_eq!(
        view.block_status(0, 0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        view.read_at(&mut [0; 2], 4095).unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
}
