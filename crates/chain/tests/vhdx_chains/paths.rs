//! Where a child's parent is looked for.

use std::path::{Path, PathBuf};

use blockdev_chain::{Chain, ChainBuilder, FoundBy, Top};
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{BlockDevice, ErrorKind, FileOptions, FileStorage, NameKind, Result};
use testkit::counting::CountingOpener;
use testkit::vhdx_builder::{BlockContent, BlockData, ParentLocator, VhdxBuilder, ids};

use crate::shapes::full_base;
use crate::support::{DRIVERS, MIB, open, open_with, save};

fn base() -> VhdxBuilder {
    full_base(VhdxBuilder::new(2 * MIB))
}

fn child(locator: ParentLocator) -> VhdxBuilder {
    VhdxBuilder::new(2 * MIB)
        .data_write_guid(vhdx_format::Uuid::from_u128(7))
        .differencing(locator.linkage(ids::DEFAULT_DATA_WRITE))
}

fn open_any(path: &Path) -> Result<Chain> {
    open_with(path, &ChainBuilder::new(DRIVERS).policy(ChainPolicy::Any))
}

/// The parent's path and the sort of name that led there.
fn found(chain: &Chain) -> (PathBuf, NameKind) {
    let parent = chain.links().nth(1).expect("a parent");
    let FoundBy::Name(name) = parent.found else {
        panic!("not found by name: {:?}", parent.found)
    };
    let path = std::fs::canonicalize(parent.path.unwrap()).unwrap();
    (path, name.kind)
}

#[test]
fn a_stale_relative_path_gives_way_to_the_right_absolute_one() {
    let dir = tempfile::tempdir().unwrap();
    let moved = dir.path().join("moved");
    std::fs::create_dir(&moved).unwrap();
    let parent = save(&moved, "base.vhdx", &base());
    let slashes = parent.to_str().unwrap().to_string();
    for absolute in [
        slashes.clone(),
        slashes.replace('/', r"\"),
        format!(r"\\?\{slashes}"),
    ] {
        // In the file the absolute path stands first: the order is the specification's all the same.
        let locator = ParentLocator::new()
            .absolute_win32_path(&absolute)
            .volume_path(r"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx")
            .relative_path(r".\gone.vhdx");
        let path = save(dir.path(), "child.vhdx", &child(locator));
        let chain = open_any(&path).unwrap_or_else(|e| panic!("{absolute}: {e}"));
        assert_eq!(
            found(&chain),
            (std::fs::canonicalize(&parent).unwrap(), NameKind::Absolute)
        );
    }
}

#[test]
fn a_relative_path_to_another_image_gives_way_to_the_absolute_one_of_the_right_content() {
    let dir = tempfile::tempdir().unwrap();
    let right = save(dir.path(), "right.vhdx", &base());
    let stranger = base().data_write_guid(vhdx_format::Uuid::from_u128(99));
    save(dir.path(), "stale.vhdx", &stranger);
    let locator = ParentLocator::new()
        .relative_path("stale.vhdx")
        .absolute_win32_path(right.to_str().unwrap());
    let path = save(dir.path(), "child.vhdx", &child(locator));
    let chain = open_any(&path).unwrap();
    assert_eq!(found(&chain).1, NameKind::Absolute);
}

#[test]
fn the_relative_path_is_tried_first() {
    let dir = tempfile::tempdir().unwrap();
    let near = save(dir.path(), "near.vhdx", &base());
    let far = save(dir.path(), "far.vhdx", &base());
    let locator = ParentLocator::new()
        .absolute_win32_path(far.to_str().unwrap())
        .relative_path("near.vhdx");
    let path = save(dir.path(), "child.vhdx", &child(locator));
    let near = std::fs::canonicalize(near).unwrap();
    assert_eq!(found(&open_any(&path).unwrap()), (near, NameKind::Relative));
}

#[test]
fn either_slash_leads_down_and_only_a_trusting_policy_goes_up() {
    let dir = tempfile::tempdir().unwrap();
    let (images, sub) = (dir.path().join("images"), dir.path().join("images/sub"));
    std::fs::create_dir_all(&sub).unwrap();
    save(&sub, "base.vhdx", &base());
    save(dir.path(), "base.vhdx", &base());
    for down in [
        r".\sub\base.vhdx",
        "./sub/base.vhdx",
        r"sub\base.vhdx",
        "sub/base.vhdx",
    ] {
        let image = child(ParentLocator::new().relative_path(down));
        let path = save(&images, "child.vhdx", &image);
        assert_eq!(open(&path).unwrap().layer_count(), 2, "{down}");
    }
    for up in [r"..\base.vhdx", "../base.vhdx", r"sub\..\..\base.vhdx"] {
        let image = child(ParentLocator::new().relative_path(up));
        let path = save(&images, "child.vhdx", &image);
        assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::Policy, "{up}");
        assert_eq!(open_any(&path).unwrap().layer_count(), 2, "{up}");
    }
}

#[test]
fn each_images_names_start_from_its_own_directory() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("a/b");
    std::fs::create_dir_all(&sub).unwrap();
    let base = base();
    save(&sub, "base.vhdx", &base);
    // A decoy of the same linkage where the top's directory would lead.
    let decoy = base
        .clone()
        .block(0, BlockContent::full(BlockData::Byte(0xEE)));
    save(dir.path(), "base.vhdx", &decoy);
    let middle = VhdxBuilder::child_of(&base, "base.vhdx");
    save(&sub, "middle.vhdx", &middle);
    let top = VhdxBuilder::child_of(&middle, r"a\b\middle.vhdx");
    let path = save(dir.path(), "top.vhdx", &top);
    let chain = open(&path).unwrap();
    let bottom = chain.links().nth(2).unwrap().path.unwrap().to_path_buf();
    assert_eq!(bottom, sub.join("base.vhdx"));
    let mut byte = [0; 8];
    chain.read_at(&mut byte, 0).unwrap();
    assert_ne!(byte, [0xEE; 8]);
}

#[test]
fn the_current_directory_is_no_place_to_look_for_a_parent() {
    // Tests run in the package's directory, where this file is.
    let decoy = "Cargo.toml";
    assert!(Path::new(decoy).is_file());
    let dir = tempfile::tempdir().unwrap();
    let image = child(ParentLocator::new().relative_path(decoy));
    let path = save(dir.path(), "child.vhdx", &image);
    for policy in [
        ChainPolicy::Any,
        ChainPolicy::Beneath(dir.path().to_path_buf()),
    ] {
        let opener = CountingOpener::new();
        let builder = ChainBuilder::new(DRIVERS).policy(policy).opener(&*opener);
        let refused = open_with(&path, &builder).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsParent);
        assert_eq!(opener.opens(decoy), 0);
        assert_eq!(opener.total(), 1, "{:?}", opener.attempts());
    }
    // Nor when the image has no place of its own.
    let file = FileStorage::open(&path, FileOptions::read_only()).unwrap();
    let opener = CountingOpener::new();
    let builder = ChainBuilder::new(DRIVERS)
        .policy(ChainPolicy::Any)
        .opener(&*opener);
    let top = Top::storage(std::sync::Arc::new(file), "vhdx");
    let refused = builder.build(top).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsParent);
    assert_eq!(opener.total(), 0);
}

#[test]
fn a_locator_without_any_path_still_says_that_a_parent_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), "child.vhdx", &child(ParentLocator::new()));
    let refused = open_any(&path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsParent);
    let alone = open_with(&path, &ChainBuilder::new(DRIVERS)).unwrap();
    assert!(alone.is_detached());
}

#[test]
fn names_that_mean_something_to_others_are_files_here_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "nbd:localhost:10809",
        "json:{\"driver\":\"file\"}",
        "http://example.org/base.vhdx",
        "fd:0",
        "base\u{0}.vhdx",
        "a\nb",
    ] {
        let image = child(ParentLocator::new().relative_path(name));
        let path = save(dir.path(), "child.vhdx", &image);
        let opener = CountingOpener::new();
        let policy = ChainPolicy::Beneath(dir.path().to_path_buf());
        let builder = ChainBuilder::new(DRIVERS).policy(policy).opener(&*opener);
        let refused = open_with(&path, &builder).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsParent, "{name:?}");
        let text = refused.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
