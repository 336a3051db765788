//! Images that are their own ancestors.

use std::path::Path;
use std::sync::Arc;

use blockdev_core::locate::{ChainPolicy, Handles};
use blockdev_core::{
    ErrorKind, FileOptions, FileStorage, MemoryStorage, OpenOptions, Result, Storage,
};

use super::fake::DRIVERS;
use crate::{Chain, ChainBuilder, Top};

fn image(dir: &Path, name: &str, parent: &str) {
    let text = format!("FAKE\nformat fake\nrelative {parent}\n");
    std::fs::write(dir.join(name), text).unwrap();
}

fn build(dir: &Path, policy: ChainPolicy, options: FileOptions) -> Result<Chain> {
    let path = dir.join("top");
    let file = FileStorage::open(&path, options).unwrap();
    let open = if options.writable {
        OpenOptions::read_write()
    } else {
        OpenOptions::read_only()
    };
    let builder = ChainBuilder::new(DRIVERS).policy(policy).options(open);
    builder.build(Top::storage(Arc::new(file), "fake").at(path))
}

/// Under both policies that follow names, for reading and for writing: the lock that a writer holds
/// on its own file must not make a ring look like a busy parent.
fn is_a_ring(dir: &Path) {
    for options in [FileOptions::read_only(), FileOptions::read_write()] {
        for policy in [ChainPolicy::Any, ChainPolicy::Beneath(dir.into())] {
            let error = build(dir, policy, options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("ring"), "{error}");
        }
    }
}

#[test]
fn an_image_that_is_its_own_parent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "top", "top");
    is_a_ring(dir.path());
}

#[test]
fn two_images_that_are_each_others_parents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "top", "base");
    image(dir.path(), "base", "top");
    is_a_ring(dir.path());
}

#[test]
fn a_ring_that_leaves_out_the_top_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "top", "one");
    image(dir.path(), "one", "two");
    image(dir.path(), "two", "one");
    is_a_ring(dir.path());
}

/// By hard link: only where the host tells files apart by more than their paths.
#[cfg(unix)]
#[test]
fn a_second_name_of_the_same_file_hides_no_ring() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "top", "alias");
    std::fs::hard_link(dir.path().join("top"), dir.path().join("alias")).unwrap();
    is_a_ring(dir.path());
}

#[test]
fn a_copy_of_the_same_content_is_no_ring() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path(), "top", "copy");
    std::fs::write(dir.path().join("copy"), "FAKE\n").unwrap();
    let chain = build(dir.path(), ChainPolicy::Any, FileOptions::read_only()).unwrap();
    assert_eq!(chain.layer_count(), 2);
}

#[test]
fn a_handle_given_twice_is_a_ring() {
    let text = b"FAKE\nformat fake\nrelative self\n".to_vec();
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::from(text));
    let handles = Handles::new().with("self", Arc::clone(&storage));
    let builder = ChainBuilder::new(DRIVERS).policy(ChainPolicy::Handles(Arc::new(handles)));
    let error = builder.build(Top::storage(storage, "fake")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
