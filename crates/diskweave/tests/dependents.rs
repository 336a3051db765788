//! Who needs a file: a wrong "nobody" is a lost disk.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use diskweave::core::locate::ChainPolicy;
use diskweave::core::{ErrorKind, FileStorage, LockMode, Storage};
use diskweave::qcow2::{Backing, DataFile};
use diskweave::{
    CloneOptions, CreateBase, Dependence, NewImage, OpenDisk, Search, clone_disk, create_base,
    dependents, depends_on,
};
use support::{MIB, beneath, full, save};
use testkit::counting::CountingOpener;
use testkit::vhdx_builder::VhdxBuilder;

fn new(path: &Path) {
    create_base(path, MIB, &CreateBase::new()).unwrap();
}

fn child(base: &Path, path: &Path) {
    clone_disk(base, path, &OpenDisk::new(), &CloneOptions::new()).unwrap();
}

/// A qcow2 at `path` that names `backing`, whatever that is.
fn naming(path: &Path, backing: &str) {
    let mut image = diskweave::qcow2::CreateOptions::new(0);
    image.backing = Some(Backing {
        name: backing.into(),
        format: "qcow2".into(),
    });
    diskweave::create(path, &NewImage::Qcow2(image), Some(MIB), None).unwrap();
}

fn unknown(found: Dependence) -> ErrorKind {
    match found {
        Dependence::Unknown(error) => error.kind(),
        told => panic!("{told:?}"),
    }
}

#[test]
fn a_file_is_needed_by_whoever_is_over_it_at_any_depth_and_by_no_one_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for base in ["base", "other"] {
        new(&at(base));
    }
    child(&at("base"), &at("middle"));
    child(&at("middle"), &at("top"));
    child(&at("other"), &at("stranger"));
    let open = beneath(&at("top"));
    for (image, file, yes) in [
        ("top", "middle", true),
        ("top", "base", true),
        ("middle", "base", true),
        ("middle", "top", false),
        ("stranger", "base", false),
        ("base", "base", false),
        ("top", "top", false),
    ] {
        let told = depends_on(at(image), at(file), &open).unwrap();
        assert_eq!((told.is_yes(), told.is_no()), (yes, !yes), "{image} {file}");
    }
    let gone = depends_on(at("top"), at("missing"), &open).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Io);
}

#[test]
fn a_file_is_known_by_what_it_is_and_never_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    new(&at("base"));
    child(&at("base"), &at("top"));
    std::fs::hard_link(at("base"), at("second")).unwrap();
    symlink("base", at("link")).unwrap();
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::copy(at("base"), at("sub/base")).unwrap();
    let open = beneath(&at("top"));
    for (file, yes) in [
        ("second", true),
        ("link", true),
        ("sub/../base", true),
        ("sub/base", false),
    ] {
        let told = depends_on(at("top"), at(file), &open).unwrap();
        assert_eq!((told.is_yes(), told.is_no()), (yes, !yes), "{file}");
    }
}

/// A snapshot was deleted because an image over it could not be followed, and that was taken for no.
#[test]
fn a_chain_that_cannot_be_followed_to_its_end_is_unknown_and_never_no() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    new(&at("base"));
    new(&at("unrelated"));
    child(&at("base"), &at("middle"));
    child(&at("middle"), &at("top"));
    let open = beneath(&at("top"));
    let ask = |image: &str, open: &OpenDisk| depends_on(at(image), at("unrelated"), open).unwrap();
    assert!(ask("top", &open).is_no());
    // The policy: nothing may be opened, or not there.
    let deny = OpenDisk::new();
    assert_eq!(unknown(ask("top", &deny)), ErrorKind::NeedsParent);
    naming(&at("outside"), "../unrelated");
    assert_eq!(unknown(ask("outside", &open)), ErrorKind::Policy);
    // No such file.
    naming(&at("orphan"), "missing");
    assert_eq!(unknown(ask("orphan", &open)), ErrorKind::NeedsParent);
    // Itself, or in a ring.
    naming(&at("self"), "self");
    assert_eq!(unknown(ask("self", &open)), ErrorKind::Corrupt);
    // Damage, at the top and below.
    std::fs::write(at("short"), b"QFI\xfb\0\0\0\x03").unwrap();
    assert_eq!(unknown(ask("short", &open)), ErrorKind::Corrupt);
    naming(&at("over-short"), "short");
    assert_eq!(unknown(ask("over-short", &open)), ErrorKind::Corrupt);
    // Formats that have parents and are not read.
    std::fs::write(at("vmdk"), b"KDMV\x01\0\0\0").unwrap();
    assert_eq!(unknown(ask("vmdk", &open)), ErrorKind::Unsupported);
    assert_eq!(
        unknown(Dependence::of_chain(
            &deny.open(at("top")).unwrap(),
            id(&at("unrelated"))
        )),
        ErrorKind::NeedsParent
    );
    // What is found before the chain ends is found.
    std::fs::write(at("base"), b"QFI\xfb\0\0\0\x03").unwrap();
    assert!(depends_on(at("top"), at("middle"), &open).unwrap().is_yes());
    assert!(!depends_on(at("top"), at("base"), &open).unwrap().is_no());
}

fn id(path: &Path) -> diskweave::core::FileId {
    let unlocked = diskweave::core::FileOptions::read_only().with_lock(LockMode::None);
    FileStorage::open(path, unlocked)
        .unwrap()
        .identity()
        .unwrap()
}

#[test]
fn a_data_file_is_needed_by_its_image_and_by_those_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut image = diskweave::qcow2::CreateOptions::new(0);
    image.data_file = Some(DataFile {
        name: "data".into(),
        raw: false,
    });
    let wanted = CreateBase::new().image(NewImage::Qcow2(image));
    create_base(at("image"), MIB, &wanted).unwrap();
    child(&at("image"), &at("top"));
    let open = beneath(&at("top"));
    for image in ["image", "top"] {
        let told = depends_on(at(image), at("data"), &open).unwrap();
        assert!(told.is_yes(), "{image}: {told:?}");
        let deny = OpenDisk::new();
        let told = depends_on(at(image), at("data"), &deny).unwrap();
        assert_eq!(unknown(told), ErrorKind::NeedsParent);
    }
    new(&at("unrelated"));
    std::fs::remove_file(at("data")).unwrap();
    let told = depends_on(at("image"), at("unrelated"), &open).unwrap();
    assert_eq!(unknown(told), ErrorKind::NeedsParent);
}

/// Everything there is to meet in a directory of images.
fn zoo() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    std::fs::create_dir_all(images.join("sub/deeper")).unwrap();
    let at = |name: &str| images.join(name);
    let base = full(2);
    save(&images, "base.vhdx", &base);
    save(
        &images,
        "child.vhdx",
        &VhdxBuilder::child_of(&base, "base.vhdx"),
    );
    child(&at("child.vhdx"), &at("top.vhdx"));
    new(&at("alone.qcow2"));
    std::fs::write(at("notes.txt"), b"no image at all").unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    std::fs::write(at("disk.vmdk"), b"KDMV\x01\0\0\0").unwrap();
    naming(&at("orphan.qcow2"), "missing");
    naming(&at("outside.qcow2"), "../secret");
    std::fs::hard_link(at("base.vhdx"), at("base-again.vhdx")).unwrap();
    symlink("top.vhdx", at("link.vhdx")).unwrap();
    symlink("..", at("up")).unwrap();
    // From below, the default policy does not look up.
    save(
        &images.join("sub"),
        "below.vhdx",
        &VhdxBuilder::child_of(&base, r"..\base.vhdx"),
    );
    std::fs::copy(at("base.vhdx"), at("sub/deeper/base.vhdx")).unwrap();
    new(&dir.path().join("secret"));
    (dir, images)
}

fn named(root: &Path, paths: &[PathBuf]) -> Vec<String> {
    let names = paths.iter().map(|path| path.strip_prefix(root).unwrap());
    names.map(|name| name.to_str().unwrap().into()).collect()
}

#[test]
fn a_directory_is_told_file_by_file_and_doubt_is_no_clearance() {
    let (_dir, images) = zoo();
    let base = images.join("base.vhdx");
    let found = dependents(&base, &images, &Search::new()).unwrap();
    assert_eq!(named(&images, &found.dependent), ["child.vhdx", "top.vhdx"]);
    let free = ["alone.qcow2", "empty", "notes.txt"];
    assert_eq!(named(&images, &found.independent), free);
    let doubt: Vec<_> = found.unknown.iter().map(|(path, _)| path.clone()).collect();
    let doubtful = ["disk.vmdk", "orphan.qcow2", "outside.qcow2"];
    assert_eq!(named(&images, &doubt), doubtful);
    assert!(!found.is_free());

    let deep = dependents(&base, &images, &Search::new().depth(1)).unwrap();
    assert_eq!(deep.unknown.len(), 4, "one names its parent upwards");
    assert_eq!(deep.independent.len(), free.len());
    let trusting = OpenDisk::new().policy(ChainPolicy::Any);
    let all = Search::new()
        .depth(9)
        .open(trusting.lock(LockMode::Unprotected));
    let all = dependents(&base, &images, &all).unwrap();
    assert_eq!(
        named(&images, &all.dependent),
        ["child.vhdx", "sub/below.vhdx", "top.vhdx"]
    );
    assert!(named(&images, &all.independent).contains(&"sub/deeper/base.vhdx".into()));

    // A file that nobody is over, in a directory without doubt.
    std::fs::create_dir(images.join("quiet")).unwrap();
    new(&images.join("quiet/a"));
    new(&images.join("quiet/b"));
    let quiet = dependents(images.join("quiet/a"), images.join("quiet"), &Search::new());
    assert!(quiet.unwrap().is_free());
}

#[test]
fn a_search_ends_at_its_limit_and_says_so() {
    let (_dir, images) = zoo();
    let base = images.join("base.vhdx");
    let few = Search::new().most_entries(5);
    let refused = dependents(&base, &images, &few).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert_eq!(
        dependents(&base, images.join("none"), &Search::new())
            .unwrap_err()
            .kind(),
        ErrorKind::Io
    );
    assert_eq!(
        dependents(images.join("none"), &images, &Search::new())
            .unwrap_err()
            .kind(),
        ErrorKind::Io
    );
}

#[test]
fn an_image_in_use_is_looked_at_all_the_same() {
    let (_dir, images) = zoo();
    let top = images.join("top.vhdx");
    let used = beneath(&top).writable().open(&top).unwrap();
    let found = dependents(images.join("base.vhdx"), &images, &Search::new()).unwrap();
    assert_eq!(named(&images, &found.dependent), ["child.vhdx", "top.vhdx"]);
    used.close().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_search_opens_no_file_that_an_image_names_outside_of_the_directory() {
    let (dir, images) = zoo();
    let canary = testkit::counting::Canary::watch(dir.path().join("secret"));
    naming(
        &images.join("absolute.qcow2"),
        dir.path().join("secret").to_str().unwrap(),
    );
    symlink(dir.path().join("secret"), images.join("secret-link")).unwrap();
    naming(&images.join("through.qcow2"), "secret-link");
    let opener = CountingOpener::new();
    let policy = ChainPolicy::Beneath(images.clone());
    let open = OpenDisk::new().policy(policy).opener(opener.clone());
    for search in [
        Search::new(),
        Search::new().depth(5),
        Search::new().open(open),
    ] {
        let found = dependents(images.join("base.vhdx"), &images, &search).unwrap();
        let doubt = found.unknown.iter();
        let policy = doubt.filter(|(_, error)| error.kind() == ErrorKind::Policy);
        assert!(policy.count() >= 3);
    }
    canary.assert_never_opened();
    assert!(
        opener.total() > 0,
        "the caller's opener is the one that is used"
    );
}
