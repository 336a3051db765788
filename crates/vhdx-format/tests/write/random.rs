//! Images of random shape, and guests that do anything to them.

use std::sync::Arc;

use blockdev_core::Caps;
use testkit::Rng;
use testkit::crash::{Control, Image, Scenario};
use testkit::model::{Abilities, Op, Ops, Shape, Weights};
use testkit::vhdx_builder::{BlockContent, BlockData, PendingLog, Placement, VhdxBuilder};
use vhdx_format::Uuid;

use crate::stories::Story;
use crate::subject::{MIB, Vhdx, child, content, disk_of};

/// Writes and reads of a story are cut to so many bytes: what is crashed into a thousand times is
/// better small.
const STORY_BYTES: u64 = 24 << 10;

/// Sectors of a block that are present: runs that begin and end anywhere in a byte of the bitmap.
fn ragged(rng: &mut Rng, per_block: u64) -> Vec<u64> {
    let mut present = Vec::new();
    let mut at = rng.below(40);
    while at < per_block {
        let run = if rng.one_in(6) {
            rng.below(per_block)
        } else {
            1 + rng.below(30)
        };
        present.extend(at..(at + run).min(per_block));
        at += run + 1 + rng.below(per_block / 4);
    }
    present
}

fn random_block(rng: &mut Rng, per_block: u64, has_parent: bool, block: u64) -> BlockContent {
    let data = BlockData::Pattern(900 + block);
    let old = |rng: &mut Rng, data| if rng.one_in(2) { Some(data) } else { None };
    match rng.below(9) {
        0 | 1 if has_parent => BlockContent::partial(data, ragged(rng, per_block)),
        0..=3 => BlockContent::full(data),
        4 => BlockContent::Zero,
        5 => BlockContent::Unmapped {
            kept: old(rng, data),
        },
        6 => BlockContent::Undefined {
            kept: old(rng, data),
        },
        _ => BlockContent::NotPresent,
    }
}

/// The shape that `seed` decides: of every type, sector and (if `large` ones will do) block size, with
/// blocks in every state, entries still in the log, bits that mean nothing any more.
pub(crate) fn shape(seed: u64, large: bool) -> Shape<Vhdx> {
    let mut rng = Rng::new(seed ^ 0x5AD1);
    let sector: u32 = if rng.one_in(4) { 4096 } else { 512 };
    let block_size: u32 = if large {
        *rng.pick(&[1 << 20, 1 << 20, 2 << 20, 4 << 20])
    } else {
        *rng.pick(&[1 << 20, 1 << 20, 1 << 20, 2 << 20])
    };
    let most = if large { 12 * MIB } else { 4 * MIB };
    let sectors = (u64::from(block_size) + rng.below(most)) / u64::from(sector);
    let size = sectors * u64::from(sector);
    let kind = rng.below(5);
    let has_parent = kind >= 2;
    let parent = VhdxBuilder::new(size)
        .logical_sector_size(sector)
        .physical_sector_size(4096);
    let mut builder = if has_parent {
        VhdxBuilder::child_of(&parent, "parent.vhdx")
    } else {
        parent
    };
    builder = builder
        .block_size(block_size)
        .log_length_mib(1 + u32::try_from(rng.below(3)).unwrap());
    let geometry = builder.geometry();
    let per_block = geometry.sectors_per_block();
    let mut dirty = false;
    if kind == 0 {
        builder = builder.fixed();
    } else {
        for block in 0..geometry.payload_blocks() {
            let there = random_block(&mut rng, per_block, has_parent, block);
            builder = builder.block(block, there);
            if has_parent && rng.one_in(4) {
                builder = builder.stale_bitmap(block, *rng.pick(&[0xFF, 0x5A]));
            }
        }
        if rng.one_in(4) {
            let block = rng.below(geometry.payload_blocks());
            let there = random_block(&mut rng, per_block, has_parent, block + 50);
            builder = builder.pending_block(block, there).pending_log(PendingLog {
                start: 4096 * u32::try_from(rng.below(256)).unwrap(),
                ..PendingLog::default()
            });
            dirty = !builder.pending_log_entries().is_empty();
            if !dirty {
                // What was to come is what is there already.
                builder = builder.log_guid(Uuid::nil());
            }
        }
        builder = builder.placement(*rng.pick(&[
            Placement::Sequential,
            Placement::Reverse,
            Placement::Gaps(1),
        ]));
    }
    let base = if has_parent {
        let kib = usize::try_from(size >> 10).unwrap();
        content(kib / 2 + rng.index(kib))
    } else {
        Vec::new()
    };
    let image = Image::from(builder.build().to_vec());
    let caps = Caps {
        write: true,
        write_zeroes: true,
        discard: true,
    };
    let kinds = ["fixed", "dynamic", "child", "child", "child"];
    Shape {
        name: format!(
            "{}{}, {size} bytes, blocks of {block_size}, sectors of {sector}",
            kinds[usize::try_from(kind).unwrap()],
            if dirty { ", dirty" } else { "" },
        ),
        content: disk_of(&builder, &base).to_vec(),
        abilities: Abilities {
            sizes: vec![
                size,
                size / 8192 * 4096 + 4096,
                (sectors + 300) * u64::from(sector),
            ],
            ..Abilities::of(caps, block_size.into())
        },
        subject: Vhdx::of(&image, base),
        image: image.to_vec(),
        beside: Vec::new(),
        by_qemu: !has_parent && sector == 512,
    }
}

/// What a guest of random habits does to an image of random shape in `steps` steps.
pub(crate) fn story(seed: u64, steps: usize) -> Story {
    let shape = shape(seed, false);
    let (abilities, size) = (shape.abilities, shape.content.len() as u64);
    let name = format!("random {seed}: {}", shape.name);
    let script = Scenario::new(name, shape.image, move |driver| {
        let ops = Ops::new(seed, size, abilities.clone(), Weights::default());
        ops.take(steps).enumerate().try_for_each(|(step, op)| {
            if seed.is_multiple_of(4) && step == steps / 2 {
                driver.control(Control::Other("compact"))?;
            }
            driver.apply(match op {
                Op::Write { offset, len } => Op::Write {
                    offset,
                    len: len.min(STORY_BYTES),
                },
                Op::Read { offset, len } => Op::Read {
                    offset,
                    len: len.min(STORY_BYTES),
                },
                other => other,
            })
        })
    });
    let subject = shape.subject;
    (subject, script.content(shape.content))
}

/// A base as large as a disk, and half of it again.
pub(crate) fn base_of(size: u64) -> Arc<Vec<u8>> {
    Arc::new(content(usize::try_from((size * 3 / 2) >> 10).unwrap()))
}

/// An empty child of `size` bytes.
pub(crate) fn empty_child(size: u64, block_size: u32, sector: u32) -> VhdxBuilder {
    child(size)
        .block_size(block_size)
        .logical_sector_size(sector)
}
