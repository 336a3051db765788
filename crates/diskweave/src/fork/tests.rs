//! A fork that is stopped after each step.

// Here a failure is a panic.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::cell::RefCell;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::{CloneOptions, CreateBase, NewImage, clone_disk, create_base};

const SIZE: u64 = 3 << 20;

const STEPS: [Step; 7] = [
    Step::Locked,
    Step::Linked,
    Step::LinkDurable,
    Step::ChildMade,
    Step::ChildOwned,
    Step::Renamed,
    Step::Done,
];

/// A disk in a directory of its own, and what it reads.
struct Case {
    dir: tempfile::TempDir,
    disk: PathBuf,
    content: Vec<u8>,
    image: ChildImage,
}

impl Case {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn base(&self) -> PathBuf {
        self.path("base")
    }

    /// What the disk at `path` reads, whoever has locked it.
    fn read(&self, path: &Path) -> Vec<u8> {
        let beneath = ChainPolicy::Beneath(self.dir.path().to_path_buf());
        let open = OpenDisk::new().policy(beneath).lock(LockMode::None);
        let disk = open.open(path).unwrap();
        let mut bytes = vec![0; SIZE as usize];
        disk.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn write(&self, path: &Path, bytes: &[u8], offset: u64) {
        let beneath = ChainPolicy::Beneath(self.dir.path().to_path_buf());
        let disk = OpenDisk::new().policy(beneath).writable();
        let disk = disk.open(path).unwrap();
        disk.write_at(bytes, offset).unwrap();
        disk.flush().unwrap();
        disk.close().unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn fork(&self) -> Result<Forked> {
        fork(&self.disk, self.base(), &OpenDisk::new(), &self.image)
    }

    /// Forks and is stopped after `step`: by a failure, or as by a crash.
    fn stopped_after(&self, step: Step, crash: bool) {
        let mut seen = Vec::new();
        let open = OpenDisk::new();
        let (disk, base) = (&self.disk, self.base());
        let stopped = step_by_step(disk, &base, &open, &self.image, &Host, &mut |done, undo| {
            seen.push(done);
            assert!(self.read(disk) == self.content, "after {done:?}");
            if done != step {
                return Ok(());
            }
            if crash {
                // Nothing is taken back by a machine that is off.
                (undo.link, undo.child) = (None, None);
            }
            Err(Error::new(ErrorKind::Io, "stopped"))
        });
        assert_eq!(stopped.unwrap_err().message(), "stopped");
        let expected = STEPS.iter().position(|known| *known == step).unwrap();
        assert_eq!(seen, STEPS[..=expected]);
        assert!(self.read(disk) == self.content, "stopped after {step:?}");
    }

    /// The fork is whole: two disks that read the same, until one is written to.
    fn is_forked(&self) {
        assert!(self.read(&self.disk) == self.content);
        assert!(self.read(&self.base()) == self.content);
        let id = |path: &Path| identity::of_entry(path).unwrap();
        assert_ne!(id(&self.disk), id(&self.base()));
        assert!(!self.names().iter().any(|name| name.ends_with(".partial")));
        self.write(&self.disk, &[0xee; 700], 1000);
        assert!(self.read(&self.base()) == self.content);
        let mut changed = self.content.clone();
        changed[1000..1700].fill(0xee);
        assert!(self.read(&self.disk) == changed);
    }
}

fn vhdx() -> NewImage {
    NewImage::Vhdx(vhdx_format::CreateOptions::new(0))
}

/// A disk of each sort: with and without a parent, and one that changes its format.
fn cases() -> Vec<(&'static str, Case)> {
    let alone = |image: NewImage, child: ChildImage| {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        create_base(&disk, SIZE, &CreateBase::new().image(image)).unwrap();
        let mut case = Case {
            content: vec![0; SIZE as usize],
            dir,
            disk,
            image: child,
        };
        case.content[100..9000].fill(7);
        case.write(&case.disk, &[7; 8900], 100);
        case
    };
    let over = |image: NewImage, like: ChildImage| {
        let mut case = alone(image, like.clone());
        let root = case.path("root");
        fs::rename(&case.disk, &root).unwrap();
        let options = CloneOptions::new().image(like);
        clone_disk(&root, &case.disk, &OpenDisk::new(), &options).unwrap();
        case.content[2 << 20..(2 << 20) + 5000].fill(9);
        case.write(&case.disk, &[9; 5000], 2 << 20);
        case
    };
    let qcow2 = || NewImage::Qcow2(qcow2_format::CreateOptions::new(0));
    let format = |name: &str| ChildImage::Format(name.into());
    vec![
        ("qcow2", alone(qcow2(), ChildImage::LikeBase)),
        ("vhdx", alone(vhdx(), ChildImage::LikeBase)),
        ("raw", alone(NewImage::raw(), format("qcow2"))),
        ("raw to vhdx", alone(NewImage::raw(), format("vhdx"))),
        ("qcow2 child", over(qcow2(), ChildImage::LikeBase)),
        ("vhdx child", over(vhdx(), ChildImage::LikeBase)),
        ("qcow2 over vhdx", over(vhdx(), format("qcow2"))),
    ]
}

#[test]
fn a_fork_that_is_not_stopped_leaves_two_disks_that_read_the_same() {
    for (what, case) in cases() {
        assert_eq!(case.fork().unwrap(), Forked::Now, "{what}");
        case.is_forked();
    }
}

#[test]
fn a_crash_after_any_step_leaves_the_disk_and_the_same_call_again_finishes() {
    for step in STEPS {
        for (what, case) in cases() {
            println!("{what}, {step:?}");
            case.stopped_after(step, true);
            let expected = match step {
                Step::Renamed | Step::Done => Forked::Before,
                _ => Forked::Now,
            };
            assert_eq!(case.fork().unwrap(), expected, "{what}, {step:?}");
            case.is_forked();
        }
    }
}

#[test]
fn a_failure_before_the_child_has_the_name_takes_everything_back() {
    for step in STEPS {
        for (what, case) in cases() {
            let before = case.names();
            case.stopped_after(step, false);
            match step {
                Step::Renamed | Step::Done => case.is_forked(),
                _ => assert_eq!(case.names(), before, "{what}, {step:?}"),
            }
        }
    }
}

/// The child that a crash cuts off in the middle is garbage under its own name.
#[test]
fn a_half_made_child_of_an_earlier_call_is_made_anew() {
    for (_, case) in cases() {
        case.stopped_after(Step::ChildMade, true);
        let names = case.names();
        let partial = names.iter().find(|name| name.ends_with(".partial"));
        fs::write(case.path(partial.unwrap()), b"QFI\xfb half").unwrap();
        assert_eq!(case.fork().unwrap(), Forked::Now);
        case.is_forked();
    }
}

/// A second fork under the same name was taken for the end of the first: what was written in between
/// was in the child alone, and whoever kept the base as a snapshot would have lost it.
#[test]
fn a_base_that_is_there_is_refused_once_the_child_was_written_to() {
    for (what, case) in cases() {
        case.fork().unwrap();
        case.is_forked();
        let refused = case.fork().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{what}");
        assert!(refused.to_string().contains("already"), "{refused}");
    }
}

#[test]
fn another_file_in_the_bases_place_is_refused_and_stays() {
    let (_, case) = cases().remove(0);
    let other = case.base();
    fs::write(&other, b"precious").unwrap();
    assert_eq!(case.fork().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fs::read(&other).unwrap(), b"precious");
    fs::remove_file(&other).unwrap();
    symlink("disk", &other).unwrap();
    assert_eq!(case.fork().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(other.is_symlink());
    for same in ["disk", "./disk", "sub/../disk"] {
        fs::create_dir_all(case.path("sub")).unwrap();
        let refused = fork(&case.disk, case.path(same), &OpenDisk::new(), &case.image);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(case.read(&case.disk) == case.content);
    }
}

/// Writes down what is asked of the host, does it, and fails at one call if so told.
#[derive(Default)]
struct Telling {
    calls: RefCell<Vec<String>>,
    fails: Option<usize>,
}

impl Telling {
    fn note(&self, what: &str, paths: &[&Path]) -> io::Result<()> {
        let mut calls = self.calls.borrow_mut();
        let names = paths.iter().map(|path| path.file_name().unwrap());
        let names = names.map(|name| name.to_string_lossy());
        let names: Vec<_> = names
            .map(|name| match name.ends_with(".partial") {
                true => "child".into(),
                false => name,
            })
            .collect();
        calls.push(format!("{what} {}", names.join(" ")));
        match self.fails {
            Some(call) if call + 1 == calls.len() => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    }
}

impl Names for Telling {
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("link", &[from, to])?;
        Host.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename", &[from, to])?;
        Host.rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.note("sync", &[directory])?;
        Host.sync_directory(directory)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.note("sync", &[Path::new("child")])?;
        Host.sync_file(file)
    }
}

fn in_sub(case: &Case, names: &Telling) -> Result<Forked> {
    let base = case.path("sub/base");
    let open = OpenDisk::new();
    step_by_step(&case.disk, &base, &open, &case.image, names, &mut |_, _| {
        Ok(())
    })
}

/// Without a sync between them the host may make the names durable in any order, and the first name is
/// then a child whose base is lost.
#[test]
fn each_step_is_durable_before_the_next_and_no_call_that_fails_costs_the_disk() {
    let (_, case) = cases().remove(0);
    let root = case.dir.path().file_name().unwrap();
    let root = root.to_str().unwrap();
    fs::create_dir(case.path("sub")).unwrap();
    let expected = [
        "link disk base".to_string(),
        "sync sub".into(),
        "sync child".into(),
        "rename child disk".into(),
        format!("sync {root}"),
    ];
    for call in 0..expected.len() {
        let names = Telling {
            fails: Some(call),
            ..Telling::default()
        };
        let failed = in_sub(&case, &names).unwrap_err();
        let kind = match call {
            0 => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        assert_eq!(failed.kind(), kind, "{}", expected[call]);
        assert_eq!(names.calls.into_inner(), expected[..=call]);
        assert!(case.read(&case.disk) == case.content);
        let renamed = call + 1 == expected.len();
        assert_eq!(case.path("sub/base").exists(), renamed);
        assert_eq!(case.names(), ["disk", "sub"]);
    }
    // The last failure left it forked; what was not known to be durable is made so.
    let again = Telling::default();
    assert_eq!(in_sub(&case, &again).unwrap(), Forked::Before);
    let both = ["sync sub".to_string(), format!("sync {root}")];
    assert_eq!(again.calls.into_inner(), both);
    let (_, case) = cases().remove(0);
    fs::create_dir(case.path("sub")).unwrap();
    assert_eq!(in_sub(&case, &Telling::default()).unwrap(), Forked::Now);
}

#[test]
fn a_disk_in_use_is_refused() {
    for (what, case) in cases() {
        for writable in [false, true] {
            let open = OpenDisk::new();
            let open = if writable { open.writable() } else { open };
            let used = open.open(&case.disk).unwrap();
            assert_eq!(case.fork().unwrap_err().kind(), ErrorKind::Locked, "{what}");
            drop(used);
        }
        assert!(!case.base().exists());
    }
}

#[test]
fn a_base_elsewhere_is_refused_where_the_disks_own_names_would_lead_astray() {
    for (what, case) in cases() {
        let sub = case.path("sub");
        fs::create_dir(&sub).unwrap();
        let base = sub.join("base");
        let forked = fork(&case.disk, &base, &OpenDisk::new(), &case.image);
        if case.path("root").exists() {
            let refused = forked.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{what}");
            assert!(refused.to_string().contains("root"), "{refused}");
            assert!(!base.exists());
        } else {
            assert_eq!(forked.unwrap(), Forked::Now);
            assert!(case.read(&base) == case.content);
        }
        assert!(case.read(&case.disk) == case.content, "{what}");
    }
}

#[test]
fn a_link_at_the_disks_name_stays_a_link() {
    let (_, case) = cases().remove(0);
    let link = case.path("link");
    symlink("disk", &link).unwrap();
    let forked = fork(&link, case.base(), &OpenDisk::new(), &case.image);
    assert_eq!(forked.unwrap(), Forked::Now);
    assert!(link.is_symlink());
    case.is_forked();
}

#[test]
fn the_child_has_the_permissions_and_the_owner_of_the_disk() {
    let (_, case) = cases().remove(0);
    fs::set_permissions(&case.disk, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give files away.
    let _ = std::os::unix::fs::chown(&case.disk, Some(1234), Some(4321));
    let before = case.disk.metadata().unwrap();
    case.fork().unwrap();
    let after = case.disk.metadata().unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!(before.mode(), after.mode());
    assert_eq!((before.uid(), before.gid()), (after.uid(), after.gid()));
}

#[test]
fn a_raw_disk_becomes_nothing_else_that_was_not_asked_for() {
    let (_, mut case) = cases().remove(2);
    case.image = ChildImage::LikeBase;
    assert_eq!(case.fork().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(case.names(), ["disk"]);
    case.image = ChildImage::Format("raw".into());
    assert_eq!(case.fork().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(case.names(), ["disk"]);
}

#[test]
fn where_the_host_gives_no_second_name_it_says_so_and_nothing_has_changed() {
    let (_, case) = cases().remove(0);
    // Another file system, as which a memory disk is there on Linux.
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    if elsewhere.path().metadata().unwrap().dev() == case.disk.metadata().unwrap().dev() {
        return;
    }
    let base = elsewhere.path().join("base");
    let refused = fork(&case.disk, base, &OpenDisk::new(), &case.image).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert_eq!(case.names(), ["disk"]);
    case.fork().unwrap();
}
