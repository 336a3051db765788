//! Reading a whole disk once, by several workers, for writing it out in order.
//!
//! ```text
//!   extents ──► piece 0 ─ read ─ prepare ─┐ place ├─ write
//!               piece 1 ─ read ─ prepare ─┤ in    ├─ write
//!               piece 2 ─ read ─ prepare ─┘ order ├─ write
//! ```
//!
//! What costs time (reading, looking for zeros, compressing, writing) is done side by side. Where
//! bytes go is decided one piece after the other, so that the same disk gives the same image
//! whatever the workers' speed. Memory is a buffer for each worker.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::{
    BlockDevice, Error, ErrorKind, Extent, ExtentKind, Extents, Progress, Result, align_down,
    align_up,
};

/// Bytes a worker takes on at a time, unless the sink's unit is larger.
const PIECE_BYTES: u64 = 1 << 20;

/// More workers than this only wait for each other.
const MOST_WORKERS: usize = 64;

/// Where a disk is written out to.
pub trait BulkSink: Sync {
    /// What is worked out for one piece; each worker has one and uses it again.
    type Scratch: Default + Send;

    /// Pieces begin on multiples of this, a power of two of at most 2 MiB, and end on one or at the
    /// end of the disk.
    fn unit_bytes(&self) -> u64;

    /// What is read where nothing is stored; `None` for zeros. Past its end it reads as zeros. Where
    /// it does not, zeros of the source are handed over as well.
    fn below(&self) -> Option<&dyn BlockDevice> {
        None
    }

    /// Works out what of the piece `bytes`, at byte `offset` of the disk, is to be stored. Side by
    /// side with other pieces.
    ///
    /// By default nothing is worked out.
    ///
    /// # Errors
    /// The sink's own.
    fn prepare(&self, offset: u64, bytes: &[u8], scratch: &mut Self::Scratch) -> Result<()> {
        let _ = (offset, bytes, scratch);
        Ok(())
    }

    /// Decides where it goes. One piece at a time, in ascending order of offsets.
    ///
    /// By default nothing is to be decided: every byte has its place.
    ///
    /// # Errors
    /// The sink's own.
    fn place(&self, offset: u64, bytes: &[u8], scratch: &mut Self::Scratch) -> Result<()> {
        let _ = (offset, bytes, scratch);
        Ok(())
    }

    /// Stores it. Side by side with other pieces.
    ///
    /// # Errors
    /// The sink's own.
    fn write(&self, offset: u64, bytes: &[u8], scratch: &Self::Scratch) -> Result<()>;
}

/// How a disk is read for a [`BulkSink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkOptions {
    /// Workers, of which no more are put to work than there is work for, and than 64. Default: one
    /// for each processor, at most 8.
    pub workers: NonZeroUsize,
    /// Hand over what the source says to be zeros as well.
    pub dense: bool,
}

impl Default for BulkOptions {
    fn default() -> Self {
        let most = NonZeroUsize::new(8).expect("not zero");
        let workers = std::thread::available_parallelism();
        Self {
            workers: workers.map_or(NonZeroUsize::MIN, |n| n.min(most)),
            dense: false,
        }
    }
}

/// Reads `source` from end to end and hands what is not known to be zeros to `sink`.
///
/// # Errors
/// Those of reading `source`, those of `sink`, and [`ErrorKind::InvalidInput`] when `progress`
/// cancels. The first to occur ends the work of all.
pub fn bulk_copy<S: BulkSink>(
    source: &dyn BlockDevice,
    sink: &S,
    options: &BulkOptions,
    progress: &dyn Progress,
) -> Result<()> {
    progress.start(source.size());
    let piece_bytes = PIECE_BYTES.max(sink.unit_bytes());
    let job = Job {
        source,
        sink,
        progress,
        piece_bytes,
        walk: Mutex::new(Walk {
            extents: Extents::new(source, 0, source.size()),
            below: sink.below(),
            zeros: None,
            left: None,
            done: 0,
            pieces: 0,
            dense: options.dense,
        }),
        turn: Mutex::new(Turn {
            next: 0,
            failure: None,
        }),
        turned: Condvar::new(),
    };
    let pieces = usize::try_from(source.size().div_ceil(piece_bytes)).unwrap_or(usize::MAX);
    let workers = options.workers.get().min(MOST_WORKERS).min(pieces);
    let run = || {
        if let Err(error) = job.work() {
            job.fail(error);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            // A host that has no more threads to give gets by with those it gave.
            if std::thread::Builder::new()
                .spawn_scoped(scope, run)
                .is_err()
            {
                break;
            }
        }
        run();
    });
    match job
        .turn
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .failure
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Job<'a, S> {
    source: &'a dyn BlockDevice,
    sink: &'a S,
    progress: &'a dyn Progress,
    piece_bytes: u64,
    walk: Mutex<Walk<'a>>,
    turn: Mutex<Turn>,
    turned: Condvar,
}

/// Whose turn it is to be placed.
struct Turn {
    next: u64,
    failure: Option<Error>,
}

/// A part of the disk to be copied, with its number.
struct Piece {
    number: u64,
    offset: u64,
    len: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: BulkSink> Job<'_, S> {
    fn work(&self) -> Result<()> {
        let size = usize::try_from(self.piece_bytes).expect("at most 2 MiB");
        let mut buffer = vec![0; size];
        let mut scratch = S::Scratch::default();
        while let Some(piece) = self.next_piece()? {
            if self.progress.is_cancelled() {
                return Err(Error::new(ErrorKind::InvalidInput, "cancelled"));
            }
            let bytes = &mut buffer[..piece.len];
            self.source.read_at(bytes, piece.offset)?;
            self.sink.prepare(piece.offset, bytes, &mut scratch)?;
            if !self.place(&piece, bytes, &mut scratch)? {
                return Ok(());
            }
            self.sink.write(piece.offset, bytes, &scratch)?;
            self.progress.advance(piece.len as u64);
        }
        Ok(())
    }

    fn next_piece(&self) -> Result<Option<Piece>> {
        let (piece, skipped) =
            lock(&self.walk).next(self.source, self.sink.unit_bytes(), self.piece_bytes)?;
        if skipped > 0 {
            self.progress.advance(skipped);
        }
        Ok(piece)
    }

    /// Waits for the piece's turn and has it placed; false when the work has failed meanwhile.
    fn place(&self, piece: &Piece, bytes: &[u8], scratch: &mut S::Scratch) -> Result<bool> {
        let mut turn = lock(&self.turn);
        while turn.next != piece.number && turn.failure.is_none() {
            turn = self
                .turned
                .wait(turn)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if turn.failure.is_some() {
            return Ok(false);
        }
        self.sink.place(piece.offset, bytes, scratch)?;
        turn.next += 1;
        drop(turn);
        self.turned.notify_all();
        Ok(true)
    }

    /// Ends the work of all, for the first failure.
    fn fail(&self, error: Error) {
        lock(&self.turn).failure.get_or_insert(error);
        self.turned.notify_all();
    }
}

/// Hands out the disk, extent by extent, in pieces.
struct Walk<'a> {
    extents: Extents<'a>,
    /// What is read where nothing is stored.
    below: Option<&'a dyn BlockDevice>,
    /// What is left of a run of zeros that may hide something below: first byte and last + 1.
    zeros: Option<(u64, u64)>,
    /// What is left of the run being handed out: first and last byte + 1, on units.
    left: Option<(u64, u64)>,
    /// Everything before this byte was handed out or passed over.
    done: u64,
    pieces: u64,
    dense: bool,
}

impl Walk<'_> {
    /// The next piece, and how many bytes were passed over to get to it.
    fn next(
        &mut self,
        source: &dyn BlockDevice,
        unit: u64,
        piece_bytes: u64,
    ) -> Result<(Option<Piece>, u64)> {
        let before = self.done;
        let size = source.size();
        loop {
            if let Some((from, to)) = self.left.take() {
                // Pieces end on multiples of their size, so that no two touch the same unit.
                let end = to.min(align_down(from, piece_bytes).saturating_add(piece_bytes));
                if end < to {
                    self.left = Some((end, to));
                }
                let skipped = from - before;
                let len = usize::try_from(end - from).expect("no longer than a piece");
                let piece = Piece {
                    number: self.pieces,
                    offset: from,
                    len,
                };
                self.pieces += 1;
                self.done = end;
                return Ok((Some(piece), skipped));
            }
            if let Some((from, to)) = self.hiding()? {
                self.hand_out(from, to, unit, size);
                continue;
            }
            let Some(next) = self.extents.next() else {
                let skipped = size - before;
                self.done = size;
                return Ok((None, skipped));
            };
            let (start, extent) = next?;
            let end = start + extent.len;
            if self.dense || !reads_zero(source, start, &extent)? {
                self.hand_out(start, end, unit, size);
            } else {
                self.zeros = Some((start, end));
            }
        }
    }

    /// Makes the units of the run from byte `start` to byte `end` those that are handed out next.
    fn hand_out(&mut self, start: u64, end: u64, unit: u64, size: u64) {
        let from = align_down(start, unit).max(self.done);
        let to = align_up(end, unit).map_or(size, |to| to.min(size));
        if from < to {
            self.left = Some((from, to));
        }
    }

    /// The next run of the zeros that hides something below: first byte and last + 1.
    fn hiding(&mut self) -> Result<Option<(u64, u64)>> {
        let Some(below) = self.below else {
            return Ok(None);
        };
        while let Some((start, end)) = self.zeros.take() {
            let there = end.min(below.size());
            if start >= there {
                break;
            }
            let extent = below.block_status(start, there - start)?;
            let next = start + extent.len;
            self.zeros = Some((next, end));
            if !reads_zero(below, start, &extent)? {
                return Ok(Some((start, next)));
            }
        }
        Ok(None)
    }
}

/// True when `extent`, at byte `start` of `source`, needs no reading to be known.
fn reads_zero(source: &dyn BlockDevice, start: u64, extent: &Extent) -> Result<bool> {
    match extent.kind {
        ExtentKind::Zero => Ok(true),
        ExtentKind::Absent => {
            // Where a parent is missing this is an error, not zeros.
            source.read_at(&mut [0], start)?;
            Ok(true)
        }
        ExtentKind::Data | ExtentKind::Compressed => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{LoneLayer, MemoryStorage, NoProgress, RawLayer};

    /// Notes the order in which pieces are placed, and keeps their bytes.
    #[derive(Default)]
    struct Noted {
        unit: u64,
        below: Option<LoneLayer>,
        fail_at: Option<u64>,
        placed: Mutex<Vec<(u64, usize)>>,
        bytes: MemoryStorage,
    }

    impl BulkSink for Noted {
        type Scratch = u64;

        fn unit_bytes(&self) -> u64 {
            self.unit
        }

        fn below(&self) -> Option<&dyn BlockDevice> {
            self.below.as_ref().map(|below| below as &dyn BlockDevice)
        }

        fn prepare(&self, offset: u64, _: &[u8], scratch: &mut u64) -> Result<()> {
            // Later pieces are ready first.
            std::thread::sleep(std::time::Duration::from_micros(
                500 - (offset >> 20).min(25) * 20,
            ));
            *scratch = offset;
            Ok(())
        }

        fn place(&self, offset: u64, bytes: &[u8], scratch: &mut u64) -> Result<()> {
            assert_eq!(*scratch, offset, "a worker's scratch is its own");
            if self.fail_at == Some(offset) {
                return Err(ErrorKind::NoSpace.into());
            }
            lock(&self.placed).push((offset, bytes.len()));
            Ok(())
        }

        fn write(&self, offset: u64, bytes: &[u8], _: &u64) -> Result<()> {
            crate::Storage::write_at(&self.bytes, bytes, offset)
        }
    }

    const SIZE: usize = (10 << 20) + 700;

    fn disk() -> (Vec<u8>, LoneLayer) {
        let bytes: Vec<u8> = (0..SIZE).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let storage = Arc::new(MemoryStorage::from(bytes.clone()));
        (
            bytes,
            LoneLayer::new(Box::new(RawLayer::open(storage).unwrap())),
        )
    }

    fn options(workers: usize) -> BulkOptions {
        BulkOptions {
            workers: NonZeroUsize::new(workers).unwrap(),
            dense: false,
        }
    }

    #[test]
    fn pieces_are_placed_in_order_whatever_the_workers_do() {
        let (bytes, disk) = disk();
        for workers in [1, 2, 8] {
            let sink = Noted {
                unit: 4096,
                ..Noted::default()
            };
            bulk_copy(&disk, &sink, &options(workers), &NoProgress).unwrap();
            assert_eq!(sink.bytes.to_vec(), bytes);
            let placed = sink.placed.into_inner().unwrap();
            assert_eq!(placed.len(), 11);
            assert!(placed.is_sorted());
            assert_eq!(
                placed[10],
                (10 << 20, 700),
                "the last piece ends with the disk"
            );
        }
    }

    #[test]
    fn a_failure_in_the_middle_ends_the_work_of_all() {
        let (_, disk) = disk();
        let sink = Noted {
            unit: 4096,
            fail_at: Some(5 << 20),
            ..Noted::default()
        };
        let failed = bulk_copy(&disk, &sink, &options(8), &NoProgress).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::NoSpace);
        assert_eq!(sink.placed.into_inner().unwrap().len(), 5);
    }

    /// A disk that is known to be zeros, with its first `data` bytes excepted.
    fn mostly_zeros(data: u64, size: u64) -> LoneLayer {
        let storage = Arc::new(HalfHole { data, size });
        LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
    }

    /// Ones, and then a hole.
    #[derive(Debug)]
    struct HalfHole {
        data: u64,
        size: u64,
    }

    impl crate::Storage for HalfHole {
        fn len(&self) -> Result<u64> {
            Ok(self.size)
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            for (at, byte) in (offset..).zip(buf) {
                *byte = u8::from(at < self.data);
            }
            Ok(())
        }

        fn next_extent(&self, offset: u64) -> Result<crate::HostExtent> {
            let allocated = offset < self.data;
            let end = if allocated { self.data } else { self.size };
            let len = end - offset;
            Ok(crate::HostExtent { len, allocated })
        }
    }

    #[test]
    fn zeros_are_handed_over_where_they_hide_something_below_and_nowhere_else() {
        const MIB: u64 = 1 << 20;
        let source = mostly_zeros(MIB, 64 * MIB);
        let sink = Noted {
            unit: 65_536,
            below: Some(mostly_zeros(3 * MIB + 5, 8 * MIB)),
            ..Noted::default()
        };
        bulk_copy(&source, &sink, &options(3), &NoProgress).unwrap();
        let mib = 1 << 20;
        let placed = sink.placed.into_inner().unwrap();
        let last = (3 * MIB, 65_536);
        assert_eq!(placed, [(0, mib), (MIB, mib), (2 * MIB, mib), last]);
    }

    #[test]
    fn an_empty_disk_is_no_work() {
        let storage = Arc::new(MemoryStorage::default());
        let disk = LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()));
        let sink = Noted {
            unit: 512,
            ..Noted::default()
        };
        bulk_copy(&disk, &sink, &options(4), &NoProgress).unwrap();
        assert!(sink.placed.into_inner().unwrap().is_empty());
    }
}
