//! A window of sectors with `Read`, `Write` and `Seek`.

use std::io::{self, Read, Seek, SeekFrom, Write};

use blockdev_core::{Below, Error, ErrorKind, Holes, Layer, Result, fits};

use crate::image::VhdxImage;
use crate::meta::bat::ReadSemantics;

/// Sectors of one image as a readable, writable, seekable stream; made by [`VhdxImage::sector`].
///
/// Reads what this file holds. Where it holds nothing, a disk without parent gives zeros, and a
/// differencing one an error of kind [`NeedsParent`](ErrorKind::NeedsParent): reading through
/// parents is what a chain is for.
///
/// Writes from any byte to any byte, as far as the window goes, in an image that is opened for
/// writing; what was written is stable after [`flush`](Write::flush). Bytes that complete a sector
/// which the parent holds are the parent's too, so that such a write ends in the same error; whole
/// sectors go without.
#[derive(Debug)]
pub struct SectorWindow<'a> {
    image: &'a VhdxImage,
    start: u64,
    len: u64,
    position: u64,
    semantics: ReadSemantics,
}

impl VhdxImage {
    /// The window of `count` logical sectors from sector number `start`.
    ///
    /// # Errors
    /// [`OutOfRange`](ErrorKind::OutOfRange) when the disk does not have them.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use std::io::Read;
    /// use std::sync::Arc;
    /// use blockdev_core::{FileOptions, FileStorage};
    /// use vhdx_format::{OpenOptions, VhdxImage};
    ///
    /// let file = FileStorage::open("disk.vhdx", FileOptions::read_only())?;
    /// let image = VhdxImage::open(Arc::new(file), &OpenOptions::read_only())?;
    /// let mut partition_table = Vec::new();
    /// image.sector(1, 33)?.read_to_end(&mut partition_table)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sector(&self, start: u64, count: u64) -> Result<SectorWindow<'_>> {
        let bits = self.geometry().sector_bits();
        let outside = || Error::from(ErrorKind::OutOfRange);
        let bytes = |sectors: u64| sectors.checked_shl(bits).filter(|b| b >> bits == sectors);
        let start = bytes(start).ok_or_else(outside)?;
        let len = bytes(count).ok_or_else(outside)?;
        fits(start, len, self.geometry().virtual_size())?;
        let semantics = ReadSemantics::Effective;
        Ok(SectorWindow {
            image: self,
            start,
            len,
            position: 0,
            semantics,
        })
    }
}

impl SectorWindow<'_> {
    /// The same window under other semantics.
    #[must_use]
    pub fn with_semantics(mut self, semantics: ReadSemantics) -> Self {
        self.semantics = semantics;
        self
    }

    /// Bytes in the window.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a window of no sectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of `len` bytes from the present position are in the window.
    fn part_of(&self, len: usize) -> usize {
        let left = self.len.saturating_sub(self.position);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }
}

fn needs_parent(offset: u64) -> Error {
    let text = format!("the bytes at {offset:#x} are in the parent image");
    Error::new(ErrorKind::NeedsParent, text)
}

/// A parent that is not at hand.
struct NoParent;

impl Below for NoParent {
    fn read_at(&self, _buf: &mut [u8], offset: u64) -> Result<()> {
        Err(needs_parent(offset))
    }
}

impl Read for SectorWindow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.part_of(buf.len());
        let buf = &mut buf[..len];
        if buf.is_empty() {
            return Ok(0);
        }
        let at = self.start + self.position;
        let mut holes = Holes::new();
        self.image.read_runs(buf, at, &mut holes, self.semantics)?;
        for hole in holes.iter() {
            if self.image.items().file_parameters.has_parent {
                return Err(needs_parent(hole.start()).into());
            }
            hole.slice_of(buf, at).fill(0);
        }
        self.position += len as u64;
        Ok(len)
    }
}

impl Write for SectorWindow<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.part_of(buf.len());
        if len > 0 {
            let at = self.start + self.position;
            self.image.write_at(&buf[..len], at, &NoParent)?;
            self.position += len as u64;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(Layer::flush(self.image)?)
    }
}

impl Seek for SectorWindow<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
