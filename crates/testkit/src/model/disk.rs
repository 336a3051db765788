//! The flat disk: an array of bytes.

use std::collections::HashMap;

use crate::crash::index;
use crate::stamp::stamped;
use crate::subject::Control;

/// A disk whose content is beyond doubt.
#[derive(Debug, Clone)]
pub struct FlatDisk {
    bytes: Vec<u8>,
    kept: HashMap<u32, Vec<u8>>,
}

impl FlatDisk {
    /// A disk that reads `content`.
    #[must_use]
    pub fn new(content: Vec<u8>) -> Self {
        Self {
            bytes: content,
            kept: HashMap::new(),
        }
    }

    /// What it reads.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The `len` bytes from byte `offset`.
    ///
    /// # Panics
    /// Outside the disk.
    #[must_use]
    pub fn part(&self, offset: u64, len: u64) -> &[u8] {
        &self.bytes[index(offset)..][..index(len)]
    }

    /// Writes operation `op`'s stamps to the range and returns them.
    ///
    /// # Panics
    /// Outside the disk.
    pub fn write(&mut self, offset: u64, len: u64, op: u32) -> Vec<u8> {
        let bytes = stamped(offset, index(len), op);
        self.put(offset, &bytes);
        bytes
    }

    /// Puts `bytes` at byte `offset`.
    ///
    /// # Panics
    /// Outside the disk.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.bytes[index(offset)..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the range zero.
    ///
    /// # Panics
    /// Outside the disk.
    pub fn zero(&mut self, offset: u64, len: u64) {
        self.bytes[index(offset)..][..index(len)].fill(0);
    }

    /// Takes in what a discarded range reads. False when a byte is neither zero nor what it was.
    ///
    /// # Panics
    /// Outside the disk.
    pub fn discarded(&mut self, offset: u64, seen: &[u8]) -> bool {
        let old = self.part(offset, seen.len() as u64);
        let right = seen.iter().zip(old).all(|(s, o)| *s == 0 || s == o);
        self.put(offset, seen);
        right
    }

    /// Does to the whole disk what `control` says.
    ///
    /// # Panics
    /// When it names content that was not kept.
    pub fn control(&mut self, control: Control) {
        match control {
            Control::Resize(size) => self.bytes.resize(index(size), 0),
            Control::SnapshotCreate(id) => {
                self.kept.insert(id, self.bytes.clone());
            }
            Control::SnapshotApply(id) => {
                let kept = self.kept.get(&id).expect("a snapshot that was made");
                self.bytes.clone_from(kept);
            }
            Control::SnapshotDelete(id) => {
                self.kept.remove(&id);
            }
            Control::Other(_) => {}
        }
    }
}
