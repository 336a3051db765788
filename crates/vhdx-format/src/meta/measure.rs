//! How long a new image will be.

use blockdev_core::{Error, ErrorKind, Measurement, Result};

use super::bat::BITMAP_BLOCK_BYTES;
use super::layout::Layout;
use crate::CreateOptions;

impl CreateOptions {
    /// How long the image will be when `stored` blocks of the disk hold something. Of a disk with a
    /// parent each may need a sector bitmap block, as far as there are any, and counts as if it did.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with the option the format does not allow.
    ///
    /// # Example
    ///
    /// ```
    /// use vhdx_format::CreateOptions;
    ///
    /// let measured = CreateOptions::new(1 << 30).measure(2)?;
    /// assert_eq!(measured.required, (4 << 20) + 2 * (32 << 20));
    /// assert_eq!(measured.fully_allocated, (4 << 20) + (1 << 30));
    /// # Ok::<(), blockdev_core::Error>(())
    /// ```
    pub fn measure(&self, stored: u64) -> Result<Measurement> {
        let layout = Layout::new(self)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let geometry = &layout.geometry;
        let all = geometry.payload_blocks();
        let with = |blocks: u64| {
            let bitmaps = match self.parent {
                Some(_) => blocks.min(geometry.bitmap_blocks()),
                None => 0,
            };
            layout.first_block() + blocks * geometry.block_size() + bitmaps * BITMAP_BLOCK_BYTES
        };
        let fully_allocated = with(all);
        Ok(Measurement {
            required: if self.fixed {
                fully_allocated
            } else {
                with(stored.min(all))
            },
            fully_allocated,
        })
    }
}
