//! What a chain reads, sector by sector.

use blockdev_chain::ChainBuilder;
use blockdev_core::BlockDevice;
use testkit::conformance::{Content, Model, detached, readable, readable_at, refuses_changes};
use testkit::vhdx_builder::{
    BlockContent, BlockData, SectorTruth, VhdxBuilder, chain_disk, chain_sector,
};

use crate::shapes::{BLOCKS, full_base, mixed, mixed_alone, ragged};
use crate::support::{DRIVERS, MIB, open, open_with, save, save_all};

/// The chain in files, read through every conformance check against the model.
fn conforms(images: &[&VhdxBuilder]) {
    let dir = tempfile::tempdir().unwrap();
    let paths = save_all(dir.path(), images);
    let chain = open(&paths[0]).unwrap();
    assert_eq!(chain.layer_count(), images.len());
    assert!(!chain.is_detached());
    readable(&chain, &chain_disk(images));
    refuses_changes(&chain);
}

/// `depth` images, the top first, each over the next; the bottom's blocks are all full.
fn deep(depth: usize, base: VhdxBuilder) -> Vec<VhdxBuilder> {
    let mut images = vec![full_base(base)];
    while images.len() < depth {
        let parent = format!("layer-{}.vhdx", depth - images.len());
        let child = VhdxBuilder::child_of(images.last().unwrap(), &parent).block_size(1 << 20);
        images.push(mixed(child, images.len() as u64));
    }
    images.reverse();
    images
}

fn conforms_at_depth(depth: usize, base: VhdxBuilder) {
    let images = deep(depth, base);
    conforms(&images.iter().collect::<Vec<_>>());
}

#[test]
fn an_image_without_parent_reads_as_the_model_says() {
    conforms(&[&mixed_alone(VhdxBuilder::new(BLOCKS * MIB), 3)]);
}

#[test]
fn a_child_hides_and_shows_exactly_the_sectors_its_bitmap_says() {
    conforms_at_depth(2, VhdxBuilder::new(BLOCKS * MIB));
}

#[test]
fn sixteen_layers_of_every_state_read_as_the_model_says() {
    conforms_at_depth(16, VhdxBuilder::new(BLOCKS * MIB));
}

#[test]
fn bitmap_bits_stand_for_4096_byte_sectors_where_the_disk_has_them() {
    let base = || {
        VhdxBuilder::new(BLOCKS * MIB)
            .logical_sector_size(4096)
            .physical_sector_size(4096)
    };
    conforms_at_depth(2, base());
    conforms_at_depth(5, base());
}

#[test]
fn a_disk_that_ends_inside_a_block_is_read_to_its_last_sector() {
    conforms_at_depth(3, VhdxBuilder::new(BLOCKS * MIB - 3 * 512));
}

#[test]
fn layers_of_three_block_sizes_are_one_disk() {
    let base = full_base(VhdxBuilder::new(12 * MIB).block_size(4 << 20));
    let middle = mixed(
        VhdxBuilder::child_of(&base, "layer-2.vhdx").block_size(1 << 20),
        2,
    );
    let top = mixed(
        VhdxBuilder::child_of(&middle, "layer-1.vhdx").block_size(2 << 20),
        5,
    );
    conforms(&[&top, &middle, &base]);
}

#[test]
fn past_the_end_of_a_shorter_parent_there_are_zeros_and_never_a_grandparents_bytes() {
    let base = full_base(VhdxBuilder::new(8 * MIB));
    let middle = VhdxBuilder::child_of(&base, "layer-2.vhdx").virtual_size(3 * MIB + 512);
    let top = VhdxBuilder::child_of(&middle, "layer-1.vhdx")
        .virtual_size(6 * MIB)
        .block(
            3,
            BlockContent::partial(BlockData::Pattern(7), ragged(2048, 0)),
        );
    let images = [&top, &middle, &base];
    let disk = chain_disk(&images);
    assert!(
        disk[4 << 20..].iter().all(|byte| *byte == 0),
        "the model agrees"
    );
    conforms(&images);
}

#[test]
fn what_a_longer_parent_has_past_the_childs_end_is_not_part_of_the_disk() {
    let base = full_base(VhdxBuilder::new(8 * MIB));
    let top = VhdxBuilder::child_of(&base, "layer-1.vhdx")
        .virtual_size(3 * MIB + 1024)
        .block(0, BlockContent::Zero);
    conforms(&[&top, &base]);
}

#[test]
fn zero_unmapped_and_undefined_blocks_of_a_child_hide_the_parents_bytes() {
    let kept = || Some(BlockData::Byte(0x77));
    let base = full_base(VhdxBuilder::new(6 * MIB));
    let top = VhdxBuilder::child_of(&base, "layer-1.vhdx")
        .block(0, BlockContent::Zero)
        .block(1, BlockContent::Unmapped { kept: kept() })
        .block(2, BlockContent::Unmapped { kept: None })
        .block(3, BlockContent::Undefined { kept: kept() })
        .block(4, BlockContent::Undefined { kept: None });
    let images = [&top, &base];
    let disk = chain_disk(&images);
    assert!(disk[..5 << 20].iter().all(|byte| *byte == 0));
    assert!(disk[5 << 20..].iter().any(|byte| *byte != 0));
    conforms(&images);
}

#[test]
fn bits_left_over_from_another_state_are_not_looked_at() {
    let base = full_base(VhdxBuilder::new(4 * MIB));
    // A full block whose bits all say "parent", a block not present whose bits all say "here".
    let top = VhdxBuilder::child_of(&base, "layer-1.vhdx")
        .block(0, BlockContent::full(BlockData::Pattern(5)))
        .stale_bitmap(0, 0x00)
        .stale_bitmap(1, 0xFF)
        .block(2, BlockContent::Zero)
        .stale_bitmap(2, 0xA5)
        .block(
            3,
            BlockContent::partial(BlockData::Pattern(6), ragged(2048, 1)),
        );
    conforms(&[&top, &base]);
}

/// A chain of more than one chunk whose blocks around the chunk border are partial.
fn across_chunks(block_size: u32, sector: u32) -> (VhdxBuilder, VhdxBuilder, u64) {
    let chunk = u64::from(sector) << 23;
    let block = u64::from(block_size);
    let size = chunk + 8 * block;
    let base = VhdxBuilder::new(size)
        .block_size(block_size)
        .logical_sector_size(sector)
        .physical_sector_size(sector);
    let first = chunk / block;
    let per_block = base.geometry().sectors_per_block();
    let full = |seed| BlockContent::full(BlockData::Pattern(seed));
    let base = base
        .block(first - 2, full(1))
        .block(first - 1, full(2))
        .block(first, full(3))
        .block(first + 1, full(4));
    // The last sectors before the border, inside a byte, and the first after it: one run of sectors
    // over two blocks, two chunks and two bitmap blocks.
    let runs = |range: std::ops::Range<u64>| BlockContent::partial(BlockData::Pattern(9), range);
    let top = VhdxBuilder::child_of(&base, "layer-1.vhdx")
        .block_size(block_size)
        .block(first - 1, runs(per_block - 11..per_block))
        .block(first, runs(0..13))
        .block(first + 1, runs(3..4));
    (top, base, chunk)
}

fn conforms_across_chunks(block_size: u32, sector: u32) {
    let (top, base, border) = across_chunks(block_size, sector);
    let dir = tempfile::tempdir().unwrap();
    let images = [&top, &base];
    let chain = open(&save_all(dir.path(), &images)[0]).unwrap();
    let sector = u64::from(sector);
    let model = Model::new(chain.size(), |buf: &mut [u8], offset: u64| {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let bytes = chain_sector(&images, at / sector);
            let within = usize::try_from(at % sector).unwrap();
            let len = (bytes.len() - within).min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&bytes[within..within + len]);
            done += len;
        }
    });
    assert!(model.size() > 4 << 30);
    let around = [
        border - 11 * sector,
        border + 13 * sector,
        border + u64::from(block_size) + 3 * sector,
    ];
    readable_at(&chain, &model, &around);
}

#[test]
fn a_run_of_sectors_over_a_chunk_border_is_found_in_both_bitmap_blocks() {
    conforms_across_chunks(1 << 20, 512);
    conforms_across_chunks(8 << 20, 512);
    conforms_across_chunks(2 << 20, 4096);
}

#[test]
fn a_detached_child_never_gives_zeros_for_what_its_parent_holds() {
    let base = full_base(VhdxBuilder::new(BLOCKS * MIB));
    let top = mixed(VhdxBuilder::child_of(&base, "layer-1.vhdx"), 2);
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "top.vhdx", &top);
    let builder = ChainBuilder::new(DRIVERS);
    let chain = open_with(&path, &builder).unwrap();
    assert!(chain.is_detached());
    let absent = detached(&chain);
    let in_parent = (0..top.geometry().sectors())
        .filter(|lba| top.expected_sector(*lba) == SectorTruth::FromParent)
        .count() as u64;
    assert_eq!(absent, in_parent * 512);
}
