//! From guest bytes to blocks, chunks and BAT entries ([MS-VHDX] §2.4, §2.5).
//!
//! ```text
//!   chunk 0                              chunk 1
//!   ┌─────┬─────┬─────┬─────┬──────────┬─────┬─────┬ …
//!   │ PB 0│ PB 1│  …  │PB r-1│ bitmap 0│ PB r│ …
//!   └─────┴─────┴─────┴─────┴──────────┴─────┴─────┴ …
//!   r = chunk ratio = 2^23 × logical sector size / block size
//! ```
//!
//! The bitmap entries are there in every file, differencing or not.

use std::borrow::Cow;
use std::ops::Range;

use crate::VhdxError;

/// Largest virtual disk (§2.6.2.2).
pub(crate) const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Sectors that one sector bitmap block describes (§2.4).
pub(crate) const SECTORS_PER_CHUNK: u64 = 1 << 23;

/// The numbers that place everything; checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    virtual_size: u64,
    block_bits: u32,
    sector_bits: u32,
}

/// The items of which a geometry is made, as the file gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unchecked {
    pub(crate) virtual_size: u64,
    pub(crate) block_size: u32,
    pub(crate) logical_sector_size: u32,
    pub(crate) physical_sector_size: u32,
    /// Where the metadata region lies, for messages.
    pub(crate) region_offset: u64,
}

impl Unchecked {
    fn field(
        self,
        field: &'static str,
        found: impl std::fmt::Display,
        expected: impl Into<Cow<'static, str>>,
    ) -> VhdxError {
        VhdxError::Field {
            structure: "metadata",
            offset: self.region_offset,
            field,
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// Checks each number by itself and against the others.
    ///
    /// # Errors
    /// [`VhdxError::Field`] with the first that is out of bounds.
    pub(crate) fn check(self) -> Result<Geometry, VhdxError> {
        if !self.block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&self.block_size) {
            let expected = "a power of two from 1 MiB to 256 MiB";
            return Err(self.field("BlockSize", self.block_size, expected));
        }
        for (field, size) in [
            ("LogicalSectorSize", self.logical_sector_size),
            ("PhysicalSectorSize", self.physical_sector_size),
        ] {
            if size != 512 && size != 4096 {
                return Err(self.field(field, size, "512 or 4096"));
            }
        }
        if self.virtual_size > MAX_VIRTUAL_SIZE {
            return Err(self.field("VirtualDiskSize", self.virtual_size, "at most 64 TiB"));
        }
        if !self
            .virtual_size
            .is_multiple_of(u64::from(self.logical_sector_size))
        {
            let expected = "a multiple of the logical sector size";
            return Err(self.field("VirtualDiskSize", self.virtual_size, expected));
        }
        Ok(Geometry {
            virtual_size: self.virtual_size,
            block_bits: self.block_size.trailing_zeros(),
            sector_bits: self.logical_sector_size.trailing_zeros(),
        })
    }
}

impl Geometry {
    /// The same for a disk of `virtual_size` bytes.
    ///
    /// # Errors
    /// [`VhdxError::Field`] for a size that the format does not allow.
    pub(crate) fn with_virtual_size(&self, virtual_size: u64) -> Result<Self, VhdxError> {
        let sector = 1 << self.sector_bits;
        Unchecked {
            virtual_size,
            block_size: 1 << self.block_bits,
            logical_sector_size: sector,
            physical_sector_size: sector,
            region_offset: 0,
        }
        .check()
    }

    /// Size of the virtual disk in bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Bytes in a payload block.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// Bytes in a logical sector: 512 or 4096.
    #[must_use]
    pub fn logical_sector_size(&self) -> u64 {
        1 << self.sector_bits
    }

    /// Payload blocks in a chunk.
    #[must_use]
    pub fn chunk_ratio(&self) -> u64 {
        SECTORS_PER_CHUNK << self.sector_bits >> self.block_bits
    }

    /// Payload blocks of the disk.
    #[must_use]
    pub fn payload_blocks(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_size())
    }

    /// Sector bitmap blocks of the disk, allocated or not.
    #[must_use]
    pub fn bitmap_blocks(&self) -> u64 {
        self.payload_blocks().div_ceil(self.chunk_ratio())
    }

    /// Entries that the BAT must hold: up to the last payload block, or in a differencing disk up
    /// to the last bitmap block.
    #[must_use]
    pub fn bat_entries(&self, has_parent: bool) -> u64 {
        match self.payload_blocks() {
            0 => 0,
            _ if has_parent => self.bitmap_blocks() * (self.chunk_ratio() + 1),
            blocks => self.payload_index(blocks - 1) + 1,
        }
    }

    /// The block that holds guest byte `offset`.
    #[must_use]
    pub fn block_of(&self, offset: u64) -> u64 {
        offset >> self.block_bits
    }

    /// How many bytes of payload block `block` are inside the disk: fewer than a whole block in
    /// the last one, none in those that only the table has room for.
    #[must_use]
    pub fn block_len(&self, block: u64) -> u64 {
        let left = block
            .checked_mul(self.block_size())
            .and_then(|start| self.virtual_size.checked_sub(start));
        left.unwrap_or(0).min(self.block_size())
    }

    /// The guest bytes of payload block `block`, in the last one also those beyond the disk.
    pub(crate) fn block_range(&self, block: u64) -> Range<u64> {
        let start = block * self.block_size();
        start..start + self.block_size()
    }

    /// The guest bytes of payload block `block` that are inside the disk.
    pub(crate) fn block_range_in_disk(&self, block: u64) -> Range<u64> {
        let start = block * self.block_size();
        start..start + self.block_len(block)
    }

    /// `guest`, which lies inside the disk, made whole sectors.
    pub(crate) fn sectors_around(&self, guest: &Range<u64>) -> Range<u64> {
        let sector = self.logical_sector_size();
        guest.start / sector * sector..guest.end.next_multiple_of(sector)
    }

    /// The whole sectors in `guest`; empty where there are none.
    pub(crate) fn sectors_within(&self, guest: &Range<u64>) -> Range<u64> {
        let sector = self.logical_sector_size();
        let start = guest.start.next_multiple_of(sector);
        start..(guest.end / sector * sector).max(start)
    }

    /// The chunk that payload block `block` is in.
    #[must_use]
    pub fn chunk_of(&self, block: u64) -> u64 {
        // The chunk ratio is a power of two, as all of its factors are.
        block >> self.chunk_ratio().trailing_zeros()
    }

    /// Number of the BAT entry for payload block `block`.
    #[must_use]
    pub fn payload_index(&self, block: u64) -> u64 {
        block + self.chunk_of(block)
    }

    /// Number of the BAT entry for the sector bitmap block of `chunk`.
    #[must_use]
    pub fn bitmap_index(&self, chunk: u64) -> u64 {
        (chunk + 1) * (self.chunk_ratio() + 1) - 1
    }

    /// What BAT entry number `index` is for.
    #[must_use]
    pub fn entry_at(&self, index: u64) -> BatSlot {
        let stride = self.chunk_ratio() + 1;
        let (chunk, within) = (index / stride, index % stride);
        if within == self.chunk_ratio() {
            BatSlot::Bitmap { chunk }
        } else {
            BatSlot::Payload {
                block: chunk * self.chunk_ratio() + within,
            }
        }
    }

    /// The first payload block whose entry is at number `index` or after it.
    pub(crate) fn first_block_from(&self, index: u64) -> u64 {
        match self.entry_at(index) {
            BatSlot::Payload { block } => block,
            BatSlot::Bitmap { chunk } => (chunk + 1) * self.chunk_ratio(),
        }
    }

    /// Number of the bit, in its chunk's bitmap, for the sector that holds guest byte `offset`.
    pub(crate) fn bitmap_bit(&self, offset: u64) -> u64 {
        (offset >> self.sector_bits) % SECTORS_PER_CHUNK
    }

    pub(crate) fn sector_bits(&self) -> u32 {
        self.sector_bits
    }
}

/// What a BAT entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatSlot {
    /// A payload block.
    Payload {
        /// Its number.
        block: u64,
    },
    /// The sector bitmap block of a chunk.
    Bitmap {
        /// The chunk's number.
        chunk: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchecked(virtual_size: u64, block_size: u32, sector: u32) -> Unchecked {
        Unchecked {
            virtual_size,
            block_size,
            logical_sector_size: sector,
            physical_sector_size: 4096,
            region_offset: 0,
        }
    }

    #[test]
    fn entries_interleave_one_bitmap_after_each_chunk_for_every_block_size() {
        for sector in [512, 4096] {
            for shift in 20..=28 {
                let chunk_bytes = SECTORS_PER_CHUNK * u64::from(sector);
                let size = chunk_bytes * 2 + u64::from(sector);
                let g = unchecked(size, 1 << shift, sector).check().unwrap();
                let ratio = g.chunk_ratio();
                assert_eq!(ratio << shift, chunk_bytes);
                assert_eq!(g.payload_index(0), 0);
                assert_eq!(g.payload_index(ratio - 1), ratio - 1);
                assert_eq!(g.bitmap_index(0), ratio);
                assert_eq!(g.payload_index(ratio), ratio + 1);
                assert_eq!(g.bitmap_index(1), 2 * ratio + 1);
                assert_eq!(g.payload_blocks(), 2 * ratio + 1);
                assert_eq!(g.bitmap_blocks(), 3);
                assert_eq!(g.bat_entries(false), 2 * ratio + 3);
                assert_eq!(g.bat_entries(true), 3 * (ratio + 1));
                for block in [0, 1, ratio - 1, ratio, 2 * ratio] {
                    let index = g.payload_index(block);
                    assert_eq!(g.entry_at(index), BatSlot::Payload { block });
                    assert_eq!(g.first_block_from(index), block);
                }
                assert_eq!(g.entry_at(ratio), BatSlot::Bitmap { chunk: 0 });
                assert_eq!(
                    g.first_block_from(ratio),
                    ratio,
                    "the block after the bitmap"
                );
            }
        }
    }

    #[test]
    fn bitmap_bits_are_numbered_over_the_chunk_not_the_block() {
        let g = unchecked(16 << 30, 1 << 20, 512).check().unwrap();
        assert_eq!(g.bitmap_bit(0), 0);
        assert_eq!(g.bitmap_bit(1 << 20), 2048);
        assert_eq!(g.bitmap_bit((4 << 30) - 512), SECTORS_PER_CHUNK - 1);
        assert_eq!(g.bitmap_bit(4 << 30), 0);
    }

    #[test]
    fn numbers_out_of_bounds_are_refused_each_by_name() {
        let ok = unchecked(1 << 30, 1 << 20, 512);
        ok.check().unwrap();
        unchecked(64 << 40, 256 << 20, 4096).check().unwrap();
        let cases: [(Unchecked, &str); 11] = [
            (
                Unchecked {
                    block_size: 0,
                    ..ok
                },
                "BlockSize",
            ),
            (
                Unchecked {
                    block_size: 3 << 20,
                    ..ok
                },
                "BlockSize",
            ),
            (
                Unchecked {
                    block_size: 1 << 19,
                    ..ok
                },
                "BlockSize",
            ),
            (
                Unchecked {
                    block_size: 512 << 20,
                    ..ok
                },
                "BlockSize",
            ),
            (
                Unchecked {
                    logical_sector_size: 0,
                    ..ok
                },
                "LogicalSectorSize",
            ),
            (
                Unchecked {
                    logical_sector_size: 1024,
                    ..ok
                },
                "LogicalSectorSize",
            ),
            (
                Unchecked {
                    physical_sector_size: u32::MAX,
                    ..ok
                },
                "PhysicalSectorSize",
            ),
            (
                Unchecked {
                    virtual_size: (64 << 40) + 512,
                    ..ok
                },
                "VirtualDiskSize",
            ),
            (
                Unchecked {
                    virtual_size: ((1 << 32) + 25) << 20,
                    ..ok
                },
                "VirtualDiskSize",
            ),
            (
                Unchecked {
                    virtual_size: u64::MAX,
                    ..ok
                },
                "VirtualDiskSize",
            ),
            (
                Unchecked {
                    virtual_size: 513,
                    ..ok
                },
                "VirtualDiskSize",
            ),
        ];
        for (case, name) in cases {
            match case.check() {
                Err(VhdxError::Field { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
