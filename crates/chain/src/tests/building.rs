//! Chains found by name or handle, and what is told of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_core::locate::{ChainPolicy, Handles, Wanted};
use blockdev_core::{BlockDevice, ErrorKind, Limits, LockMode, NameKind, OpenOptions, Result};

use super::fake::{DRIVERS, Files, id};
use super::sparse::SparseLayer;
use crate::{Chain, ChainBuilder, FoundBy, LayerInfo, Top};

const ANY: ChainPolicy = ChainPolicy::Any;

/// The chain of `/v/top` among `files`.
fn build(files: &Files) -> Result<Chain> {
    let builder = ChainBuilder::new(DRIVERS).opener(files).policy(ANY);
    builder.build(Top::storage(files.file("/v/top"), "fake").at("/v/top"))
}

#[test]
fn parents_are_followed_from_the_directory_of_the_image_that_names_them() {
    let files = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat other\nrelative sub/middle\ndata 0 512 1\n",
        )
        .with(
            "/v/sub/middle",
            "OTHER\nformat raw\nrelative base\nid 9\ndata 512 512 2\n",
        )
        .with("/v/sub/base", &"b".repeat(2048))
        .with("/v/base", "the wrong one");
    let chain = build(&files).unwrap();
    let mut disk = [0xEE; 4096];
    chain.read_at(&mut disk, 0).unwrap();
    assert_eq!(disk[..512], [1; 512]);
    assert_eq!(disk[512..1024], [2; 512]);
    assert_eq!(disk[1024..2048], [b'b'; 1024]);
    assert_eq!(disk[2048..], [0; 2048]);

    let links: Vec<LayerInfo<'_>> = chain.links().collect();
    assert_eq!(links.len(), 3);
    assert_eq!(links[0].found, &FoundBy::Given);
    assert_eq!(links[1].path, Some(Path::new("/v/sub/middle")));
    assert_eq!(
        (links[1].format, links[1].content_id),
        ("other", Some(id(9)))
    );
    assert_eq!(links[1].found.to_string(), r#"relative "sub/middle""#);
    assert_eq!(
        (links[2].depth, links[2].format, links[2].size),
        (2, "raw", 2048)
    );
    assert_eq!(chain.layer(2).unwrap().info().size, 2048);
    assert!(chain.layer(3).is_none());
}

#[test]
fn names_are_tried_in_the_order_the_image_gives_them() {
    let text = "FAKE\nformat fake\nrelative a\nvolume /b\nabsolute /c\nabsolute /d\n";
    let files = Files::new()
        .with("/v/top", text)
        .with("/c", "FAKE\n")
        .with("/d", "FAKE\n");
    let chain = build(&files).unwrap();
    assert_eq!(
        files.opened(),
        ["/v/a", "/b", "/c"].map(PathBuf::from),
        "and none after the first that fits"
    );
    let FoundBy::Name(name) = chain.links().nth(1).unwrap().found.clone() else {
        panic!("found by its name");
    };
    assert_eq!((name.kind, &*name.stored), (NameKind::Absolute, "/c"));
}

#[test]
fn a_damaged_candidate_does_not_hide_a_sound_one() {
    let files = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat fake\nrelative bad\nabsolute /good\n",
        )
        .with("/v/bad", "FAKE\nnonsense\n")
        .with("/good", "FAKE\n");
    assert_eq!(build(&files).unwrap().layer_count(), 2);
    let only_bad = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat fake\nabsolute /gone\nrelative bad\n",
        )
        .with("/v/bad", "FAKE\nnonsense\n");
    let error = build(&only_bad).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "what was found decides");
    let text = error.to_string();
    assert!(
        text.contains("/gone") && text.contains("nonsense"),
        "{text}"
    );
}

#[test]
fn a_locked_parent_is_said_at_once_and_no_other_is_taken() {
    let files = Files::new()
        .with(
            "/v/top",
            "FAKE\nformat fake\nrelative busy\nabsolute /idle\n",
        )
        .with_used("/v/busy", "FAKE\n")
        .with("/idle", "FAKE\n");
    assert_eq!(build(&files).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(files.opened(), [PathBuf::from("/v/busy")]);

    let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(ANY);
    let unlocked = builder.clone().lock(LockMode::None);
    let top = || Top::storage(files.file("/v/top"), "fake").at("/v/top");
    assert_eq!(unlocked.build(top()).unwrap().layer_count(), 2);
    assert_eq!(files.locks("/v/busy"), [LockMode::Shared]);
    let refused = builder.lock(LockMode::Unprotected).build(top());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(files.locks("/v/busy")[1], LockMode::Unprotected);
}

#[test]
fn parents_are_read_only_and_share_the_cache_whatever_the_top_is() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat fake\nrelative base\n")
        .with("/v/base", "FAKE\ndata 0 4096 3\n");
    let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(ANY);
    let builder = builder.options(OpenOptions::read_write());
    let chain = builder
        .build(Top::storage(files.file("/v/top"), "fake").at("/v/top"))
        .unwrap();
    let [top, base] = [0, 1].map(|depth| {
        let layer = chain.layer(depth).unwrap().as_any();
        layer.downcast_ref::<SparseLayer>().unwrap()
    });
    assert!(!top.info.read_only && base.info.read_only);
    let caches = [top, base].map(|layer| layer.cache.as_ref().unwrap());
    assert!(Arc::ptr_eq(caches[0], caches[1]));
    chain.write_at(&[1], 1000).unwrap();
    let mut bytes = [0; 3];
    chain.read_at(&mut bytes, 999).unwrap();
    assert_eq!(bytes, [3, 1, 3]);
}

#[test]
fn a_parent_that_fails_is_named_and_a_top_that_fails_is_not() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat fake\nrelative base\n")
        .with("/v/base", "FAKE\nbroken\n");
    let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(ANY);
    let builder = builder.options(OpenOptions::read_write());
    let top = |path| Top::storage(files.file(path), "fake").at(path);
    let chain = builder.build(top("/v/top")).unwrap();
    let failures = [
        chain.read_at(&mut [0; 512], 0).unwrap_err(),
        chain.block_status(0, 512).unwrap_err(),
        chain.write_at(&[1], 0).unwrap_err(),
    ];
    for failure in failures {
        assert_eq!(failure.kind(), ErrorKind::Io);
        assert!(failure.to_string().contains("base"), "{failure}");
    }
    let chain = builder.build(top("/v/base")).unwrap();
    let failure = chain.read_at(&mut [0; 512], 0).unwrap_err();
    assert!(!failure.to_string().contains("base"), "{failure}");
}

#[test]
fn a_layer_that_is_open_already_can_be_the_top() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat fake\nrelative base\n")
        .with("/v/base", "FAKE\n");
    let layer = DRIVERS[0]
        .open(files.file("/v/top"), &OpenOptions::read_only())
        .unwrap();
    let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(ANY);
    let chain = builder.build(Top::layer(layer).at("/v/top")).unwrap();
    assert_eq!(chain.layer_count(), 2);
}

#[test]
fn handles_are_taken_from_the_caller_and_no_path_is_opened() {
    let files = Files::new()
        .with("top", "FAKE\nformat fake\nrelative nbd:one\n")
        .with("one", "FAKE\nformat raw\nabsolute /two\n")
        .with("two", &"2".repeat(4096));
    let handles = Handles::new()
        .with("nbd:one", files.file("one"))
        .with("/two", files.file("two"));
    let build = |policy| {
        let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(policy);
        builder.build(Top::storage(files.file("top"), "fake"))
    };
    let chain = build(ChainPolicy::Handles(Arc::new(handles))).unwrap();
    let mut byte = [0];
    chain.read_at(&mut byte, 4095).unwrap();
    assert_eq!(byte, *b"2");
    assert_eq!(chain.links().nth(2).unwrap().found, &FoundBy::Handle);

    let none = build(ChainPolicy::Handles(Arc::new(Handles::new())));
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NeedsParent);
    let failing = |wanted: &Wanted<'_>| {
        assert_eq!((wanted.reference.names.len(), wanted.child.size), (1, 4096));
        Err(ErrorKind::NoSpace.into())
    };
    let failed = build(ChainPolicy::Handles(Arc::new(failing)));
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(files.opened().is_empty());
}

#[test]
fn a_chain_that_cannot_be_completed_can_still_be_described() {
    let files = Files::new()
        .with("/v/top", "FAKE\nformat fake\nrelative middle\n")
        .with(
            "/v/middle",
            "FAKE\nformat fake\nrelative gone\ndata 0 512 1\n",
        );
    let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(ANY);
    let top = || Top::storage(files.file("/v/top"), "fake").at("/v/top");
    let error = builder.build(top()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
    let (chain, problem) = builder.build_partial(top()).unwrap();
    assert_eq!(problem.unwrap().to_string(), error.to_string());
    assert!(error.to_string().contains("middle"), "{error}");
    assert_eq!(chain.layer_count(), 2);
    assert!(chain.is_detached());
    let mut buf = [0; 512];
    chain.read_at(&mut buf, 0).unwrap();
    let refused = chain.read_at(&mut buf, 512).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsParent);
}

#[test]
fn depth_64_opens_and_depth_65_is_refused_unless_the_limit_is_moved() {
    let mut files = Files::new();
    for depth in 0..64 {
        let next = format!("FAKE\nformat fake\nrelative {}\n", depth + 1);
        files = files.with(&format!("/v/{depth}"), &next);
    }
    files = files.with("/v/64", "FAKE\n");
    let build = |from: u32, options: OpenOptions| {
        let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(ANY);
        let path = format!("/v/{from}");
        let top = Top::storage(files.file(&path), "fake").at(&path);
        builder.options(options).build(top)
    };
    let default = OpenOptions::read_only;
    assert_eq!(build(1, default()).unwrap().layer_count(), 64);
    let refused = build(0, default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    let mut limits = Limits::default();
    limits.chain_depth = 65;
    assert_eq!(
        build(0, default().with_limits(limits))
            .unwrap()
            .layer_count(),
        65
    );
}
