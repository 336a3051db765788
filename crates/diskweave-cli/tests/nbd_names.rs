//! Names of exports of NBD servers where files are named: sources, targets and parents.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{command, dw, names, run};
use testkit::oracle::{NbdServer, QemuImg, nbd_uri};

const MIB: usize = 1 << 20;

/// A server, ended with the test.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Starts `command`, which is to make the socket `name` in `dir`.
    fn start(dir: &Path, name: &str, command: &mut Command) -> Self {
        let socket = dir.join(name);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = child.spawn().unwrap();
        let server = Self { child, socket };
        let end = Instant::now() + Duration::from_secs(30);
        while !server.is_ready() {
            assert!(Instant::now() < end, "no socket {name}");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// It listens, or has made what it makes when it does.
    fn is_ready(&self) -> bool {
        match fs::metadata(&self.socket) {
            Ok(found) if found.file_type().is_socket() => UnixStream::connect(&self.socket).is_ok(),
            found => found.is_ok_and(|found| found.len() > 0),
        }
    }

    /// Ours, of `file` as `args` say.
    fn ours(dir: &Path, name: &str, args: &str) -> Self {
        let mut ours = command(dir);
        ours.args(["serve", "-t", "-k", name]).args(args.split(' '));
        Self::start(dir, name, &mut ours)
    }

    /// QEMU's, of the bytes of `file`; `None` where it is not installed.
    fn qemu(dir: &Path, name: &str, file: &str) -> Option<Self> {
        let mut qemu = Command::new(NbdServer::QemuNbd.find()?);
        let socket = dir.join(name);
        qemu.current_dir(dir).args(["-t", "-e", "8", "-f", "raw"]);
        qemu.arg("-k").arg(socket).arg(file);
        Some(Self::start(dir, name, &mut qemu))
    }

    /// nbdkit with `args`; `None` where it is not installed.
    fn nbdkit(dir: &Path, name: &str, args: &str) -> Option<Self> {
        let mut nbdkit = Command::new(NbdServer::Nbdkit.find()?);
        nbdkit.current_dir(dir).args(["-f", "-U", name]);
        Some(Self::start(dir, name, nbdkit.args(args.split(' '))))
    }

    fn uri(&self) -> String {
        nbd_uri(&self.socket, "")
    }

    fn older(&self) -> String {
        format!("nbd:unix:{}", self.socket.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A disk with data here and there, 8 MiB long.
fn content() -> Vec<u8> {
    let mut disk = vec![0; 8 * MIB];
    for (at, byte) in [(0, 1), (MIB, 2), (3 * MIB + 512, 3), (8 * MIB - 4096, 4)] {
        disk[at..at + 4096].fill(byte);
    }
    disk
}

/// A directory with `disk.raw` of [`content`], and the same as `disk.qcow2`.
fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("disk.raw"), content()).unwrap();
    dw(dir.path(), "convert -f raw -O qcow2 disk.raw disk.qcow2").ok();
    dir
}

/// What the disk `name` reads, opened as `how` says.
fn read(dir: &Path, name: &str, how: &str) -> Vec<u8> {
    let how = how.split_whitespace();
    let line: Vec<&str> = ["convert"].into_iter().chain(how).collect();
    run(dir, &[&line[..], &[name, "read.raw"]].concat()).ok();
    fs::read(dir.join("read.raw")).unwrap()
}

#[test]
fn an_export_is_a_source_like_a_file() {
    let dir = dir();
    let dir = dir.path();
    for copy in ["served.qcow2", "locked.qcow2"] {
        fs::copy(dir.join("disk.qcow2"), dir.join(copy)).unwrap();
    }
    let mut servers = vec![Server::ours(dir, "ours", "-f raw served.qcow2")];
    servers.extend(Server::qemu(dir, "theirs", "locked.qcow2"));
    servers.extend(Server::nbdkit(
        dir,
        "kit",
        "--filter=delay --filter=noextents file served.qcow2 rdelay=1ms",
    ));
    for server in &servers {
        for name in [server.uri(), server.older()] {
            assert!(read(dir, &name, "-f qcow2") == content(), "{name}");
            let same = dw(dir, &format!("compare {name} disk.raw")).ok();
            assert_eq!(same, "Images are identical.\n");
            for line in ["map --output json", "measure -O raw", "check"] {
                let of_export = dw(dir, &format!("{line} {name}")).ok();
                let of_file = dw(dir, &format!("{line} disk.qcow2")).ok();
                assert_eq!(of_export, of_file, "{line} {name}");
            }
            let chain = dw(dir, &format!("chain {name}")).ok();
            assert!(chain.starts_with(&name), "{chain}");
        }
    }
}

#[test]
fn info_of_an_export_is_what_qemu_tells() {
    let dir = dir();
    let dir = dir.path();
    let (Some(server), Some(qemu)) = (Server::qemu(dir, "nbd", "disk.qcow2"), QemuImg::find())
    else {
        return;
    };
    for format in ["qcow2", "raw"] {
        // As it spells the name of the default export.
        let name = server.uri().replace(":///", "://");
        let line = ["info", "-f", format, &name];
        let theirs = qemu.run(&line).ok().unwrap();
        let ours = run(dir, &line).ok();
        let known = |line: &&str| !line.starts_with("    file length") || format == "qcow2";
        let kept = |text: &str| text.lines().filter(known).map(str::to_owned).collect();
        let (ours, theirs): (Vec<String>, Vec<String>) =
            (kept(&ours), kept(&String::from_utf8(theirs).unwrap()));
        assert_eq!(ours, theirs);
        assert!(ours.contains(&"disk size: unavailable".to_owned()));

        let line = ["info", "-f", format, "--output", "json", &name];
        let theirs: Value = serde_json::from_slice(&qemu.run(&line).ok().unwrap()).unwrap();
        assert_eq!(run(dir, &line).json(), theirs);
    }
}

/// The content is judged by another client than the one that wrote it.
#[test]
fn an_export_is_a_target_like_a_file_that_is_there() {
    let dir = dir();
    let dir = dir.path();
    let Some(qemu) = QemuImg::find() else {
        return;
    };
    fs::write(dir.join("new.raw"), vec![0xee; 8 * MIB]).unwrap();
    fs::write(dir.join("old.raw"), vec![0xee; 8 * MIB]).unwrap();
    let mut servers = vec![Server::ours(dir, "ours", "-f raw --writable old.raw")];
    servers.extend(Server::qemu(dir, "theirs", "new.raw"));
    servers.extend(Server::nbdkit(dir, "kit", "--filter=nozero memory 8M"));
    let blocks = "--filter=blocksize-policy memory 8M blocksize-minimum=4096 \
                  blocksize-preferred=4096 blocksize-maximum=64K blocksize-error-policy=error";
    servers.extend(Server::nbdkit(dir, "blocks", blocks));
    for server in &servers {
        let name = server.uri();
        for more in ["", "-S 0 ", "-m 16 "] {
            let line = format!("convert -n {more}-O raw disk.qcow2 {name}");
            assert_eq!(dw(dir, &line).ok(), "");
            let same = qemu.same(("raw", Path::new(&name)), ("raw", &dir.join("disk.raw")));
            assert_eq!(same, Ok(true), "{line}");
        }
    }
}

#[test]
fn an_image_inside_an_export_is_written_into() {
    let dir = dir();
    let dir = dir.path();
    let Some(qemu) = QemuImg::find() else {
        return;
    };
    fs::File::create(dir.join("space"))
        .and_then(|file| file.set_len(64 << 20))
        .unwrap();
    let Some(server) = Server::qemu(dir, "nbd", "space") else {
        return;
    };
    let name = server.uri();
    for format in ["qcow2", "vhdx"] {
        qemu.create(format, Path::new(&name), 8 << 20, "").unwrap();
        let line = format!("convert -n -O {format} disk.raw {name}");
        dw(dir, &line).ok();
        let raw = dir.join("disk.raw");
        let same = qemu.same((format, Path::new(&name)), ("raw", &raw));
        assert_eq!(same, Ok(true), "{format}");
        dw(dir, &format!("check -f {format} {name}")).ok();
    }
}

/// The name in the image is what was given, and whoever trusts the image reads through it.
#[test]
fn an_overlay_over_an_export_reads_it_for_those_who_trust_the_image() {
    let dir = dir();
    let dir = dir.path();
    let server = Server::ours(dir, "nbd", "-f raw disk.raw");
    fs::create_dir(dir.join("sub")).unwrap();
    for (name, file) in [
        (server.uri(), "sub/a.qcow2"),
        (server.older(), "sub/b.qcow2"),
    ] {
        dw(dir, &format!("create -f qcow2 -b {name} -F raw {file}")).ok();
        let told = dw(dir, &format!("info --output json {file}")).json();
        assert_eq!(told["backing-filename"], name.as_str());
        assert!(read(dir, file, "--parents any") == content());
        if let Some(qemu) = QemuImg::find() {
            let same = qemu.same(("qcow2", &dir.join(file)), ("raw", &dir.join("disk.raw")));
            assert_eq!(same, Ok(true));
        }
        let refused = dw(dir, &format!("convert {file} out.raw")).fails(1);
        assert!(refused.contains("no server is asked"), "{refused}");
        assert!(refused.contains("hint: --parents any"), "{refused}");
    }
    dw(dir, "create -f qcow2 -b ../disk.raw -F raw sub/c.qcow2").ok();
    let line = format!(
        "rebase --parents any -b {} -F raw sub/c.qcow2",
        server.uri()
    );
    dw(dir, &line).ok();
    let told = dw(dir, "info --output json sub/c.qcow2").json();
    assert_eq!(told["backing-filename"], server.uri().as_str());
    assert!(read(dir, "sub/c.qcow2", "--parents any") == content());
    // And back to a file, the name of which starts from the image.
    let back = "rebase --parents any -b ../disk.raw -F raw sub/c.qcow2";
    dw(dir, back).ok();
    assert!(read(dir, "sub/c.qcow2", "--parents any") == content());
}

/// An image from a stranger had a server of his choice asked, from inside the network.
#[test]
fn no_server_is_asked_for_a_stranger() {
    let dir = dir();
    let dir = dir.path();
    let unix = UnixListener::bind(dir.join("canary")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    unix.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let address = tcp.local_addr().unwrap();
    for (number, name) in [
        nbd_uri(&dir.join("canary"), ""),
        "nbd:unix:canary".to_owned(),
        format!("nbd://{address}/"),
        format!("nbd:{address}:exportname=x"),
    ]
    .iter()
    .enumerate()
    {
        let file = format!("{number}.qcow2");
        dw(
            dir,
            &format!("create -u -f qcow2 -b {name} -F raw {file} 8M"),
        )
        .ok();
        for line in [
            format!("info {file}"),
            format!("check {file}"),
            format!("info --backing-chain {file}"),
            format!("chain {file}"),
            format!("map {file}"),
            format!("measure -O raw {file}"),
            format!("convert {file} out.raw"),
            format!("convert --parents none {file} out.raw"),
            format!("compare {file} disk.raw"),
            format!("rebase -b disk.raw -F raw {file}"),
            format!("stream {file}"),
            format!("commit {file}"),
            format!("create -f qcow2 -b {file} -F qcow2 child.qcow2"),
            format!("dependents disk.raw {}", dir.display()),
        ] {
            // Whether that can be done without the parent is another question.
            let _ = dw(dir, &line);
        }
    }
    for called in [unix.accept().map(drop), tcp.accept().map(drop)] {
        let error = called.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "a call came");
    }
}

/// What a server serves had files of the working directory be read.
#[test]
fn an_image_in_an_export_has_no_file_beside_it() {
    let dir = dir();
    let dir = dir.path();
    dw(dir, "create -f qcow2 -b disk.raw -F raw child.qcow2").ok();
    let server = Server::ours(dir, "nbd", "-f raw child.qcow2");
    let name = server.uri();
    for more in ["", " --parents any"] {
        let refused = dw(dir, &format!("convert{more} {name} out.raw")).fails(1);
        assert!(refused.contains("has no directory"), "{refused}");
    }
    let absolute = dir.join("disk.raw");
    let line = format!("create -f qcow2 -b {} -F raw far.qcow2", absolute.display());
    dw(dir, &format!("{line} --parents any")).ok();
    let server = Server::ours(dir, "far", "-f raw far.qcow2");
    dw(dir, &format!("convert {} out.raw", server.uri())).fails(1);
    assert!(read(dir, &server.uri(), "--parents any") == content());
    assert!(!dir.join("out.raw").exists());
}

/// A chain of a VHDX over a qcow2 over raw bytes reads the same whichever of them are served.
#[test]
fn a_mixed_chain_over_exports_reads_as_the_same_over_files() {
    let dir = dir();
    let dir = dir.path();
    fs::write(dir.join("more.raw"), vec![9; MIB]).unwrap();
    dw(dir, "create -f qcow2 -b disk.raw -F raw over.qcow2").ok();
    dw(dir, "convert -n -O qcow2 more.raw over.qcow2").ok();
    dw(dir, "create -f vhdx -b over.qcow2 -F qcow2 top.vhdx").ok();
    let files = read(dir, "top.vhdx", "");
    assert!(files[..MIB] == [9; MIB][..] && files[MIB..] == content()[MIB..]);

    let base = Server::ours(dir, "base", "-f raw disk.raw");
    let line = format!("create -f qcow2 -b {} -F raw served.qcow2", base.uri());
    dw(dir, &line).ok();
    dw(
        dir,
        "convert -n --parents any -O qcow2 more.raw served.qcow2",
    )
    .ok();
    dw(
        dir,
        "create --parents any -f vhdx -b served.qcow2 -F qcow2 top2.vhdx",
    )
    .ok();
    assert!(read(dir, "top2.vhdx", "--parents any") == files);

    // The whole chain once more as an export, and a qcow2 over that.
    let whole = Server::ours(dir, "whole", "--parents any top2.vhdx");
    let line = format!("create -f qcow2 -b {} -F raw last.qcow2", whole.uri());
    dw(dir, &line).ok();
    assert!(read(dir, "last.qcow2", "--parents any") == files);
}

#[test]
fn what_takes_files_says_that_an_export_is_none() {
    let dir = dir();
    let dir = dir.path();
    let server = Server::ours(dir, "nbd", "-f raw --writable disk.raw");
    let name = server.uri();
    let before = names(dir);
    for line in [
        format!("create -f raw {name} 1M"),
        format!("convert disk.qcow2 {name}"),
        format!("flatten disk.qcow2 {name}"),
        format!("clone disk.qcow2 {name}"),
        format!("clone {name} child.qcow2"),
        format!("fork {name} base"),
        format!("dependents {name}"),
        format!("create -f vhdx -b {name} -F raw child.vhdx"),
        format!("rebase -b disk.qcow2 -F qcow2 {name}"),
    ] {
        let refused = dw(dir, &line).fails(1);
        assert!(
            refused.contains("is an export of a server"),
            "{line}: {refused}"
        );
        assert!(refused.contains(&name), "{line}: {refused}");
    }
    let own = format!("convert -n -f raw -O raw {name} {}", server.older());
    let refused = dw(dir, &own).fails(1);
    assert!(refused.contains("one of the files"), "{refused}");
    assert_eq!(names(dir), before);
    assert!(fs::read(dir.join("disk.raw")).unwrap() == content());
}

#[test]
fn a_vhdx_is_not_put_over_an_export_and_stays_as_it_is() {
    let dir = dir();
    let dir = dir.path();
    let server = Server::ours(dir, "nbd", "-f raw disk.raw");
    dw(dir, "create -f vhdx -b disk.qcow2 -F qcow2 child.vhdx").ok();
    let before = fs::read(dir.join("child.vhdx")).unwrap();
    for more in ["", "-u "] {
        let line = format!("rebase {more}-b {} -F raw child.vhdx", server.uri());
        let refused = dw(dir, &line).fails(1);
        assert!(refused.contains("a VHDX names files"), "{refused}");
        let now = fs::read(dir.join("child.vhdx")).unwrap();
        assert!(now == before, "something was copied first");
    }
}

#[test]
fn errors_name_the_export_and_the_reason() {
    let dir = dir();
    let dir = dir.path();
    let server = Server::ours(dir, "nbd", "-f raw disk.raw");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (name, reason) in [
        (
            nbd_uri(&dir.join("gone"), ""),
            "no connection to the server",
        ),
        (format!("nbd://{port}/"), "no connection to the server"),
        (nbd_uri(&server.socket, "other"), "the server refuses"),
        ("nbds://127.0.0.1/".to_owned(), "tls-certificates=DIR"),
        (
            "nbds://127.0.0.1/?tls-certificates=/nowhere".to_owned(),
            "/nowhere/ca-cert.pem",
        ),
        (
            format!("{}&tls-hostname=x", server.uri()),
            "TLS is spoken where the name begins with nbds",
        ),
        ("nbd:nowhere".to_owned(), "an export is nbd://HOST"),
    ] {
        let error = dw(dir, &format!("info {name}")).fails(1);
        assert!(error.contains(&format!("'{name}'")), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    let refused = dw(
        dir,
        &format!("convert -n -O raw disk.qcow2 {}", server.uri()),
    )
    .fails(1);
    assert!(refused.contains("read-only"), "{refused}");
    // A file that looks like one.
    fs::copy(dir.join("disk.raw"), dir.join("nbd:host:1")).unwrap();
    dw(dir, "info -f raw ./nbd:host:1").ok();
}

#[test]
fn by_tcp_it_is_the_same() {
    let dir = dir();
    let dir = dir.path();
    let Some(kit) = NbdServer::Nbdkit.find() else {
        return;
    };
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = address.port().to_string();
    let pid = dir.join("pid");
    let mut command = Command::new(kit);
    command
        .current_dir(dir)
        .args(["-f", "-i", "127.0.0.1", "-p", &port, "-P", "pid"]);
    let server = Server::start(dir, "pid", command.args(["file", "disk.raw"]));
    for name in [
        format!("nbd://{address}/"),
        format!("nbd://127.0.0.1:{port}"),
        format!("nbd:{address}"),
    ] {
        assert!(read(dir, &name, "-f raw") == content(), "{name}");
    }
    drop((server, pid));
}

/// A server that fails in the midst is an error, and nothing that looks whole is left.
#[test]
fn a_server_that_fails_leaves_no_destination() {
    let dir = dir();
    let dir = dir.path();
    let failing = "--filter=error file disk.raw error=EIO error-pread-rate=100%";
    let Some(server) = Server::nbdkit(dir, "nbd", failing) else {
        return;
    };
    let error = dw(dir, &format!("convert -f raw {} out.raw", server.uri())).fails(1);
    assert!(error.contains("the server fails"), "{error}");
    assert!(!dir.join("out.raw").exists());
    assert_eq!(names(dir), ["disk.qcow2", "disk.raw", "nbd"]);
}
