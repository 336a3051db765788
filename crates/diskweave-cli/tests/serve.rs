//! `serve`, asked by libnbd's and QEMU's clients.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use blockdev_nbd::{ClientOptions, NbdStorage};
use diskweave::core::{Storage, SyncKind};
use support::{command, dw, names};
use testkit::Rng;
use testkit::oracle::{NbdTools, QemuImg, QemuIo, nbd_uri};

const SIZE: usize = 4 << 20;

/// A server at the socket `nbd`; killed if a test fails before it has ended.
struct Served {
    child: Child,
    dir: PathBuf,
}

impl Served {
    /// Starts it on `line`; returns once the socket is there, which is when it can be used.
    fn start(dir: &Path, line: &str) -> Self {
        let socket = || {
            let found = fs::metadata(dir.join("nbd")).ok()?;
            found.file_type().is_socket().then(|| found.ino())
        };
        let left_behind = socket();
        let child = command(dir)
            .arg("serve")
            .args(["-k", "nbd"])
            .args(line.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut served = Self {
            child,
            dir: dir.to_path_buf(),
        };
        served.wait_for("a socket", |served| {
            if let Some(status) = served.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", served.said());
            }
            let is = socket();
            is.is_some() && is != left_behind
        });
        served
    }

    fn wait_for(&mut self, what: &str, there: impl Fn(&mut Self) -> bool) {
        let began = Instant::now();
        while !there(self) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "waiting for {what}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn uri(&self) -> String {
        nbd_uri(&self.dir.join("nbd"), "")
    }

    /// What it wrote to either output, once it has ended.
    fn said(&mut self) -> String {
        let mut said = String::new();
        let out = self.child.stdout.take().unwrap();
        let err = self.child.stderr.take().unwrap();
        for mut output in [Box::new(out) as Box<dyn Read>, Box::new(err)] {
            output.read_to_string(&mut said).unwrap();
        }
        said
    }

    /// It ends by itself, in silence, and leaves no socket.
    fn ends(mut self) {
        self.wait_for("its end", |served| {
            served.child.try_wait().unwrap().is_some()
        });
        let status = self.child.wait().unwrap();
        let said = self.said();
        assert!(status.success() && said.is_empty(), "{status}: {said}");
        assert!(!self.dir.join("nbd").exists());
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn asked_to_end(self, signal: i32) {
        self.signal(signal);
        self.ends();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn flat(dir: &Path, image: &str) -> Vec<u8> {
    dw(dir, &format!("convert -O raw {image} flat")).ok();
    fs::read(dir.join("flat")).unwrap()
}

/// base.qcow2 ← middle.vhdx ← top.qcow2, each with bytes of its own; gives what the top reads.
fn tower(dir: &Path) -> Vec<u8> {
    let mut disk = vec![0; SIZE];
    disk[..1 << 20].fill(1);
    fs::write(dir.join("raw"), &disk).unwrap();
    dw(dir, "convert -O qcow2 raw base.qcow2").ok();
    disk[(512 << 10)..(512 << 10) + 70_000].fill(2);
    fs::write(dir.join("raw"), &disk).unwrap();
    dw(
        dir,
        "convert -O vhdx -B base.qcow2 -F qcow2 raw middle.vhdx",
    )
    .ok();
    disk[(2 << 20)..(2 << 20) + 100_000].fill(3);
    fs::write(dir.join("raw"), &disk).unwrap();
    dw(dir, "convert -O qcow2 -B middle.vhdx -F vhdx raw top.qcow2").ok();
    fs::remove_file(dir.join("raw")).unwrap();
    disk
}

#[test]
fn a_mixed_chain_is_copied_as_it_is_converted() {
    let (Some(tools), Some(img)) = (NbdTools::find(), QemuImg::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let before = names(dir);
    let served = Served::start(dir, "-t -f qcow2 top.qcow2");
    let uri = served.uri();
    assert!(flat(dir, "top.qcow2") == disk, "it may be read meanwhile");

    let copied = dir.join("copied");
    tools.copy(&uri, copied.to_str().unwrap()).unwrap();
    assert!(fs::read(&copied).unwrap() == disk);
    let converted = dir.join("converted");
    img.to_raw("raw", Path::new(&uri), &converted).unwrap();
    assert!(fs::read(&converted).unwrap() == disk);
    let compared = img.run(&["compare", "-f", "raw", "-F", "raw", &uri, "flat"]);
    assert_eq!(compared.code, Some(2), "there is no such file here");
    let same = ["compare", "-f", "raw", "-F", "raw", &uri, "flat"];
    assert_eq!(img.run_in(dir, &same).code, Some(0));

    // What each part is, as the image itself is mapped.
    let map = dw(dir, "map --output json top.qcow2").json();
    for (context, expected) in [
        (
            "base:allocation",
            runs(&map, |data, _| if data { 0 } else { 3 }),
        ),
        ("qemu:allocation-depth", runs(&map, |_, depth| depth)),
    ] {
        assert_eq!(tools.map(context, &uri).unwrap(), expected, "{context}");
    }
    assert!(runs(&map, |_, depth| depth).len() > 4, "{map}");
    served.asked_to_end(libc::SIGTERM);
    for name in ["copied", "converted", "flat"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    assert_eq!(names(dir), before);
}

/// The runs of a map by what `status` makes of each: of whether it is data, and of the layer that has it,
/// from 1, 0 for none.
fn runs(map: &serde_json::Value, status: impl Fn(bool, u64) -> u64) -> Vec<(u64, u64, u64)> {
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for extent in map.as_array().unwrap() {
        let number = |key: &str| extent[key].as_u64().unwrap();
        let present = extent["present"].as_bool().unwrap();
        let depth = if present { number("depth") + 1 } else { 0 };
        let status = status(extent["data"].as_bool().unwrap(), depth);
        match runs.last_mut() {
            Some(last) if last.2 == status => last.1 += number("length"),
            _ => runs.push((number("start"), number("length"), status)),
        }
    }
    runs
}

#[test]
fn what_qemu_writes_is_in_the_image_and_the_image_is_clean() {
    let (Some(io), Some(img)) = (QemuIo::find(), QemuImg::find()) else {
        return;
    };
    for image in ["top.qcow2", "middle.vhdx", "lone.vhdx", "over.qcow2"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut disk = tower(dir);
        dw(dir, &format!("create -q -f vhdx lone.vhdx {SIZE}")).ok();
        dw(dir, "create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2").ok();
        if image != "top.qcow2" {
            disk = flat(dir, image);
        }
        let base = fs::read(dir.join("base.qcow2")).unwrap();
        let served = Served::start(dir, &format!("--writable {image}"));
        let told = io.run(
            "raw",
            Path::new(&served.uri()),
            &[
                "write -P 0xaa 1000 200000",
                "write -f -P 0xbb 3M 64k",
                "write -z 64k 128k",
                "aio_write -P 0xcc 1M 512k",
                "aio_write -P 0xdd 1536k 512k",
                "aio_flush",
                "flush",
                "read -P 0xcc 1M 512k",
            ],
        );
        assert!(!told.unwrap().contains("fail"), "{image}");
        served.ends();
        disk[1000..201_000].fill(0xaa);
        disk[3 << 20..(3 << 20) + (64 << 10)].fill(0xbb);
        disk[64 << 10..192 << 10].fill(0);
        disk[1 << 20..1536 << 10].fill(0xcc);
        disk[1536 << 10..2 << 20].fill(0xdd);
        assert!(flat(dir, image) == disk, "{image}");
        assert!(fs::read(dir.join("base.qcow2")).unwrap() == base);
        dw(dir, &format!("check -q {image}")).ok();
        // It opens no VHDX that has a parent.
        if image == "over.qcow2" {
            let checked = img.run_in(dir, &["check", "-f", "qcow2", image]);
            assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        }
    }
}

#[test]
fn a_server_that_is_killed_leaves_what_was_flushed() {
    let Some(io) = QemuIo::find() else {
        return;
    };
    for format in ["qcow2", "vhdx"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        dw(dir, &format!("create -q -f {format} disk {SIZE}")).ok();
        let mut rng = Rng::new(7);
        for round in 0..3 {
            let served = Served::start(dir, &format!("--writable -t -f {format} disk"));
            let uri = served.uri();
            let flushed = [&format!("write -f -P {} 64k 1000k", round + 1)[..], "flush"];
            io.run("raw", Path::new(&uri), &flushed).unwrap();
            let busy = thread::spawn({
                let (io, uri) = (io.clone(), uri.clone());
                move || {
                    let write = ["write -P 0xee 2M 2M"; 200];
                    io.run("raw", Path::new(&uri), &write)
                }
            });
            thread::sleep(Duration::from_millis(20 + rng.below(100)));
            // SIGKILL: the next round also finds the socket that was left.
            served.signal(libc::SIGKILL);
            drop(served);
            let _ = busy.join().unwrap();
            assert!(dir.join("nbd").exists());

            let checked = dw(dir, &format!("check -f {format} disk"));
            // 3: leaks, which a qcow2 that was not closed may have.
            assert!([0, 3].contains(&checked.code), "{checked:?}");
            let disk = flat(dir, "disk");
            assert!(
                disk[64 << 10..1064 << 10]
                    .iter()
                    .all(|byte| *byte == round + 1)
            );
            let unflushed = &disk[2 << 20..];
            assert!(unflushed.iter().all(|byte| [0, 0xee].contains(byte)));
        }
    }
}

/// Guest blocks that take turns between the guests: no multiple of a cluster's length, so that guests
/// meet in clusters all the time.
const BLOCK: usize = 12 << 10;

/// One guest with a connection of its own: every change goes to the disk and to `model`, of which it has
/// each `guests`th block from number `own` on, and which it reads back now and then.
fn live(uri: &str, own: usize, guests: usize, seed: u64, mut model: Vec<u8>) -> Vec<u8> {
    let disk = NbdStorage::connect(uri, &ClientOptions::default()).unwrap();
    let mut rng = Rng::new(seed);
    for _ in 0..300 {
        let blocks = SIZE / BLOCK / guests;
        let block = own + guests * usize::try_from(rng.below(blocks as u64)).unwrap();
        let from = usize::try_from(rng.below(BLOCK as u64)).unwrap();
        let len = 1 + usize::try_from(rng.below((BLOCK - from) as u64)).unwrap();
        let start = block * BLOCK + from;
        let (range, at) = (start..start + len, start as u64);
        match rng.below(10) {
            0..5 => {
                model[range.clone()].fill(rng.below(256).to_le_bytes()[0]);
                disk.write_at(&model[range], at).unwrap();
            }
            5..7 => {
                model[range].fill(0);
                disk.zero_range(at, len as u64).unwrap();
            }
            7..9 => {
                let mut read = vec![0; len];
                disk.read_at(&mut read, at).unwrap();
                assert!(read == model[range], "guest {own}, byte {at}");
            }
            _ => disk.sync(SyncKind::Data).unwrap(),
        }
    }
    model
}

#[test]
fn guests_of_several_connections_keep_what_each_wrote() {
    const GUESTS: usize = 4;
    let Some(qemu) = QemuImg::find() else {
        return;
    };
    for (seed, image) in ["alone.qcow2", "alone.vhdx", "top.qcow2"]
        .iter()
        .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        let before = match *image {
            "top.qcow2" => tower(dir.path()),
            alone => {
                let format = alone.rsplit('.').next().unwrap();
                dw(dir.path(), &format!("create -f {format} {alone} {SIZE}")).ok();
                vec![0; SIZE]
            }
        };
        let served = Served::start(dir.path(), &format!("-t --writable {image}"));
        let uri = served.uri();
        let lives: Vec<Vec<u8>> = thread::scope(|scope| {
            let guests: Vec<_> = (0..GUESTS)
                .map(|own| {
                    let (uri, model) = (uri.clone(), before.clone());
                    let seed = (seed * GUESTS + own) as u64;
                    scope.spawn(move || live(&uri, own, GUESTS, seed, model))
                })
                .collect();
            guests
                .into_iter()
                .map(|guest| guest.join().unwrap())
                .collect()
        });
        served.asked_to_end(libc::SIGTERM);
        let mut expected = before;
        for (number, block) in expected.chunks_mut(BLOCK).enumerate() {
            let at = number * BLOCK;
            block.copy_from_slice(&lives[number % GUESTS][at..at + block.len()]);
        }
        assert!(flat(dir.path(), image) == expected, "{image}");
        dw(dir.path(), &format!("check {image}")).ok();
        if image.ends_with("qcow2") {
            if *image == "top.qcow2" {
                // It opens no VHDX that has a parent.
                dw(dir.path(), &format!("rebase -u -b  {image}")).ok();
            }
            let checked = qemu.run_in(dir.path(), &["check", "-f", "qcow2", image]);
            assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        }
    }
}

#[test]
fn nobody_writes_unless_that_was_said() {
    let (Some(io), Some(tools)) = (QemuIo::find(), NbdTools::find()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tower(dir);
    let before = fs::read(dir.join("top.qcow2")).unwrap();
    let served = Served::start(dir, "-t -r -x disk top.qcow2");
    let told = tools.info(&served.uri()).unwrap();
    assert_eq!(told["exports"][0]["is_read_only"], true);
    let write = io.run("raw", Path::new(&served.uri()), &["write 0 512"]);
    assert!(write.is_err(), "{write:?}");
    assert!(tools.info(&nbd_uri(&dir.join("nbd"), "disk")).is_ok());
    assert!(tools.info(&nbd_uri(&dir.join("nbd"), "other")).is_err());
    let second = dw(dir, "serve -k nbd top.qcow2").fails(1);
    assert!(second.contains("another server listens"), "{second}");
    served.asked_to_end(libc::SIGINT);
    assert!(fs::read(dir.join("top.qcow2")).unwrap() == before);
}

#[test]
fn no_socket_appears_for_a_disk_that_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tower(dir);
    fs::create_dir(dir.join("below")).unwrap();
    fs::rename(dir.join("top.qcow2"), dir.join("below/top.qcow2")).unwrap();
    let complaint = dw(dir, "serve -k nbd below/top.qcow2").fails(1);
    assert!(complaint.contains("below/top.qcow2"), "{complaint}");
    dw(dir, "serve -k nbd nothing.qcow2").fails(1);
    fs::write(dir.join("precious"), "bytes").unwrap();
    dw(dir, "serve -k precious base.qcow2").fails(1);
    assert_eq!(fs::read(dir.join("precious")).unwrap(), b"bytes");
    assert!(!dir.join("nbd").exists());
    for usage in [
        "serve base.qcow2",
        "serve -k nbd -p 1 base.qcow2",
        "serve -k nbd -r --writable base.qcow2",
        "serve -k nbd -e 0 base.qcow2",
        "serve -k nbd --tls-any-client base.qcow2",
        "serve -k nbd --tls nowhere base.qcow2",
        "serve -k nbd --fork --offset 1T base.qcow2",
    ] {
        assert_eq!(dw(dir, usage).code, 1, "{usage}");
        assert!(!dir.join("nbd").exists(), "{usage}");
    }
}

#[test]
fn with_fork_it_returns_when_clients_are_let_in_and_tells_its_number() {
    let Some(tools) = NbdTools::find() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    let line = "serve -k nbd -D words --offset 4096 --fork --pid-file pid top.qcow2";
    assert_eq!(dw(dir, line).ok(), "");
    let all = tools.list(&nbd_uri(&dir.join("nbd"), "")).unwrap();
    assert_eq!(all["exports"][0]["description"], "words");
    let pid = fs::read_to_string(dir.join("pid")).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    assert_ne!(pid, std::process::id());
    let out = dir.join("out");
    let uri = nbd_uri(&dir.join("nbd"), "");
    tools.copy(&uri, out.to_str().unwrap()).unwrap();
    assert!(fs::read(out).unwrap() == disk[4096..]);
    // Its last client has gone.
    let began = Instant::now();
    while dir.join("nbd").exists() {
        assert!(began.elapsed() < Duration::from_secs(30), "it goes on");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn tcp_is_had_on_request_and_on_this_host_alone() {
    let Some(tools) = NbdTools::find() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = tower(dir);
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut child = command(dir)
        .args(["serve", "-p", &port.to_string(), "top.qcow2"])
        .spawn()
        .unwrap();
    let copied = dir.join("copied");
    let began = Instant::now();
    while let Err(error) = tools.copy(&format!("nbd://127.0.0.1:{port}"), copied.to_str().unwrap())
    {
        assert!(began.elapsed() < Duration::from_secs(30), "{error}");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(fs::read(&copied).unwrap() == disk);
    assert!(child.wait().unwrap().success(), "the last client has gone");
}
