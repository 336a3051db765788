//! Dirty bitmaps that a writer does not keep up (qcow2 specification, "Bitmap directory").

use blockdev_core::{ByteRange, Result};
use zerocopy::IntoBytes;

use crate::image::Qcow2Image;
use crate::ondisk::bitmap::{AUTO, FLAGS, IN_USE, RawBitmap};
use crate::ondisk::read;

impl Qcow2Image {
    /// Says of each bitmap that is to follow every write that it no longer does. Bitmaps that stand
    /// still stay as valid as they are. True when the file was changed.
    ///
    /// # Errors
    /// [`Corrupt`](blockdev_core::ErrorKind::Corrupt) when the directory does not fit into the file.
    pub(crate) fn mark_bitmaps_in_use(&self) -> Result<bool> {
        let Some(bitmaps) = self.first.extensions.bitmaps else {
            return Ok(false);
        };
        let (start, length) = (bitmaps.directory_offset, bitmaps.directory_size);
        let file_len = self.storage.len()?;
        let damaged = || {
            let text = "it does not fit into the file, or not all bitmaps into it";
            blockdev_core::Error::corrupt("bitmap directory", start, text)
        };
        let directory = ByteRange::new(start, length).filter(|range| range.end() <= file_len);
        let end = directory
            .filter(|_| start % 8 == 0)
            .ok_or_else(damaged)?
            .end();
        let (mut at, mut changed) = (start, false);
        for _ in 0..bitmaps.nb_bitmaps {
            if end.saturating_sub(at) < size_of::<RawBitmap>() as u64 {
                return Err(damaged());
            }
            let mut bytes = [0; size_of::<RawBitmap>()];
            for (word, place) in bytes.chunks_exact_mut(8).zip((at..).step_by(8)) {
                word.copy_from_slice(&self.pages.word(place)?.to_be_bytes());
            }
            let raw: RawBitmap = read(&bytes, 0).expect("as long as the structure");
            let flags = raw.flags.get();
            if flags & AUTO != 0 && flags & IN_USE == 0 {
                let marked = zerocopy::big_endian::U32::new(flags | IN_USE);
                self.pages.write_through(at + FLAGS, marked.as_bytes())?;
                changed = true;
            }
            let variable = u64::from(raw.extra_data_size.get()) + u64::from(raw.name_size.get());
            at += (size_of::<RawBitmap>() as u64 + variable).next_multiple_of(8);
        }
        Ok(changed)
    }
}
