//! What a reader has to find, told from what was asked for and never from the bytes built.

use super::block::{BlockContent, BlockData};
use super::builder::VhdxBuilder;
use super::bytes::to_index;

/// What an image alone says about one sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectorTruth {
    /// The image holds these bytes.
    Own(Vec<u8>),
    /// Zeros, whatever a parent holds.
    Zero,
    /// Only the parent can tell.
    FromParent,
}

impl VhdxBuilder {
    /// What the image says about sector `lba` after its log is replayed.
    ///
    /// Where [MS-VHDX] §2.5.1.1 leaves a choice, the model takes zeros: for unmapped and
    /// undefined blocks, and for blocks not present in an image without a parent. QEMU 10.0 reads
    /// the same. Sectors past the end of the disk are zeros too, as a child sees them. Entries
    /// set by [`raw_bat`](Self::raw_bat) and [`log_entry`](Self::log_entry) are not known here.
    pub fn expected_sector(&self, lba: u64) -> SectorTruth {
        self.sector_truth(lba, true)
    }

    /// The same before the log is replayed.
    pub fn in_place_sector(&self, lba: u64) -> SectorTruth {
        self.sector_truth(lba, false)
    }

    fn sector_truth(&self, lba: u64, replayed: bool) -> SectorTruth {
        let geometry = self.geometry();
        if lba >= geometry.sectors() {
            return SectorTruth::Zero;
        }
        let per_block = geometry.sectors_per_block().max(1);
        let (block, sector) = (lba / per_block, lba % per_block);
        let own = |data: &BlockData| {
            let start = sector * geometry.sector_size;
            let range = start..start + geometry.sector_size;
            SectorTruth::Own(data.render(block * geometry.block_size, range))
        };
        match self.content(block, replayed) {
            Some(BlockContent::FullyPresent(data)) => own(data),
            Some(BlockContent::PartiallyPresent { data, present }) if present.contains(&sector) => {
                own(data)
            }
            None | Some(BlockContent::NotPresent | BlockContent::PartiallyPresent { .. })
                if self.has_parent =>
            {
                SectorTruth::FromParent
            }
            _ => SectorTruth::Zero,
        }
    }

    /// What was asked for `block`, before or after the log is replayed.
    pub(super) fn content(&self, block: u64, replayed: bool) -> Option<&BlockContent> {
        let pending = if replayed {
            self.pending.get(&block)
        } else {
            None
        };
        pending.or_else(|| self.blocks.get(&block))
    }
}

/// Sector `lba` of a chain, the top image first, by asking one image after the other.
///
/// Past the end of a shorter parent, and below the last image, there are zeros.
pub fn chain_sector(chain: &[&VhdxBuilder], lba: u64) -> Vec<u8> {
    let sector_size = chain.first().map_or(512, |top| top.geometry().sector_size);
    for image in chain {
        match image.expected_sector(lba) {
            SectorTruth::Own(bytes) => return bytes,
            SectorTruth::Zero => break,
            SectorTruth::FromParent => {}
        }
    }
    vec![0; to_index(sector_size)]
}

/// The whole disk that `chain`, the top image first, shows. Meant for small disks.
pub fn chain_disk(chain: &[&VhdxBuilder]) -> Vec<u8> {
    let sectors = chain.first().map_or(0, |top| top.geometry().sectors());
    (0..sectors)
        .flat_map(|lba| chain_sector(chain, lba))
        .collect()
}
