//! Nothing is opened that the policy does not allow.

use std::sync::Arc;

use blockdev_core::locate::{ChainPolicy, Handles};
use blockdev_core::{
    BlockDevice, Error, ErrorKind, FileOptions, FileStorage, MemoryStorage, Storage,
};

use super::fake::{DRIVERS, Files};
use crate::{ChainBuilder, Top};

fn canary(names: &str) -> Files {
    Files::new()
        .with("/v/top", &format!("FAKE\nformat raw\n{names}"))
        .with("/canary", "never to be opened")
        .with("/v/canary", "never to be opened")
}

fn refusal(files: &Files, policy: ChainPolicy) -> Error {
    let builder = ChainBuilder::new(DRIVERS).opener(files).policy(policy);
    let top = Top::storage(files.file("/v/top"), "fake").at("/v/top");
    builder.build(top).unwrap_err()
}

#[test]
fn by_default_a_named_canary_is_never_opened() {
    let files = canary("data 0 512 5\nrelative canary\nabsolute /canary\n");
    let builder = ChainBuilder::new(DRIVERS).opener(&files);
    let top = || Top::storage(files.file("/v/top"), "fake").at("/v/top");
    let (partial, problem) = builder.build_partial(top()).unwrap();
    assert!(problem.is_none(), "the caller asked for no more");
    let chain = builder.build(top()).unwrap();
    for chain in [partial, chain] {
        assert!(chain.is_detached());
        assert_eq!(chain.size(), 4096);
        assert_eq!(chain.extents(0, 4096).count(), 2);
        let mut buf = [0; 4096];
        chain.read_at(&mut buf[..512], 0).unwrap();
        assert_eq!(buf[..512], [5; 512]);
        let refused = chain.read_at(&mut buf, 0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NeedsParent);
    }
    assert!(files.opened().is_empty());
}

#[test]
fn beneath_a_directory_no_name_leads_out() {
    let files = canary("relative ../canary\nabsolute /canary\nrelative sub/../../canary\n");
    let error = refusal(&files, ChainPolicy::Beneath("/v".into()));
    assert_eq!(error.kind(), ErrorKind::Policy);
    assert!(files.opened().is_empty());
}

#[test]
fn what_is_missing_beneath_a_directory_is_not_blamed_on_the_policy() {
    let files = canary("relative gone\nvolume json:{}\n");
    let error = refusal(&files, ChainPolicy::Beneath("/v".into()));
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
}

#[test]
fn names_that_mean_nothing_here_are_not_given_to_the_host() {
    for policy in [ChainPolicy::Any, ChainPolicy::Beneath("/v".into())] {
        let files = canary("relative json:{}\nabsolute nbd://host/disk\nvolume C:\\base\n");
        assert_eq!(refusal(&files, policy).kind(), ErrorKind::NeedsParent);
        assert!(files.opened().is_empty());
    }
}

/// An image from a stranger had a server of his choice asked, from inside the network.
#[test]
fn a_server_is_asked_under_the_policy_of_any_names_only() {
    let files = canary("protocol nbd://host/disk\n").with("nbd://host/disk", "a raw disk");
    for policy in [
        ChainPolicy::Beneath("/v".into()),
        ChainPolicy::Beneath("".into()),
    ] {
        let error = refusal(&files, policy);
        assert_eq!(error.kind(), ErrorKind::Policy, "{error}");
        assert!(error.to_string().contains("no server is asked"), "{error}");
    }
    for policy in [
        ChainPolicy::Deny,
        ChainPolicy::Handles(Arc::new(Handles::new())),
    ] {
        let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(policy);
        let top = Top::storage(files.file("/v/top"), "fake").at("/v/top");
        builder.build_partial(top).unwrap();
    }
    assert!(files.opened().is_empty());

    let builder = ChainBuilder::new(DRIVERS).opener(&files);
    let builder = builder.policy(ChainPolicy::Any);
    let top = Top::storage(files.file("/v/top"), "fake").at("/v/top");
    let chain = builder.build(top).unwrap();
    let parent = chain.links().nth(1).unwrap().path.unwrap().as_os_str();
    assert_eq!(parent, "nbd://host/disk", "as it is, joined to nothing");
}

/// What a server serves made files of this host's working directory be read.
#[test]
fn an_image_on_a_server_has_no_directory() {
    let files = canary("relative canary\n").with("canary", "never to be opened");
    for policy in [
        ChainPolicy::Any,
        ChainPolicy::Beneath("".into()),
        ChainPolicy::Beneath("/v".into()),
    ] {
        let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(policy);
        let top = Top::storage(files.file("/v/top"), "fake").at("nbd://host/top");
        let error = builder.build(top).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsParent);
        assert!(error.to_string().contains("has no directory"), "{error}");
    }
    assert!(files.opened().is_empty());
}

#[test]
fn an_image_without_a_path_resolves_relative_names_nowhere_but_in_the_policys_directory() {
    let files = canary("relative canary\nabsolute canary\n");
    let build = |policy| {
        let builder = ChainBuilder::new(DRIVERS).opener(&files).policy(policy);
        builder.build(Top::storage(files.file("/v/top"), "fake"))
    };
    let error = build(ChainPolicy::Any).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
    assert!(files.opened().is_empty());
    let chain = build(ChainPolicy::Beneath("/v".into())).unwrap();
    assert_eq!(chain.layer_count(), 2);
}

#[test]
fn a_parent_without_names_is_missing() {
    let files = canary("nameless\n");
    let error = refusal(&files, ChainPolicy::Any);
    assert_eq!(error.kind(), ErrorKind::NeedsParent);
}

#[test]
fn hostile_names_are_shown_escaped_and_cut() {
    let long = "x".repeat(5000);
    let files = canary(&format!(
        "relative a\\n\u{1b}[2J\u{202e}\nrelative {long}\n"
    ));
    let text = refusal(&files, ChainPolicy::Any).to_string();
    assert!(text.contains(r"a\n\u{1b}[2J\u{202e}"), "{text}");
    assert!(!text.contains(char::is_control), "{text}");
    assert!(text.len() < 1000, "{text}");
}

#[cfg(unix)]
#[test]
fn on_a_real_host_no_link_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(dir.path().join("secret"), [7; 4096]).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("base")).unwrap();
    let path = root.join("top");
    std::fs::write(&path, "FAKE\nformat raw\nrelative base\n").unwrap();
    let build = |policy| {
        let file = FileStorage::open(&path, FileOptions::read_only()).unwrap();
        let top = Top::storage(Arc::new(file), "fake").at(&path);
        ChainBuilder::new(DRIVERS).policy(policy).build(top)
    };
    let refused = build(ChainPolicy::Beneath(root.clone())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Policy);
    assert_eq!(build(ChainPolicy::Any).unwrap().layer_count(), 2);
}

#[test]
fn a_top_of_unknown_format_is_an_error_and_not_raw() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::from(vec![0; 512]));
    for (format, kind) in [
        ("vmdk", ErrorKind::Unsupported),
        ("fake", ErrorKind::NotRecognised),
    ] {
        let top = Top::storage(Arc::clone(&storage), format);
        let error = ChainBuilder::new(DRIVERS).build(top).unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}
