//! Chains of which a member was not closed cleanly.

use std::path::PathBuf;

use blockdev_chain::ChainBuilder;
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{ErrorKind, OpenOptions, Recovery};
use testkit::conformance::readable;
use testkit::corpus::sha256_file;
use testkit::vhdx_builder::{BlockContent, BlockData, PendingLog, VhdxBuilder, chain_disk};

use crate::shapes::{BLOCKS, full_base, mixed, ragged};
use crate::support::{DRIVERS, MIB, open, open_with, save_all};

fn parent(dirty: bool) -> VhdxBuilder {
    let base = full_base(VhdxBuilder::new(BLOCKS * MIB));
    if !dirty {
        return base;
    }
    // The newest block is known to the log only, and the log wraps inside an entry.
    base.pending_block(4, BlockContent::full(BlockData::Pattern(444)))
        .pending_log(PendingLog {
            start: (1 << 20) - 4096,
            ..PendingLog::default()
        })
}

fn child(parent: &VhdxBuilder, dirty: bool) -> VhdxBuilder {
    let child = mixed(VhdxBuilder::child_of(parent, "layer-1.vhdx"), 3);
    if !dirty {
        return child;
    }
    // Both the block's entry and its bits are in the log: the file says "not present".
    let bits = ragged(2048, 2);
    child
        .block(4, BlockContent::NotPresent)
        .pending_block(4, BlockContent::partial(BlockData::Pattern(44), bits))
        .pending_block(1, BlockContent::Zero)
}

fn saved(dir: &std::path::Path, images: &[&VhdxBuilder]) -> (Vec<PathBuf>, Vec<String>) {
    let paths = save_all(dir, images);
    let hashes = paths.iter().map(|path| sha256_file(path)).collect();
    (paths, hashes)
}

#[test]
fn logs_of_parent_and_child_are_replayed_in_memory_and_no_file_changes() {
    for (child_dirty, parent_dirty) in [(true, false), (false, true), (true, true)] {
        let base = parent(parent_dirty);
        let top = child(&base, child_dirty);
        let dir = tempfile::tempdir().unwrap();
        let (paths, before) = saved(dir.path(), &[&top, &base]);
        let chain = open(&paths[0]).unwrap();
        readable(&chain, &chain_disk(&[&top, &base]));
        drop(chain);
        let after: Vec<String> = paths.iter().map(|path| sha256_file(path)).collect();
        assert_eq!(after, before);
    }
}

#[test]
fn a_caller_who_wants_no_recovery_is_told_which_image_needs_it() {
    let base = parent(true);
    let top = child(&base, false);
    let dir = tempfile::tempdir().unwrap();
    let (paths, _) = saved(dir.path(), &[&top, &base]);
    let builder = ChainBuilder::new(DRIVERS)
        .policy(ChainPolicy::Beneath(dir.path().to_path_buf()))
        .options(OpenOptions::read_only().with_recovery(Recovery::Refuse));
    let refused = open_with(&paths[0], &builder).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsRecovery);
    assert!(refused.to_string().contains("layer-1.vhdx"), "{refused}");
}
