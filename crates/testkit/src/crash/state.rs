//! One state of the files after a crash, as storages.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use blockdev_core::{Error, ErrorKind, HostExtent, Result, Storage, SyncKind};

use super::Image;

/// An [`Image`] as a storage, writable or not. Refused changes are counted.
#[derive(Debug)]
pub struct StateStorage {
    image: RwLock<Image>,
    writable: bool,
    refused: AtomicU64,
}

impl StateStorage {
    /// `image` to be changed at will; the one given stays as it is.
    #[must_use]
    pub fn writable(image: Image) -> Arc<Self> {
        Self::new(image, true)
    }

    /// `image` for reading only.
    #[must_use]
    pub fn read_only(image: Image) -> Arc<Self> {
        Self::new(image, false)
    }

    fn new(image: Image, writable: bool) -> Arc<Self> {
        Arc::new(Self {
            image: RwLock::new(image),
            writable,
            refused: AtomicU64::new(0),
        })
    }

    /// The bytes as they are now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.image
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many changes were asked of it although it is for reading only.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn change(&self, f: impl FnOnce(&mut Image)) -> Result<()> {
        if !self.writable {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(ErrorKind::ReadOnly, "a state to be read only"));
        }
        f(&mut self.image.write().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// All files of one state.
#[derive(Debug)]
pub(crate) struct StateFiles {
    states: Vec<Arc<StateStorage>>,
    storages: Vec<Arc<dyn Storage>>,
}

impl StateFiles {
    pub(crate) fn new(images: &[Image], writable: bool) -> Self {
        let states = images.iter().cloned();
        let states: Vec<_> = states.map(|i| StateStorage::new(i, writable)).collect();
        let storage = |state: &Arc<StateStorage>| -> Arc<dyn Storage> { state.clone() };
        Self {
            storages: states.iter().map(storage).collect(),
            states,
        }
    }

    /// As an engine takes them.
    pub(crate) fn storages(&self) -> &[Arc<dyn Storage>] {
        &self.storages
    }

    /// The bytes as they are now.
    pub(crate) fn images(&self) -> Vec<Image> {
        self.states.iter().map(|state| state.image()).collect()
    }

    /// How many changes were asked of them although they are for reading only.
    pub(crate) fn refused(&self) -> u64 {
        self.states.iter().map(|state| state.refused()).sum()
    }
}

/// The error of a read past the end of the file.
pub(super) fn short_read(offset: u64, len: usize) -> Error {
    Error::from(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{len} bytes at {offset:#x} reach past the end of the file"),
    ))
}

impl Storage for StateStorage {
    fn len(&self) -> Result<u64> {
        let image = self.image.read().unwrap_or_else(PoisonError::into_inner);
        Ok(image.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let image = self.image.read().unwrap_or_else(PoisonError::into_inner);
        if image.read(offset, buf) {
            Ok(())
        } else {
            Err(short_read(offset, buf.len()))
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.change(|image| image.write(offset, buf))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(|image| image.set_len(len))
    }

    fn sync(&self, _kind: SyncKind) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.change(|image| image.zero(offset, len))
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.change(|image| zero_range(image, offset, len))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        self.change(|image| {
            if end > image.len() {
                image.set_len(end);
            }
        })
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        extent(
            &self.image.read().unwrap_or_else(PoisonError::into_inner),
            offset,
        )
    }

    fn is_read_only(&self) -> bool {
        !self.writable
    }
}

/// The run at `offset`: what the image leaves out is a hole.
pub(super) fn extent(image: &Image, offset: u64) -> Result<HostExtent> {
    if offset >= image.len() {
        return Err(ErrorKind::OutOfRange.into());
    }
    let (len, allocated) = image.run(offset);
    Ok(HostExtent { len, allocated })
}

/// Zeros that grow the file where they reach past its end.
pub(super) fn zero_range(image: &mut Image, offset: u64, len: u64) {
    let end = offset.saturating_add(len);
    if end > image.len() {
        image.set_len(end);
    }
    image.zero(offset, len);
}
