//! The parent's format: declared, or said by the caller, and never guessed.

use std::sync::Arc;

use blockdev_core::ErrorKind;
use blockdev_core::locate::{ChainPolicy, Handles};

use super::fake::{DRIVERS, Files};
use crate::{ChainBuilder, Top};

fn beneath() -> ChainPolicy {
    ChainPolicy::Beneath("/v".into())
}

/// A child that declares `format` over `/v/base`, which is `text`.
fn files(format: &str, text: &str) -> Files {
    let child = format!("FAKE\n{format}\nrelative base\n");
    Files::new()
        .with("/v/top", child.trim_start_matches('\n'))
        .with("/v/base", text)
}

/// The format of the parent found, or the kind of the refusal.
fn opened(
    files: &Files,
    policy: ChainPolicy,
    with: impl FnOnce(ChainBuilder<'_>) -> ChainBuilder<'_>,
) -> Result<&'static str, ErrorKind> {
    let builder = with(ChainBuilder::new(DRIVERS).opener(files).policy(policy));
    let top = Top::storage(files.file("/v/top"), "fake").at("/v/top");
    match builder.build(top) {
        Ok(chain) => Ok(chain.layer(1).unwrap().info().format),
        Err(error) => Err(error.kind()),
    }
}

#[test]
fn a_parent_of_undeclared_format_is_not_even_opened() {
    let files = files("id 1", "OTHER\n");
    for policy in [beneath(), ChainPolicy::Any] {
        assert_eq!(opened(&files, policy, |b| b), Err(ErrorKind::Policy));
    }
    assert!(files.opened().is_empty());
    let said = opened(&files, beneath(), |b| b.parent_format("other"));
    assert_eq!(said, Ok("other"));
}

#[test]
fn a_format_without_driver_is_named_and_the_parent_not_opened() {
    let files = files("format vmdk\\n", "KDMV");
    assert_eq!(
        opened(&files, ChainPolicy::Any, |b| b),
        Err(ErrorKind::Unsupported)
    );
    assert!(files.opened().is_empty());
}

#[test]
fn the_callers_word_on_a_layer_beats_the_childs_and_the_general_word_does_not() {
    let files = files("format fake", "OTHER\n");
    let general = opened(&files, beneath(), |b| b.parent_format("other"));
    assert_eq!(general, Err(ErrorKind::NotRecognised));
    let particular = opened(&files, beneath(), |b| b.layer_format(1, "other"));
    assert_eq!(particular, Ok("other"));
    let elsewhere = opened(&files, beneath(), |b| b.layer_format(2, "other"));
    assert_eq!(elsewhere, Err(ErrorKind::NotRecognised));
}

#[test]
fn a_file_that_contradicts_its_declared_format_is_refused_under_every_policy() {
    let files = files("format other", "FAKE\n");
    let handles = Handles::new().with("base", files.file("/v/base"));
    for policy in [
        beneath(),
        ChainPolicy::Any,
        ChainPolicy::Handles(Arc::new(handles)),
    ] {
        assert_eq!(opened(&files, policy, |b| b), Err(ErrorKind::NotRecognised));
    }
}

/// A guest that owns a raw disk can write another format's header into it. Declared raw it must be
/// read as raw by those who trust the child, and be refused by those who do not.
#[test]
fn raw_declared_over_another_formats_mark_needs_trust() {
    let files = files("format raw", "OTHER\n");
    assert_eq!(
        opened(&files, beneath(), |b| b),
        Err(ErrorKind::NotRecognised)
    );
    assert_eq!(opened(&files, ChainPolicy::Any, |b| b), Ok("raw"));
    let handles = Handles::new().with("base", files.file("/v/base"));
    let handles = ChainPolicy::Handles(Arc::new(handles));
    assert_eq!(opened(&files, handles, |b| b), Ok("raw"));
    let vouched = opened(&files, beneath(), |b| b.layer_format(1, "raw"));
    assert_eq!(vouched, Ok("raw"), "the caller spoke of this very file");
}

#[test]
fn raw_declared_over_plain_bytes_is_raw() {
    let files = files("format raw", "boot sector, or so");
    assert_eq!(opened(&files, beneath(), |b| b), Ok("raw"));
}
