//! Changes held in memory over a container that must not change.
//!
//! ```text
//!   overlay   ┆──[data]────[zeros········]──┆        pieces, never overlapping
//!   base      ████████████████████           ┆        zeros past its end
//!             0                              len
//! ```
//!
//! A read takes what the pieces hold from memory and each gap between them with one read of the
//! base. Zeroed ranges cost a few bytes however long they are.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::past_end;
use crate::{Error, ErrorKind, FileId, HostExtent, Result, Storage, StorageExt};

/// A container whose changes stay in memory; the one beneath is only read.
#[derive(Debug)]
pub struct OverlayStorage {
    base: Arc<dyn Storage>,
    state: RwLock<State>,
    budget: u64,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// By first byte; pieces do not overlap and none is empty.
    pieces: BTreeMap<u64, Piece>,
    held_bytes: u64,
}

#[derive(Debug, Clone)]
struct Piece {
    len: u64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Zeros,
    /// The piece's bytes start at `from` of a shared buffer, so that cutting a piece copies nothing.
    Bytes {
        buffer: Arc<[u8]>,
        from: usize,
    },
}

impl Piece {
    /// The part of the piece that starts `skip` bytes into it.
    fn tail(&self, skip: u64) -> Self {
        let content = match &self.content {
            Content::Zeros => Content::Zeros,
            Content::Bytes { buffer, from } => Content::Bytes {
                buffer: Arc::clone(buffer),
                from: from + usize::try_from(skip).expect("inside a buffer"),
            },
        };
        Self {
            len: self.len - skip,
            content,
        }
    }
}

impl OverlayStorage {
    /// An overlay over `base` that holds at most `budget` changed bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the length of `base` cannot be told.
    pub fn new(base: Arc<dyn Storage>, budget: u64) -> Result<Self> {
        let len = base.len()?;
        let state = State {
            len,
            pieces: BTreeMap::new(),
            held_bytes: 0,
        };
        Ok(Self {
            base,
            state: RwLock::new(state),
            budget,
        })
    }

    /// The container beneath.
    #[must_use]
    pub fn base(&self) -> &Arc<dyn Storage> {
        &self.base
    }

    /// Puts `piece` at `offset`, cutting away what was there.
    fn place(&self, offset: u64, piece: Piece) -> Result<()> {
        let end = offset
            .checked_add(piece.len)
            .ok_or_else(|| past_end(offset))?;
        if piece.len == 0 {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Content::Bytes { .. } = piece.content {
            if state.held_bytes.saturating_add(piece.len) > self.budget {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    format!("changes in memory would pass {} bytes", self.budget),
                ));
            }
            state.held_bytes += piece.len;
        }
        // A piece that begins before the range: keep its head, and its tail if it reaches beyond.
        if let Some((&start, old)) = state.pieces.range(..offset).next_back() {
            let old_end = start + old.len;
            if old_end > offset {
                let tail = (old_end > end).then(|| old.tail(end - start));
                let mut head = old.clone();
                head.len = offset - start;
                state.pieces.insert(start, head);
                if let Some(tail) = tail {
                    state.pieces.insert(end, tail);
                }
            }
        }
        // Pieces that begin inside the range: gone, but for the tail of the last.
        while let Some((&start, old)) = state.pieces.range(offset..end).next() {
            let old = old.clone();
            state.pieces.remove(&start);
            if start + old.len > end {
                state.pieces.insert(end, old.tail(end - start));
            }
        }
        state.pieces.insert(offset, piece);
        state.len = state.len.max(end);
        Ok(())
    }
}

impl State {
    /// The run at `offset`: its length within `len`, and the piece that covers it with how far
    /// into the piece it starts; no piece where the base shows through.
    fn run(&self, offset: u64, len: u64) -> (u64, Option<(&Piece, u64)>) {
        if let Some((&start, piece)) = self.pieces.range(..=offset).next_back() {
            let into = offset - start;
            if into < piece.len {
                return (len.min(piece.len - into), Some((piece, into)));
            }
        }
        let next = self
            .pieces
            .range(offset..)
            .next()
            .map_or(u64::MAX, |(&start, _)| start);
        (len.min(next - offset), None)
    }
}

impl Storage for OverlayStorage {
    fn len(&self) -> Result<u64> {
        Ok(self
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > state.len)
        {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!(
                    "{} bytes at {offset:#x} reach past the end of the file",
                    buf.len()
                ),
            )
            .into());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (len, piece) = state.run(at, (buf.len() - done) as u64);
            let len = usize::try_from(len).expect("no more than the buffer holds");
            let part = &mut buf[done..done + len];
            match piece {
                Some((
                    Piece {
                        content: Content::Bytes { buffer, from },
                        ..
                    },
                    into,
                )) => {
                    let from = from + usize::try_from(into).expect("inside a buffer");
                    part.copy_from_slice(&buffer[from..from + len]);
                }
                Some((
                    Piece {
                        content: Content::Zeros,
                        ..
                    },
                    _,
                )) => part.fill(0),
                None => self.base.read_zero_padded(part, at)?,
            }
            done += len;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let content = Content::Bytes {
            buffer: buf.into(),
            from: 0,
        };
        self.place(
            offset,
            Piece {
                len: buf.len() as u64,
                content,
            },
        )
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let old = self.len()?;
        if len < old {
            // What is cut off must read as zeros if the length grows again.
            self.place(
                len,
                Piece {
                    len: old - len,
                    content: Content::Zeros,
                },
            )?;
        }
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .len = len;
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let within = len.min(self.len()?.saturating_sub(offset));
        self.place(
            offset,
            Piece {
                len: within,
                content: Content::Zeros,
            },
        )
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.place(
            offset,
            Piece {
                len,
                content: Content::Zeros,
            },
        )
    }

    /// Nothing is to be set aside for what stays in memory.
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).ok_or_else(|| past_end(offset))?;
        if end > self.len()? {
            self.set_len(end)?;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let len = match state.len.checked_sub(offset) {
            Some(len) if len > 0 => len,
            _ => return Err(past_end(offset)),
        };
        let (len, piece) = state.run(offset, len);
        match piece {
            Some((piece, _)) => {
                let allocated = matches!(piece.content, Content::Bytes { .. });
                Ok(HostExtent { len, allocated })
            }
            None if offset >= self.base.len()? => Ok(HostExtent {
                len,
                allocated: false,
            }),
            None => {
                let base = self.base.next_extent(offset)?;
                Ok(HostExtent {
                    len: base.len.min(len),
                    ..base
                })
            }
        }
    }

    fn identity(&self) -> Option<FileId> {
        self.base.identity()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn allocated_len(&self) -> Result<u64> {
        self.base.allocated_len()
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MemoryStorage;

    #[derive(Debug, Clone)]
    enum Change {
        Write(u64, Vec<u8>),
        Zero(u64, u64),
        SetLen(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0u64..300, prop::collection::vec(any::<u8>(), 0..80))
                .prop_map(|(at, bytes)| Change::Write(at, bytes)),
            (0u64..300, 0u64..120).prop_map(|(at, len)| Change::Zero(at, len)),
            (0u64..400).prop_map(Change::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn equals_a_plain_buffer_and_leaves_the_base_alone(
            changes in prop::collection::vec(change(), 0..40),
        ) {
            let start: Vec<u8> = (1..=200).collect();
            let base = Arc::new(MemoryStorage::from(start.clone()));
            let overlay = OverlayStorage::new(base.clone(), u64::MAX).unwrap();
            let plain = MemoryStorage::from(start.clone());
            for change in &changes {
                for storage in [&overlay as &dyn Storage, &plain] {
                    match change {
                        Change::Write(at, bytes) if !bytes.is_empty() => {
                            storage.write_at(bytes, *at).unwrap();
                        }
                        Change::Write(..) => {}
                        Change::Zero(at, len) => storage.zero_range(*at, *len).unwrap(),
                        Change::SetLen(len) => storage.set_len(*len).unwrap(),
                    }
                }
            }
            let len = plain.len().unwrap();
            prop_assert_eq!(overlay.len().unwrap(), len);
            let mut seen = vec![0xEE; usize::try_from(len).unwrap()];
            overlay.read_at(&mut seen, 0).unwrap();
            prop_assert_eq!(seen, plain.to_vec());
            prop_assert_eq!(base.to_vec(), start);
            let mut at = 0;
            while at < len {
                at += overlay.next_extent(at).unwrap().len;
            }
            prop_assert_eq!(at, len);
        }
    }

    #[test]
    fn huge_zero_ranges_cost_nothing_and_the_budget_holds() {
        let base = Arc::new(MemoryStorage::from(vec![1u8; 4096]));
        let overlay = OverlayStorage::new(base, 8192).unwrap();
        overlay.zero_range(0, 1 << 60).unwrap();
        overlay.write_at(&[2; 8192], 1 << 50).unwrap();
        assert_eq!(
            overlay.write_at(&[3], 0).unwrap_err().kind(),
            ErrorKind::LimitExceeded
        );
        let mut byte = [9];
        overlay.read_at(&mut byte, 4095).unwrap();
        assert_eq!(byte, [0]);
        overlay.read_at(&mut byte, (1 << 50) + 8191).unwrap();
        assert_eq!(byte, [2]);
        assert_eq!(
            overlay.zero_range(u64::MAX, 2).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }
}
