//! The right file of the right content.

use blockdev_core::ErrorKind;
use blockdev_core::locate::ChainPolicy;

use super::fake::{DRIVERS, Files};
use crate::{Chain, ChainBuilder, Top};

fn build(files: &Files, verify: bool) -> blockdev_core::Result<Chain> {
    let builder = ChainBuilder::new(DRIVERS).opener(files);
    let builder = builder.policy(ChainPolicy::Any).verify_linkage(verify);
    builder.build(Top::storage(files.file("/v/top"), "fake").at("/v/top"))
}

#[test]
fn a_parent_changed_after_the_child_was_made_is_refused_unless_overridden() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat fake\nexpect 1\nrelative base\n")
        .with("/v/base", "FAKE\nid 3\n");
    let refused = build(&files, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
    let text = refused.to_string();
    assert!(
        text.contains("01010101-") && text.contains("03030303-"),
        "{text}"
    );
    assert_eq!(build(&files, false).unwrap().layer_count(), 2);
}

#[test]
fn any_one_of_the_recorded_fingerprints_is_enough() {
    let files = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat fake\nexpect 1\nexpect 2\nrelative base\n",
        )
        .with("/v/base", "FAKE\nid 2\n");
    build(&files, true).unwrap();
}

#[test]
fn a_parent_that_tells_no_fingerprint_is_not_the_one_expected() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat raw\nexpect 1\nrelative base\n")
        .with("/v/base", "bytes");
    let refused = build(&files, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
    build(&files, false).unwrap();
}

#[test]
fn a_format_other_than_the_childs_own_stays_declared_when_any_parent_will_do() {
    let opened = |format: &str| {
        let top = format!("FAKE\nformat {format}\nexpect 1\nrelative base\n");
        let files = Files::new().with("/v/top", &top).with("/v/base", "bytes");
        let builder = ChainBuilder::new(DRIVERS)
            .opener(&files)
            .verify_linkage(false);
        let builder = builder.policy(ChainPolicy::Any).parent_format("raw");
        let chain = builder.build(Top::storage(files.file("/v/top"), "fake").at("/v/top"));
        chain.map(|chain| chain.layer(1).unwrap().info().format)
    };
    assert_eq!(opened("fake").unwrap(), "raw");
    let refused = opened("other").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotRecognised);
}

#[test]
fn a_stale_name_with_other_content_gives_way_to_the_right_file() {
    let files = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat fake\nexpect 1\nrelative base\nabsolute /moved\n",
        )
        .with("/v/base", "FAKE\nid 3\n")
        .with("/moved", "FAKE\nid 1\ndata 0 512 8\n");
    let chain = build(&files, true).unwrap();
    let path = chain.links().nth(1).unwrap().path.unwrap().to_path_buf();
    assert_eq!(path, std::path::Path::new("/moved"));
}

#[test]
fn of_a_missing_and_a_mismatched_file_the_mismatch_is_reported_with_both_names() {
    let files = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat fake\nexpect 1\nrelative base\nabsolute /gone\n",
        )
        .with("/v/base", "FAKE\nid 3\n");
    let refused = build(&files, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
    let text = refused.to_string();
    assert!(text.contains(r#"relative "base""#), "{text}");
    assert!(text.contains(r#"absolute "/gone""#), "{text}");
}

#[test]
fn of_two_equal_refusals_the_first_is_the_cause() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat fake\nrelative one\nabsolute /two\n")
        .with("/v/one", "OTHER\n")
        .with("/two", "FAKE\nnonsense\n");
    let refused = build(&files, true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotRecognised);
    assert!(std::error::Error::source(&refused).is_some());
}

#[test]
fn sector_sizes_must_agree_where_the_format_demands_it() {
    let child =
        |format: &str| format!("FAKE\nsector 4096\nsame-sector\nformat {format}\nrelative base\n");
    let other_size = Files::new()
        .with("/v/top", &child("fake"))
        .with("/v/base", "FAKE\nsector 512\n");
    for verify in [true, false] {
        let refused = build(&other_size, verify).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ParentMismatch);
    }
    let same_size = Files::new()
        .with("/v/top", &child("fake"))
        .with("/v/base", "FAKE\nsector 4096\n");
    build(&same_size, true).unwrap();
    let no_size_of_its_own = Files::new()
        .with("/v/top", &child("raw"))
        .with("/v/base", "bytes");
    build(&no_size_of_its_own, true).unwrap();
}
