//! Is the parent the one the child was made from ([MS-VHDX] §2.6.2.6.3)?

use blockdev_chain::{Chain, ChainBuilder};
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{ErrorKind, Result};
use testkit::vhdx_builder::{ParentLocator, VhdxBuilder, ids};
use vhdx_format::Uuid;

use crate::shapes::full_base;
use crate::support::{DRIVERS, MIB, open_with, save};

const OTHER: Uuid = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);

/// A parent with `data_write_guid` under a child with `locator`.
fn open(data_write_guid: Uuid, locator: ParentLocator, verify: bool) -> Result<Chain> {
    let dir = tempfile::tempdir().unwrap();
    let base = full_base(VhdxBuilder::new(2 * MIB).data_write_guid(data_write_guid));
    save(dir.path(), "base.vhdx", &base);
    let child = VhdxBuilder::new(2 * MIB).differencing(locator.relative_path("base.vhdx"));
    let path = save(dir.path(), "child.vhdx", &child);
    let policy = ChainPolicy::Beneath(dir.path().to_path_buf());
    let builder = ChainBuilder::new(DRIVERS).policy(policy);
    open_with(&path, &builder.verify_linkage(verify))
}

#[test]
fn a_parent_written_to_since_is_refused_by_both_guids_and_accepted_only_on_demand() {
    let locator = || ParentLocator::new().linkage(OTHER);
    let refused = open(ids::DEFAULT_DATA_WRITE, locator(), true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
    let text = refused.to_string();
    for guid in [OTHER, ids::DEFAULT_DATA_WRITE] {
        assert!(text.contains(&guid.to_string()), "{text}");
    }
    assert_eq!(
        open(ids::DEFAULT_DATA_WRITE, locator(), false)
            .unwrap()
            .layer_count(),
        2
    );
}

#[test]
fn a_parent_that_a_merge_has_renewed_is_known_by_linkage2() {
    let locator = ParentLocator::new()
        .linkage(OTHER)
        .linkage2(ids::DEFAULT_DATA_WRITE);
    open(ids::DEFAULT_DATA_WRITE, locator, true).unwrap();
}

#[test]
fn a_nil_linkage2_is_no_permission_for_a_parent_with_a_nil_guid() {
    let locator = ParentLocator::new().linkage(OTHER).linkage2(Uuid::nil());
    let refused = open(Uuid::nil(), locator, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
}

#[test]
fn linkage_is_compared_as_a_number_and_not_as_text() {
    let guid = ids::DEFAULT_DATA_WRITE.to_string();
    for text in [
        guid.to_uppercase(),
        format!("{{{}}}", guid.to_uppercase()),
        guid.clone(),
    ] {
        let locator = ParentLocator::new().pair("parent_linkage", &text);
        open(ids::DEFAULT_DATA_WRITE, locator, true).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn a_guid_with_its_first_groups_in_the_other_byte_order_is_another_guid() {
    // What vhdx-rs wrote, so that Hyper-V never found the parent.
    let swapped = Uuid::from_bytes_le(ids::DEFAULT_DATA_WRITE.into_bytes());
    let locator = ParentLocator::new().linkage(swapped);
    let refused = open(ids::DEFAULT_DATA_WRITE, locator, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
}

#[test]
fn a_parent_of_another_sector_size_is_refused_even_when_the_linkage_is_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let base = VhdxBuilder::new(2 * MIB)
        .logical_sector_size(4096)
        .physical_sector_size(4096);
    let child = VhdxBuilder::child_of(&base, "base.vhdx").logical_sector_size(512);
    save(dir.path(), "base.vhdx", &base);
    let path = save(dir.path(), "child.vhdx", &child);
    let policy = ChainPolicy::Beneath(dir.path().to_path_buf());
    let builder = ChainBuilder::new(DRIVERS).policy(policy);
    for verify in [true, false] {
        let refused = open_with(&path, &builder.clone().verify_linkage(verify)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
        assert!(refused.to_string().contains("4096"), "{refused}");
    }
}
