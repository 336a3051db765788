//! Empty disks and children, as whoever runs small machines makes them.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::path::Path;

use diskweave::core::locate::ChainPolicy;
use diskweave::core::{BlockDevice, ErrorKind, LockMode, NameKind};
use diskweave::qcow2::DataFile;
use diskweave::{
    ChildImage, CloneOptions, CreateBase, Existing, ImageInfo, Naming, NewImage, OpenDisk,
    OwnedDisk, backing_of, clone_all, clone_disk, create_base, parents_of, virtual_size,
};
use support::{MIB, beneath, full, names, save};
use testkit::counting::CountingOpener;
use testkit::oracle::QemuImg;
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};

fn qcow2() -> diskweave::qcow2::CreateOptions {
    diskweave::qcow2::CreateOptions::new(0)
}

fn read(path: &Path, open: &OpenDisk) -> Vec<u8> {
    let disk = open.open(path).unwrap();
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// A base of each format in `dir`, all with the same content, a VHDX child among them.
fn bases(dir: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let vhdx = full(3);
    let base = save(dir, "base.vhdx", &vhdx);
    let child = VhdxBuilder::child_of(&vhdx, "base.vhdx")
        .block(1, BlockContent::partial(BlockData::Pattern(9), 3..700));
    let top = save(dir, "child.vhdx", &child);
    let disk = beneath(&top).open(&top).unwrap();
    let raw = dir.join("base.raw");
    support::to_raw(&disk, &raw).unwrap();
    let image = NewImage::Qcow2(qcow2());
    let (options, progress) = (Default::default(), diskweave::NoProgress);
    diskweave::convert(&disk, dir.join("base.qcow2"), &image, &options, &progress).unwrap();
    let content = read(&top, &beneath(&top));
    let alone = read(&base, &OpenDisk::new());
    vec![
        ("base.vhdx", alone),
        ("child.vhdx", content.clone()),
        ("base.raw", content.clone()),
        ("base.qcow2", content),
    ]
}

#[test]
fn a_child_of_any_base_reads_as_it_and_says_what_and_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let canonical = dir.path().canonicalize().unwrap();
    for (name, content) in bases(dir.path()) {
        let base = dir.path().join(name);
        let own = name.rsplit('.').next().unwrap();
        for format in [None, Some("qcow2"), Some("vhdx")] {
            let child = dir.path().join("new");
            let image = match format {
                None => ChildImage::LikeBase,
                Some(format) => ChildImage::Format(format.into()),
            };
            let options = CloneOptions::new().image(image);
            clone_disk(&base, &child, &OpenDisk::new(), &options).unwrap();
            let made = match (format, own) {
                (Some(format), _) => format,
                (None, "raw") => "qcow2",
                (None, own) => own,
            };
            let what = format!("{made} over {name}");
            assert!(read(&child, &beneath(&child)) == content, "{what}");
            let reference = backing_of(&child, &OpenDisk::new()).unwrap().unwrap();
            assert_eq!(reference.format.as_deref(), Some(own), "{what}");
            let named = |kind| {
                let mut names = reference.names.iter();
                let name = names.find(|name| name.kind == kind);
                name.map(|name| name.path.clone().unwrap())
            };
            assert_eq!(named(NameKind::Relative), Some(name.into()), "{what}");
            if made == "vhdx" {
                assert_eq!(named(NameKind::Absolute), Some(canonical.join(name)));
            }
            assert_eq!(
                virtual_size(&child, &OpenDisk::new()).unwrap(),
                content.len() as u64
            );
            if made == "qcow2" && own != "vhdx" {
                let Some(qemu) = QemuImg::find() else {
                    continue;
                };
                let seen = dir.path().join("seen");
                qemu.to_raw("qcow2", &child, &seen).unwrap();
                assert!(std::fs::read(&seen).unwrap() == content, "{what}");
                std::fs::remove_file(&seen).unwrap();
            }
            std::fs::remove_file(&child).unwrap();
        }
    }
}

#[test]
fn a_child_elsewhere_names_its_base_so_that_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("vm/below")).unwrap();
    let trusting = OpenDisk::new().policy(ChainPolicy::Any);
    create_base(root.join("a:b.qcow2"), MIB, &CreateBase::new()).unwrap();
    create_base(root.join("vm/below/base"), MIB, &CreateBase::new()).unwrap();
    let outside = root.join("a:b.qcow2");
    let absolute = outside.to_str().unwrap().to_owned();
    for (base, naming, stored) in [
        (outside.clone(), Naming::Fitting, absolute.clone()),
        (outside.clone(), Naming::Relative, "../a:b.qcow2".into()),
        (outside, Naming::Absolute, absolute),
        (
            root.join("vm/below/base"),
            Naming::Fitting,
            "below/base".into(),
        ),
    ] {
        let child = root.join("vm/child");
        let options = CloneOptions::new().naming(naming);
        clone_disk(&base, &child, &OpenDisk::new(), &options).unwrap();
        let named = backing_of(&child, &OpenDisk::new()).unwrap().unwrap();
        assert_eq!(named.names[0].stored, stored, "{naming:?}");
        let parents = parents_of(&child, &trusting).unwrap();
        assert_eq!(parents.len(), 1, "without the child itself");
        std::fs::remove_file(&child).unwrap();
    }
    // What would be taken for a protocol is said to be a path.
    let beside = root.join("beside");
    clone_disk(
        root.join("a:b.qcow2"),
        &beside,
        &OpenDisk::new(),
        &CloneOptions::new(),
    )
    .unwrap();
    let named = backing_of(&beside, &OpenDisk::new()).unwrap().unwrap();
    assert_eq!(named.names[0].stored, "./a:b.qcow2");
    assert_eq!(beneath(&beside).open(&beside).unwrap().layer_count(), 2);
}

#[test]
fn options_of_a_child_are_heeded_and_its_base_stays_its_base() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let (base, child) = (dir.path().join("base.qcow2"), dir.path().join("child"));
    let mut wanted = qcow2();
    wanted.cluster_bits = 12;
    let options = CloneOptions::new().image(ChildImage::Image(NewImage::Qcow2(wanted)));
    clone_disk(&base, &child, &OpenDisk::new(), &options).unwrap();
    let made = beneath(&child).open(&child).unwrap();
    assert_eq!(
        (made.info().block_size, made.layer_count()),
        (Some(4096), 2)
    );
    drop(made);
    std::fs::remove_file(&child).unwrap();

    let mut wanted = diskweave::vhdx::CreateOptions::new(0);
    wanted.block_size = 2 << 20;
    wanted.logical_sector_size = 4096;
    let options = CloneOptions::new().image(ChildImage::Image(NewImage::Vhdx(wanted)));
    let base = dir.path().join("base.vhdx");
    clone_disk(&base, &child, &OpenDisk::new(), &options).unwrap();
    let made = beneath(&child).open(&child).unwrap();
    let info = made.info();
    assert_eq!(info.block_size, Some(2 << 20));
    assert_eq!(info.logical_sector_size, 512, "the base's, as it must be");

    for (format, kind) in [
        ("raw", ErrorKind::Unsupported),
        ("vdi", ErrorKind::Unsupported),
    ] {
        let options = CloneOptions::new().image(ChildImage::Format(format.into()));
        let refused = clone_disk(&base, dir.path().join("no"), &OpenDisk::new(), &options);
        assert_eq!(refused.unwrap_err().kind(), kind, "{format}");
    }
    assert!(!dir.path().join("no").exists());
}

#[test]
fn what_is_in_a_childs_place_stays_unless_it_may_be_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let (base, child) = (dir.path().join("child.vhdx"), dir.path().join("there"));
    std::fs::write(&child, b"precious").unwrap();
    let overwrite = CloneOptions::new().overwrite(true);
    let alone = OpenDisk::new();
    let refused = clone_disk(&base, &child, &alone, &CloneOptions::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    // What it could be one of must be known.
    let refused = clone_disk(&base, &child, &alone, &overwrite).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Policy);
    assert_eq!(std::fs::read(&child).unwrap(), b"precious");
    for own in ["child.vhdx", "base.vhdx"] {
        let own = dir.path().join(own);
        let before = std::fs::read(&own).unwrap();
        let refused = clone_disk(&base, &own, &beneath(&base), &overwrite).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert!(std::fs::read(&own).unwrap() == before);
    }
    clone_disk(&base, &child, &beneath(&base), &overwrite).unwrap();
    assert!(read(&child, &beneath(&child)) == read(&base, &beneath(&base)));
}

#[test]
fn a_base_that_is_written_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let base = dir.path().join("base.qcow2");
    let writer = OpenDisk::new().writable().open(&base).unwrap();
    let child = dir.path().join("child");
    let refused = clone_disk(&base, &child, &OpenDisk::new(), &CloneOptions::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Locked);
    assert!(!child.exists());
    drop(writer);
}

#[test]
fn a_pair_is_made_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let at = |name: &str| dir.path().join(name);
    let before = names(dir.path());
    let good = (at("base.qcow2"), at("container"));
    for bad in [
        (at("missing"), at("guest")),
        (at("base.raw"), at("container")),
        (at("base.raw"), at("no/such/directory")),
    ] {
        let pairs = [good.clone(), bad];
        clone_all(&pairs, &OpenDisk::new(), &CloneOptions::new()).unwrap_err();
        assert_eq!(names(dir.path()), before);
    }
    let pairs = [good, (at("base.raw"), at("guest"))];
    let overwrite = CloneOptions::new().overwrite(true);
    let refused = clone_all(&pairs, &OpenDisk::new(), &overwrite).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    clone_all(&pairs, &OpenDisk::new(), &CloneOptions::new()).unwrap();
    for (base, child) in pairs {
        assert!(read(&child, &beneath(&child)) == read(&base, &OpenDisk::new()));
    }
}

#[test]
fn an_empty_disk_is_made_once_and_left_alone_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/disk");
    let keep = CreateBase::new().existing(Existing::Keep);
    let missing = create_base(&path, 10 << 30, &keep).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    let keep = keep.with_directories();
    assert!(create_base(&path, 10 << 30, &keep).unwrap());
    assert_eq!(virtual_size(&path, &OpenDisk::new()).unwrap(), 10 << 30);
    let info = OpenDisk::new().open(&path).unwrap();
    assert_eq!(info.info().format, "qcow2");
    drop(info);
    let written = OpenDisk::new().writable().open(&path).unwrap();
    written.write_at(b"kept", 0).unwrap();
    assert!(
        !create_base(&path, 10 << 30, &keep).unwrap(),
        "in use or not"
    );
    written.close().unwrap();
    assert!(!create_base(&path, 10 << 30, &keep).unwrap());
    assert!(!create_base(&path, 1 << 30, &keep).unwrap());
    let before = std::fs::read(&path).unwrap();
    assert!(create_base(&path, 1 << 30, &CreateBase::new()).is_err());
    let larger = create_base(&path, 11 << 30, &keep).unwrap_err();
    assert!(larger.to_string().contains("will not do"), "{larger}");
    let other = keep.clone().image(NewImage::raw());
    let other = create_base(&path, 1 << 30, &other).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidInput);
    let child = dir.path().join("a/b/child");
    clone_disk(&path, &child, &OpenDisk::new(), &CloneOptions::new()).unwrap();
    let over = create_base(&child, 1 << 30, &keep).unwrap_err();
    assert!(over.to_string().contains("parent"), "{over}");
    assert!(std::fs::read(&path).unwrap() == before);
    let replace = CreateBase::new().existing(Existing::Replace);
    assert!(create_base(&path, MIB, &replace).unwrap());
    assert_eq!(virtual_size(&path, &OpenDisk::new()).unwrap(), MIB);
}

#[test]
fn a_disk_goes_with_its_handle_unless_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let mut image = qcow2();
    image.data_file = Some(DataFile {
        name: "disk.data".into(),
        raw: false,
    });
    let wanted = CreateBase::new().image(NewImage::Qcow2(image));
    let disk = OwnedDisk::create(&path, MIB, &wanted).unwrap();
    assert_eq!(names(dir.path()), ["disk", "disk.data"]);
    drop(disk);
    assert!(names(dir.path()).is_empty(), "the data file as well");

    let disk = OwnedDisk::create(&path, MIB, &CreateBase::new()).unwrap();
    assert_eq!(disk.keep(), path);
    assert!(path.exists());
    let keep = CreateBase::new().existing(Existing::Keep);
    let there = OwnedDisk::create(&path, MIB, &keep).unwrap();
    assert!(there.is_persistent(), "it is somebody else's");
    drop(there);
    assert!(OwnedDisk::create(&path, MIB, &CreateBase::new()).is_err());
    assert!(path.exists(), "so is what was in the way");
    drop(OwnedDisk::adopt(&path).persistent(true));
    let child = dir.path().join("child");
    let clone = || OwnedDisk::clone_of(&path, &child, &OpenDisk::new(), &CloneOptions::new());
    let first = clone().unwrap();
    assert!(clone().is_err());
    assert!(child.exists());
    first.delete().unwrap();
    drop(OwnedDisk::adopt(&path));
    assert!(names(dir.path()).is_empty());
    assert!(OwnedDisk::adopt(&path).delete().is_err(), "it has gone");
}

/// The data file of a disk that was opened for writing was opened for reading, by name, and every write
/// failed.
#[test]
fn a_disk_with_a_data_file_is_written_to_and_locked_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let mut image = qcow2();
    image.data_file = Some(DataFile {
        name: "disk.data".into(),
        raw: true,
    });
    let wanted = CreateBase::new().image(NewImage::Qcow2(image));
    create_base(&path, MIB, &wanted).unwrap();
    let open = beneath(&path);
    let disk = open.clone().writable().open(&path).unwrap();
    disk.write_at(b"data", 4096).unwrap();
    disk.flush().unwrap();
    let data = OpenDisk::new().format("raw");
    let locked = data.open(dir.path().join("disk.data")).unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::Locked);
    disk.close().unwrap();
    assert_eq!(read(&path, &open)[4094..4100], *b"\0\0data");
    assert_eq!(
        std::fs::read(dir.path().join("disk.data")).unwrap()[4096..4100],
        *b"data"
    );
    // A child takes the writes, and both of the base's files are only read.
    let child = dir.path().join("child");
    clone_disk(&path, &child, &OpenDisk::new(), &CloneOptions::new()).unwrap();
    let first = beneath(&child).writable().open(&child).unwrap();
    first.write_at(b"DATA", 4096).unwrap();
    assert_eq!(read(&path, &open)[4096..4100], *b"data");
    first.close().unwrap();
    assert_eq!(read(&child, &beneath(&child))[4096..4100], *b"DATA");
}

#[test]
fn what_is_wrong_with_a_file_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let at = |name: &str| dir.path().join(name);
    let open = OpenDisk::new();
    for raw in ["base.raw", "base.vhdx", "base.qcow2"] {
        assert_eq!(backing_of(at(raw), &open).unwrap(), None, "{raw}");
    }
    let kind = |name: &str, open: &OpenDisk| {
        let (a, b) = (backing_of(at(name), open), virtual_size(at(name), open));
        let kind = a.unwrap_err().kind();
        assert_eq!(b.unwrap_err().kind(), kind);
        kind
    };
    assert_eq!(kind("missing", &open), ErrorKind::Io);
    let error = backing_of(at("missing"), &open).unwrap_err();
    let error = std::io::Error::from(error);
    let cause = std::error::Error::source(error.get_ref().unwrap()).unwrap();
    let cause = cause.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
    std::fs::write(at("short"), b"QFI\xfb\0\0\0\x03\0\0").unwrap();
    assert_eq!(kind("short", &open), ErrorKind::Corrupt);
    let said = open.clone().format("qcow2");
    assert_eq!(kind("base.raw", &said), ErrorKind::NotRecognised);
    let written = OpenDisk::new().writable().open(at("base.qcow2")).unwrap();
    assert_eq!(kind("base.qcow2", &open), ErrorKind::Locked);
    drop(written);
}

#[test]
fn a_chain_is_told_without_its_top() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let child = dir.path().join("child.vhdx");
    let parents = parents_of(&child, &beneath(&child)).unwrap();
    let whole = ImageInfo::of_chain(&beneath(&child).open(&child).unwrap()).unwrap();
    assert_eq!(parents, whole[1..]);
    assert_eq!(parents[0].path, dir.path().join("base.vhdx"));
    assert!(
        parents_of(dir.path().join("base.vhdx"), &beneath(&child))
            .unwrap()
            .is_empty()
    );
}

/// The child of an image was made by opening all that the image names, so that a stranger's image made
/// a host open what it liked.
#[test]
fn making_a_child_opens_the_base_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    bases(dir.path());
    let base = dir.path().join("child.vhdx");
    for policy in [ChainPolicy::Deny, ChainPolicy::Any] {
        let opener = CountingOpener::new();
        let open = OpenDisk::new().opener(opener.clone()).policy(policy);
        let child = dir.path().join("new");
        clone_disk(&base, &child, &open, &CloneOptions::new()).unwrap();
        let _ = backing_of(&child, &open).unwrap();
        let _ = virtual_size(&child, &open).unwrap();
        assert_eq!(opener.opens(&base), 1);
        assert_eq!(opener.opens(&child), 2);
        assert_eq!(opener.total(), 3);
        diskweave::fork(
            &child,
            dir.path().join("forked"),
            &open,
            &ChildImage::LikeBase,
        )
        .unwrap();
        assert_eq!(opener.total(), 4);
        assert_eq!(opener.opens(dir.path().join("base.vhdx")), 0);
        std::fs::remove_file(&child).unwrap();
        std::fs::remove_file(dir.path().join("forked")).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_volatile_child_is_as_good_as_any_other_as_long_as_the_host_lives() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in bases(dir.path()) {
        let (base, child) = (dir.path().join(name), dir.path().join("new"));
        let options = CloneOptions::new().volatile(true);
        let disk = OwnedDisk::clone_of(&base, &child, &OpenDisk::new(), &options).unwrap();
        let open = beneath(&child).lock(LockMode::Shared);
        assert!(read(disk.path(), &open) == content, "{name}");
    }
}
