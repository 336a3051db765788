//! Several parts of a container, read by one call.

use std::mem::take;

use super::met_the_end;
use crate::{Result, Storage, StorageExt};

/// How many parts are gathered before they are read.
const MOST_PARTS: usize = 16;

/// A buffer, and the byte of the container that it is filled from.
#[derive(Debug, Default)]
pub struct ReadPart<'a> {
    /// All of it is filled.
    pub buf: &'a mut [u8],
    /// Where its first byte lies.
    pub offset: u64,
}

/// Gathers parts of one container as they are found, and reads them by as few calls of
/// [`Storage::read_scattered`] as may be. No memory is asked for.
///
/// # Example
///
/// ```
/// use blockdev_core::{MemoryStorage, Scattered};
///
/// let storage = MemoryStorage::from((0..100).collect::<Vec<u8>>());
/// let mut buf = [0; 4];
/// let (left, right) = buf.split_at_mut(2);
/// let mut scattered = Scattered::new(&storage);
/// scattered.add(left, 90)?;
/// scattered.add(right, 10)?;
/// scattered.read()?;
/// assert_eq!(buf, [90, 91, 10, 11]);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Scattered<'a, S: Storage + ?Sized> {
    storage: &'a S,
    parts: [ReadPart<'a>; MOST_PARTS],
    used: usize,
    zero_padded: bool,
}

impl<'a, S: Storage + ?Sized> Scattered<'a, S> {
    /// Nothing yet, to be read from `storage`.
    #[must_use]
    pub fn new(storage: &'a S) -> Self {
        Self {
            storage,
            parts: Default::default(),
            used: 0,
            zero_padded: false,
        }
    }

    /// The same where bytes past the end of the container are zeros, as by
    /// [`StorageExt::read_zero_padded`].
    #[must_use]
    pub fn zero_padded(storage: &'a S) -> Self {
        Self {
            zero_padded: true,
            ..Self::new(storage)
        }
    }

    /// Has `buf` filled from byte `offset`, now or by [`read`](Self::read).
    ///
    /// # Errors
    /// As [`Storage::read_scattered`], of what was added before, too.
    pub fn add(&mut self, buf: &'a mut [u8], offset: u64) -> Result<()> {
        if self.used == MOST_PARTS {
            self.flush()?;
        }
        self.parts[self.used] = ReadPart { buf, offset };
        self.used += 1;
        Ok(())
    }

    /// Returns when all that was added is filled.
    ///
    /// # Errors
    /// As [`Storage::read_scattered`].
    pub fn read(mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let parts = &mut self.parts[..take(&mut self.used)];
        let read = match &mut *parts {
            [] => Ok(()),
            [part] if self.zero_padded => self.storage.read_zero_padded(part.buf, part.offset),
            [part] => self.storage.read_at(part.buf, part.offset),
            parts => self.storage.read_scattered(parts),
        };
        match read {
            // Which of them reaches past the end is not told.
            Err(error) if self.zero_padded && met_the_end(&error) => parts
                .iter_mut()
                .try_for_each(|part| self.storage.read_zero_padded(part.buf, part.offset)),
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, MemoryStorage, ReadOnlyStorage, WindowStorage};
    use std::sync::Arc;

    /// More parts than are kept at once, of which the first ones must not be forgotten.
    #[test]
    fn every_part_is_read_however_many_there_are() {
        let bytes: Vec<u8> = (0..=255).collect();
        let storage = MemoryStorage::from(bytes);
        for count in [0, 1, 2, MOST_PARTS, MOST_PARTS + 1, 5 * MOST_PARTS + 3] {
            let mut buf = vec![0; 3 * count];
            let mut scattered = Scattered::new(&storage);
            for (index, part) in buf.chunks_mut(3).enumerate() {
                scattered.add(part, 250 - 3 * index as u64).unwrap();
            }
            scattered.read().unwrap();
            for (index, part) in buf.chunks(3).enumerate() {
                let first = u8::try_from(250 - 3 * index).unwrap();
                assert_eq!(part, [first, first + 1, first + 2], "{index} of {count}");
            }
        }
    }

    /// An image whose file ends inside a cluster, read together with another cluster of it.
    #[test]
    fn parts_past_the_end_are_zeros_where_that_was_asked_for() {
        let storage = MemoryStorage::from(vec![7; 10]);
        let mut buf = [1; 12];
        let mut plain = Scattered::new(&storage);
        for (part, at) in buf.chunks_mut(4).zip([0, 8, 90]) {
            plain.add(part, at).unwrap();
        }
        assert_eq!(plain.read().unwrap_err().kind(), ErrorKind::Io);
        let mut padded = Scattered::zero_padded(&storage);
        for (part, at) in buf.chunks_mut(4).zip([0, 8, 90]) {
            padded.add(part, at).unwrap();
        }
        padded.read().unwrap();
        assert_eq!(buf, [7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_part_outside_of_a_window_is_refused_and_the_others_keep_their_places() {
        let inner = Arc::new(MemoryStorage::from((0..100).collect::<Vec<u8>>()));
        let window = WindowStorage::new(Arc::new(ReadOnlyStorage::new(inner)), 10, 20).unwrap();
        let (mut a, mut b) = ([0; 2], [0; 2]);
        let mut parts = [
            ReadPart {
                buf: &mut a,
                offset: 3,
            },
            ReadPart {
                buf: &mut b,
                offset: 19,
            },
        ];
        let refused = window.read_scattered(&mut parts).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfRange);
        assert_eq!((parts[0].offset, parts[1].offset), (3, 19));
        parts[1].offset = 18;
        window.read_scattered(&mut parts).unwrap();
        assert_eq!((parts[0].offset, parts[1].offset), (3, 18));
        assert_eq!((a, b), ([13, 14], [28, 29]));
    }
}
