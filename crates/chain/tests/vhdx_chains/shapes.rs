//! Images whose blocks are in every state, so that a chain of them has every mixture.

use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

/// Blocks that a disk of [`mixed`] images has.
pub(crate) const BLOCKS: u64 = 9;

/// Sector runs that start and end inside a byte of the bitmap, at its start and at its end.
pub(crate) fn ragged(sectors_per_block: u64, seed: u64) -> Vec<u64> {
    let last = sectors_per_block;
    let runs = [
        0..1 + seed % 3,
        5 + seed % 2..13,
        63..64,
        100 + seed % 7..120,
        last / 2..last / 2 + 17,
        last - 3..last,
    ];
    runs.into_iter().flatten().collect()
}

/// The content that block `block` has in the image with `seed`; `None` for nothing said.
fn state(sectors_per_block: u64, block: u64, seed: u64) -> Option<BlockContent> {
    let data = || BlockData::Pattern(seed << 8 | block);
    let partial = || BlockContent::partial(data(), ragged(sectors_per_block, seed + block));
    Some(match (block + seed) % 7 {
        0 => partial(),
        1 => return None,
        2 => BlockContent::Zero,
        3 => partial(),
        4 => BlockContent::Unmapped { kept: Some(data()) },
        5 => BlockContent::NotPresent,
        _ => BlockContent::full(data()),
    })
}

/// `image`, which has no parent, with its blocks in states that depend on `seed`.
pub(crate) fn mixed_alone(mut image: VhdxBuilder, seed: u64) -> VhdxBuilder {
    let geometry = image.geometry();
    for block in 0..geometry.payload_blocks() {
        image = match state(geometry.sectors_per_block(), block, seed) {
            // Such a block has a meaning in a child only.
            Some(BlockContent::PartiallyPresent { data, .. }) => {
                image.block(block, BlockContent::full(data))
            }
            Some(content) => image.block(block, content),
            None => image,
        };
    }
    image
}

/// `image`, a child, with its blocks in states that depend on `seed`.
pub(crate) fn mixed(mut image: VhdxBuilder, seed: u64) -> VhdxBuilder {
    let geometry = image.geometry();
    for block in 0..geometry.payload_blocks() {
        if let Some(content) = state(geometry.sectors_per_block(), block, seed) {
            image = image.block(block, content);
        }
    }
    image
}

/// A base in which every block is full.
pub(crate) fn full_base(image: VhdxBuilder) -> VhdxBuilder {
    let blocks = image.geometry().payload_blocks();
    (0..blocks).fold(image, |image, block| {
        image.block(block, BlockContent::full(BlockData::Pattern(900 + block)))
    })
}
