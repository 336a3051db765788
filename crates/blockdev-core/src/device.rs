//! A whole virtual disk, whatever it is made of.

use std::io::{IoSlice, IoSliceMut};

use crate::{Error, ErrorKind, Extent, Result, fits};

/// What a device can be asked to do beyond reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// Guest bytes can be written.
    pub write: bool,
    /// Ranges can be made zero without writing every byte.
    pub write_zeroes: bool,
    /// Ranges can be given back to the host.
    pub discard: bool,
}

/// What is fixed about a disk for as long as it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Size of the virtual disk in bytes.
    pub size: u64,
    /// Logical sector size in bytes: 512 or 4096.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes: 512 or 4096.
    pub physical_sector_size: u32,
    /// Unit of allocation in bytes (block, cluster), where the format has one.
    pub block_size: Option<u32>,
    /// True when no call can change the disk.
    pub read_only: bool,
    /// Name of the format: `raw`, `vhdx`, `qcow2`.
    pub format: &'static str,
    /// What can be asked of it.
    pub caps: Caps,
}

/// How zeros may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroFlags {
    /// Space may be given back to the host.
    pub may_unmap: bool,
    /// Fail with [`ErrorKind::Unsupported`] rather than write zeros byte by byte.
    pub no_fallback: bool,
}

/// A whole virtual disk: any byte range, any alignment, all or an error.
///
/// Calls take `&self` and may come from many threads at once.
pub trait BlockDevice: Send + Sync {
    /// What is fixed about the disk.
    fn info(&self) -> &DeviceInfo;

    /// Fills `buf` from byte `offset` of the disk.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] past the end, [`ErrorKind::NeedsParent`] where a parent was not
    /// opened, [`ErrorKind::Corrupt`] and [`ErrorKind::Io`]. What `buf` then holds is unspecified.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes `buf` at byte `offset` of the disk.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] unless the device is writable; [`ErrorKind::OutOfRange`],
    /// [`ErrorKind::NoSpace`], [`ErrorKind::Io`].
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Tells what the run that starts at `offset` is, looking no further than `len` bytes.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), and [`ErrorKind::InvalidInput`] when `len` is 0.
    fn block_status(&self, offset: u64, len: u64) -> Result<Extent>;

    /// Makes `len` bytes from `offset` read as zeros.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and [`ErrorKind::Unsupported`] by `no_fallback`.
    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()>;

    /// Says that `len` bytes from `offset` are no longer needed. They read as zeros or as before;
    /// never as older content or a parent's.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Returns when all acknowledged writes are on stable storage. Ok on a read-only device.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the host cannot promise it; the handle is then poisoned.
    fn flush(&self) -> Result<()>;

    /// Size of the disk in bytes.
    fn size(&self) -> u64 {
        self.info().size
    }

    /// Fills `bufs` one after the other from byte `offset` of the disk.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    fn readv_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let mut at = offset;
        for buf in bufs {
            self.read_at(buf, at)?;
            at += buf.len() as u64;
        }
        Ok(())
    }

    /// Writes `bufs` one after the other at byte `offset` of the disk. Where buffers meet inside a
    /// sector of 512 bytes, a crash leaves the sector old or new all the same.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn writev_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let mut end = offset;
        let meet_inside = bufs.iter().any(|buf| {
            let start = end;
            end += buf.len() as u64;
            start != offset && !start.is_multiple_of(512)
        });
        if meet_inside {
            let gathered: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            return self.write_at(&gathered, offset);
        }
        let mut at = offset;
        for buf in bufs {
            self.write_at(buf, at)?;
            at += buf.len() as u64;
        }
        Ok(())
    }

    /// The disk's extents from `offset` for `len` bytes, neighbours of one kind joined.
    fn extents(&self, offset: u64, len: u64) -> Extents<'_>
    where
        Self: Sized,
    {
        Extents::new(self, offset, len)
    }
}

/// Walks a disk's extents; made by [`BlockDevice::extents`] or [`Extents::new`].
///
/// Yields the start of each run with the run. After an error it is at its end.
pub struct Extents<'a> {
    device: &'a dyn BlockDevice,
    next: u64,
    end: u64,
    pending: Option<(u64, Extent)>,
}

impl std::fmt::Debug for Extents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extents")
            .field("next", &self.next)
            .field("end", &self.end)
            .finish()
    }
}

impl<'a> Extents<'a> {
    /// The extents of `device` from `offset` for `len` bytes, cut at the end of the disk.
    #[must_use]
    pub fn new(device: &'a dyn BlockDevice, offset: u64, len: u64) -> Self {
        let end = offset.saturating_add(len).min(device.size());
        Self {
            device,
            next: offset,
            end,
            pending: None,
        }
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<(u64, Extent)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let extent = match self.device.block_status(self.next, self.end - self.next) {
                Ok(extent) => extent,
                Err(error) => {
                    // What was gathered before the failure is good and is given first.
                    if let Some(run) = self.pending.take() {
                        return Some(Ok(run));
                    }
                    self.next = self.end;
                    return Some(Err(error));
                }
            };
            let start = self.next;
            self.next += extent.len;
            match &mut self.pending {
                Some((_, run)) if run.joins(&extent) => run.len += extent.len,
                Some(_) => return self.pending.replace((start, extent)).map(Ok),
                None => self.pending = Some((start, extent)),
            }
        }
        self.pending.take().map(Ok)
    }
}

/// The refusal every read-only device gives to a change.
pub(crate) fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "the disk is opened read-only")
}

/// Checks a `block_status` request against a disk of `size` bytes.
pub(crate) fn status_range(offset: u64, len: u64, size: u64) -> Result<()> {
    if len == 0 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "block status of no bytes",
        ));
    }
    fits(offset, len, size)
}
