//! Where a block's entry is in the BAT ([MS-VHDX] §2.4, §2.5).
//!
//! ```text
//! chunk 0                        chunk 1
//! PB 0  PB 1 … PB r-1  SB 0 │ PB r  PB r+1 … PB 2r-1  SB 1 │ …     r = chunk ratio
//! ```

/// Sectors described by one sector bitmap block: 1 MiB of bits (§2.4).
pub const SECTORS_PER_CHUNK: u64 = 1 << 23;

/// The numbers that follow from disk size, block size and logical sector size.
///
/// Sizes may be ones that no valid image has; a zero counts as one so that there is always an
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the virtual disk.
    pub virtual_size: u64,
    /// Bytes of a payload block, at least 1.
    pub block_size: u64,
    /// Bytes of a logical sector, at least 1.
    pub sector_size: u64,
}

impl Geometry {
    /// The geometry of a disk of `virtual_size` bytes.
    pub fn new(virtual_size: u64, block_size: u32, sector_size: u32) -> Self {
        Self {
            virtual_size,
            block_size: u64::from(block_size).max(1),
            sector_size: u64::from(sector_size).max(1),
        }
    }

    /// Payload blocks for each sector bitmap block.
    pub fn chunk_ratio(&self) -> u64 {
        (SECTORS_PER_CHUNK * self.sector_size / self.block_size).max(1)
    }

    /// Payload blocks of the disk, the last one possibly reaching past its end.
    pub fn payload_blocks(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_size)
    }

    /// Sector bitmap blocks of the disk.
    pub fn chunks(&self) -> u64 {
        self.payload_blocks().div_ceil(self.chunk_ratio())
    }

    /// Whole sectors of the disk.
    pub fn sectors(&self) -> u64 {
        self.virtual_size / self.sector_size
    }

    /// Sectors of a payload block.
    pub fn sectors_per_block(&self) -> u64 {
        self.block_size / self.sector_size
    }

    /// BAT entries that satisfy every reading of §2.5.
    ///
    /// A differencing disk needs the bitmap entry of its last chunk, which stands after all
    /// payload entries that a full chunk would have. For other disks this is the formula of the
    /// text, one entry more than the last payload block needs.
    pub fn bat_entries(&self, differencing: bool) -> u64 {
        if differencing {
            self.chunks().saturating_mul(self.chunk_ratio() + 1)
        } else {
            self.payload_blocks() + self.chunks()
        }
    }

    /// Index of payload block `block` in the BAT.
    pub fn payload_bat_index(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio()
    }

    /// Index of the sector bitmap block of `chunk` in the BAT.
    pub fn bitmap_bat_index(&self, chunk: u64) -> u64 {
        chunk * (self.chunk_ratio() + 1) + self.chunk_ratio()
    }

    /// The chunk that `block` belongs to.
    pub fn chunk_of(&self, block: u64) -> u64 {
        block / self.chunk_ratio()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn chunk_ratio_follows_sector_and_block_size() {
        for (block_mib, sector, ratio) in [
            (1, 512, 4096),
            (2, 512, 2048),
            (32, 512, 128),
            (256, 512, 16),
            (1, 4096, 32768),
            (256, 4096, 128),
        ] {
            let geometry = Geometry::new(GIB, block_mib << 20, sector);
            assert_eq!(geometry.chunk_ratio(), ratio);
        }
    }

    #[test]
    fn bitmap_entries_are_interleaved() {
        let geometry = Geometry::new(9 * GIB, 256 << 20, 512);
        assert_eq!((geometry.payload_blocks(), geometry.chunks()), (36, 3));
        assert_eq!(geometry.payload_bat_index(15), 15);
        assert_eq!(geometry.bitmap_bat_index(0), 16);
        assert_eq!(geometry.payload_bat_index(16), 17);
        assert_eq!(geometry.bitmap_bat_index(2), 50);
        assert_eq!(geometry.bat_entries(true), 51);
        assert_eq!(geometry.bat_entries(false), 39);
    }

    #[test]
    fn zero_sizes_have_an_answer() {
        let geometry = Geometry::new(0, 0, 0);
        assert_eq!((geometry.payload_blocks(), geometry.chunks()), (0, 0));
        assert!(geometry.chunk_ratio() > 0);
    }
}
