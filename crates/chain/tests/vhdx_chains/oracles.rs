//! Chains as other people's readers see them, where they are right: libvhdi replays no logs, reads
//! ZERO blocks of a child from its parent and wants one block size; 7-Zip wants matching names.

use testkit::corpus::sha256_virtual;
use testkit::oracle::{Libvhdi, SevenZip};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

use crate::shapes::{full_base, ragged};
use crate::support::{MIB, open, save_all};

/// A chain of full, partial and absent blocks only, the top first.
fn plain(depth: usize, sector: u32) -> Vec<VhdxBuilder> {
    let base = VhdxBuilder::new(8 * MIB)
        .logical_sector_size(sector)
        .physical_sector_size(4096);
    let mut images = vec![full_base(base)];
    while images.len() < depth {
        let name = format!("layer-{}.vhdx", depth - images.len());
        let seed = images.len() as u64;
        let child = VhdxBuilder::child_of(images.last().unwrap(), &name);
        let per_block = child.geometry().sectors_per_block();
        let partial = |n: u64| {
            BlockContent::partial(
                BlockData::Pattern(seed << 8 | n),
                ragged(per_block, n + seed),
            )
        };
        let child = child
            .block(seed % 8, partial(1))
            .block((seed + 1) % 8, BlockContent::full(BlockData::Pattern(seed)))
            .block((seed + 5) % 8, partial(2));
        images.push(child);
    }
    images.reverse();
    images
}

#[test]
fn libvhdi_reads_the_same_from_chains_of_one_block_size() {
    let Some(vhdi) = Libvhdi::find() else { return };
    for (depth, sector) in [(1, 512), (2, 512), (3, 512), (2, 4096)] {
        let images = plain(depth, sector);
        let dir = tempfile::tempdir().unwrap();
        let paths = save_all(dir.path(), &images.iter().collect::<Vec<_>>());
        let ours = sha256_virtual(&open(&paths[0]).unwrap()).unwrap();
        let paths: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
        let theirs = vhdi.sha256(&paths).unwrap();
        assert_eq!(
            (8 * MIB, ours),
            theirs,
            "{depth} layers of {sector}-byte sectors"
        );
    }
}

#[test]
fn seven_zip_reads_the_same_from_a_child_and_its_parent() {
    let Some(zip) = SevenZip::find() else { return };
    let images = plain(2, 512);
    let dir = tempfile::tempdir().unwrap();
    let paths = save_all(dir.path(), &images.iter().collect::<Vec<_>>());
    let ours = sha256_virtual(&open(&paths[0]).unwrap()).unwrap();
    let raw = dir.path().join("raw");
    zip.to_raw(&paths[0], &raw).unwrap();
    assert_eq!(testkit::corpus::sha256_file(&raw), ours);
}
