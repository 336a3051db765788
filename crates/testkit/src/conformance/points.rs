//! Where a device is likely to be wrong: borders of sectors, blocks, chunks and the disk.

use blockdev_core::DeviceInfo;

/// Lengths at which loops over sectors and pages go wrong.
pub(super) const LENGTHS: [u64; 9] = [0, 1, 511, 512, 513, 4095, 4096, 65_537, 1 << 20];

/// No single request of a conformance run is longer.
pub(super) const LARGEST: u64 = 8 << 20;

/// Offsets inside or right at the end of the disk, ascending, each once.
pub(super) fn offsets(info: &DeviceInfo, extra: &[u64]) -> Vec<u64> {
    let mut borders = vec![0, 512, 4096, 64 << 10, 1 << 20, info.size];
    if let Some(block) = info.block_size.map(u64::from) {
        let blocks = info.size / block;
        borders.extend([1, 2, 3, blocks / 2, blocks.saturating_sub(1), blocks].map(|n| n * block));
        // One sector-bitmap block of a VHDX describes 2^23 sectors: the chunk's border.
        let chunk = u64::from(info.logical_sector_size) << 23;
        borders.extend([chunk, info.size / chunk * chunk]);
    }
    borders.extend_from_slice(extra);
    let mut points: Vec<u64> = borders
        .into_iter()
        .flat_map(|border| {
            [-513, -512, -511, -1, 0, 1, 7, 511, 512].map(|by| border.checked_add_signed(by))
        })
        .flatten()
        .filter(|&at| at <= info.size)
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// The lengths to ask for, with those that cross a whole block.
pub(super) fn lengths(info: &DeviceInfo) -> Vec<u64> {
    let mut lengths = LENGTHS.to_vec();
    if let Some(block) = info.block_size.map(u64::from)
        && block < LARGEST
    {
        lengths.extend([block - 1, block, block + 1]);
    }
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}
