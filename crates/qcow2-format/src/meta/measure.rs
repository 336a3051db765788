//! How long a new image will be.

use blockdev_core::{Error, ErrorKind, Measurement, Result};

use super::bitmaps::Bitmap;
use super::layout::Layout;
use crate::ondisk::bitmap::RawBitmap;
use crate::{CreateOptions, Preallocation};

impl CreateOptions {
    /// How long the image will be when `stored` clusters of the disk hold something. As
    /// `qemu-img measure` has it: every table has the space that the full disk needs, so an image
    /// whose disk is not full may be shorter than `required`, and never longer.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with the option the format does not allow.
    ///
    /// # Example
    ///
    /// ```
    /// use qcow2_format::CreateOptions;
    ///
    /// let measured = CreateOptions::new(1 << 30).measure(3)?;
    /// assert_eq!(measured.required, (6 + 3) * 65_536);
    /// assert_eq!(measured.fully_allocated, 6 * 65_536 + (1 << 30));
    /// # Ok::<(), blockdev_core::Error>(())
    /// ```
    pub fn measure(&self, stored: u64) -> Result<Measurement> {
        let layout = Layout::new(self)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let geometry = &layout.geometry;
        let clusters = geometry.size().div_ceil(geometry.cluster_size());
        let full = layout.clusters_of_full_disk();
        // Below 2^63, since the size of the disk is and its tables are a small part of it.
        let bytes = |clusters: u64| clusters.saturating_mul(geometry.cluster_size());
        let stored = match self.preallocation {
            Preallocation::Falloc | Preallocation::Full => clusters,
            // Of what has only its place the host stores nothing.
            Preallocation::Off | Preallocation::Metadata => stored.min(clusters),
        };
        Ok(Measurement {
            required: bytes(full - clusters + stored),
            fully_allocated: bytes(full),
        })
    }

    /// How many bytes it would take to keep `bitmaps` of the source in the image as well.
    #[must_use]
    pub fn measure_bitmaps(&self, bitmaps: &[Bitmap]) -> u64 {
        let cluster = 1 << self.cluster_bits;
        let whole = |bytes: u64| bytes.div_ceil(cluster).saturating_mul(cluster);
        let of_bitmap = |bitmap: &Bitmap| {
            let bits = self.size.div_ceil(bitmap.granularity());
            let clusters = bits.div_ceil(8).div_ceil(cluster);
            whole(clusters * 8).saturating_add(clusters.saturating_mul(cluster))
        };
        let entry = |bitmap: &Bitmap| {
            let fixed = size_of::<RawBitmap>() as u64;
            (fixed + bitmap.name.len() as u64).next_multiple_of(8)
        };
        let directory = whole(bitmaps.iter().map(entry).sum());
        bitmaps
            .iter()
            .map(of_bitmap)
            .fold(directory, u64::saturating_add)
    }
}
