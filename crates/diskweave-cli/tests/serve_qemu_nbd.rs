//! The same command lines for QEMU's server and for this program in its place: what they say, what
//! clients are told, and what is in the image afterwards.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::dw;
use testkit::oracle::{Certtool, NbdServer, NbdTools, QemuImg, nbd_uri};

const PATIENCE: Duration = Duration::from_secs(30);
const SIZE: usize = 1 << 20;

/// Both, by the name of the first.
fn both() -> Option<[PathBuf; 2]> {
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_diskweave"));
    Some([NbdServer::QemuNbd.find()?, ours])
}

/// `server` in `dir`, with `line` split at spaces. `DIR` in it is the directory.
fn command(server: &Path, dir: &Path, line: &str) -> Command {
    let mut command = Command::new(server);
    command.arg0("qemu-nbd").current_dir(dir);
    command.stdin(Stdio::null());
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let word = word.replace("DIR", dir.to_str().unwrap());
        command.arg(if word == "''" { "" } else { &word });
    }
    command
}

/// A directory with a raw image, a qcow2 with a snapshot, one whose backing file is missing, and a
/// broken one.
fn images() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut bytes = vec![0; SIZE];
    testkit::Rng::new(11).fill(&mut bytes[..SIZE / 2]);
    // Not to be taken for anything.
    bytes[..512].fill(0);
    fs::write(path.join("r.raw"), &bytes).unwrap();
    dw(path, "convert -f raw -O qcow2 r.raw q.qcow2").ok();
    dw(path, "snapshot -c before q.qcow2").ok();
    dw(path, &format!("create -q -f raw base.raw {SIZE}")).ok();
    dw(path, "create -q -f qcow2 -b base.raw -F raw over.qcow2").ok();
    fs::remove_file(path.join("base.raw")).unwrap();
    dir
}

/// What a server says that is not to start; it is killed when it does.
fn refused(server: &Path, dir: &Path, line: &str) -> (Option<i32>, String) {
    let mut child = command(server, dir, line)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(2));
    }
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    let dir = dir.to_str().unwrap();
    (status.code(), said.replace(dir, "DIR"))
}

#[test]
fn mistakes_are_told_in_the_same_words() {
    let Some([theirs, ours]) = both() else {
        return;
    };
    let long = format!("-k DIR/{} -f raw r.raw", "a".repeat(120));
    let name = format!("-k DIR/nbd -f raw -x {} r.raw", "n".repeat(5000));
    let lines = [
        "",
        "-k DIR/nbd",
        "-k DIR/nbd missing",
        "-k DIR/nbd -f raw missing",
        "-k DIR/nbd -f qcow2 r.raw",
        "-k DIR/nbd -f bogus r.raw",
        "-k DIR/nbd -f vhdx r.raw",
        "-k DIR/nbd -f qcow2 over.qcow2",
        "-k DIR/nbd -f raw DIR",
        "-k DIR/nbd -f raw ''",
        &long,
        &name,
        "-k relative -f raw r.raw",
        "-k DIR/nowhere/nbd -f raw r.raw",
        "--fork -k DIR/nowhere/nbd -f raw r.raw",
        "--fork -k DIR/nbd -f raw missing",
        "-b 1.2.3.4 -p 1 -f raw r.raw",
        "-p x -f raw r.raw",
        "-k DIR/nbd --pid-file=DIR/nowhere/pid -f raw r.raw",
        "--bogus r.raw",
        "-Z r.raw",
        "-P 1 r.raw",
        "-k",
        "--tls-creds",
        "--s",
        "--persistent=3 r.raw",
        "-k DIR/nbd -f raw r.raw extra",
        "-e x r.raw",
        "-e -1 r.raw",
        "-e 99999999999 r.raw",
        "-o x -f raw r.raw",
        "-o 2M -f raw r.raw",
        "-o -5 -f raw r.raw",
        "-k DIR/nbd -o 1048577 -f raw r.raw",
        "-k DIR/nbd --cache=bogus r.raw",
        "-k DIR/nbd -n --cache=none r.raw",
        "-k DIR/nbd --aio=bogus r.raw",
        "-k DIR/nbd --discard=bogus r.raw",
        "-k DIR/nbd --detect-zeroes=bogus r.raw",
        "-k DIR/nbd --detect-zeroes=unmap -f raw r.raw",
        "-k DIR/nbd --handshake-limit=x r.raw",
        "-k DIR/nbd --image-opts -f raw r.raw",
        "-k DIR/nbd --image-opts driver=raw,file.filename=missing",
        "-k DIR/nbd -l nothing -f qcow2 q.qcow2",
        "-k DIR/nbd --tls-creds t -f raw r.raw",
        "-k DIR/nbd --tls-authz t -f raw r.raw",
        "-k DIR/nbd --tls-hostname t -f raw r.raw",
        "-k DIR/nbd --object bogus,id=t -f raw r.raw",
        "-k DIR/nbd --object tls-creds-x509,endpoint=server,dir=DIR -f raw r.raw",
        "-k DIR/nbd --object tls-creds-x509,id=t,endpoint=server,dir=DIR -f raw r.raw",
        "-k DIR/nbd --object tls-creds-x509,id=t,endpoint=x,dir=DIR -f raw r.raw",
        "-k DIR/nbd --object tls-creds-x509,id=t,dir=DIR,verify-peer=maybe -f raw r.raw",
        "-L",
        "-L -p x",
        "-L -b no.such.host.invalid",
        "-L -k DIR/nbd",
        "-L -k DIR/nbd -p 5 -r -t -v -s -e 5 --image-opts --pid-file=DIR/pid",
        "-L -k relative -x name",
        "-L r.raw",
        "-L -k DIR/nbd r.raw extra",
        "-L -x name",
        "-L -x name --fork r.raw",
        "-L -D words -p x",
        "-L -f raw --fork",
        "-L -A",
        "-L -B map",
        "-L -d",
        "-L -n",
        "-L --aio=threads",
        "-L --discard=unmap",
        "-L --cache=bogus",
        "-L -o 5",
        "-L -o 0 -l snapshot.id=1",
        "-L -l name",
        "-L --fork --tls-creds t",
        "-L -e x",
        "-L --tls-creds t",
        "-L --tls-hostname t",
        "-L -k DIR/nbd --object tls-creds-x509,id=t,dir=DIR --tls-creds t",
    ];
    let dir = images();
    for line in lines {
        let [expected, is] = [&theirs, &ours].map(|server| refused(server, dir.path(), line));
        assert_eq!(expected.0, Some(1), "{line}: {}", expected.1);
        assert_eq!(is, expected, "{line}");
    }
}

/// True of a socket that is bound and does not listen: QEMU's has its name a moment before it lets anybody
/// in.
fn is_deaf(socket: &Path) -> bool {
    const LISTENS: u32 = 1 << 16;
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let found = sockets.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
        (Path::new(fields.get(7)?) == socket).then_some(flags)
    });
    let found: Vec<u32> = found.collect();
    // Ours has its name by being renamed, of which the host's list knows nothing.
    !found.is_empty() && found.iter().all(|flags| flags & LISTENS == 0)
}

/// A server at the socket `nbd`, once it is there.
struct Served(Child);

impl Served {
    fn start(server: &Path, dir: &Path, line: &str) -> Self {
        let socket = dir.join("nbd");
        let line = format!("-k DIR/nbd {line}");
        let mut child = command(server, dir, &line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let there = || {
            let is_socket = fs::metadata(&socket).is_ok_and(|found| found.file_type().is_socket());
            is_socket && !is_deaf(&socket)
        };
        while !there() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{line}: {:?}", child.wait_with_output());
            assert!(began.elapsed() < PATIENCE, "no socket: {line}");
            thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    /// Asks it to end unless it does by itself; gives its exit code and what it said.
    fn ended(mut self, dir: &Path) -> (Option<i32>, String) {
        let began = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_millis(300) {
                let pid = i32::try_from(self.0.id()).unwrap();
                // SAFETY: sends a signal to a child that has not been waited for.
                assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
        let output = self.0.wait_with_output().unwrap();
        // QEMU's leaves it behind.
        let _ = fs::remove_file(dir.join("nbd"));
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

/// What is told of the export that does not depend on who serves it.
fn told(dir: &Path, name: &str) -> Value {
    let tools = NbdTools::find().unwrap();
    let all = tools.info(&nbd_uri(&dir.join("nbd"), name)).unwrap();
    let export = &all["exports"][0];
    let keys = [
        "export-name",
        "description",
        "export-size",
        "contexts",
        "is_read_only",
        "can_flush",
        "can_fua",
        "can_zero",
        "can_df",
        "can_multi_conn",
        "can_cache",
    ];
    let facts = keys
        .iter()
        .map(|key| (key.to_string(), export[key].clone()));
    json!({ "tls": all["TLS"], "export": facts.collect::<serde_json::Map<_, _>>() })
}

/// Patterns written, zeroed and discarded, and whether each went well.
fn written(dir: &Path, name: &str) -> Vec<bool> {
    let uri = nbd_uri(&dir.join("nbd"), name);
    let run = |action: &str| {
        let ran = Command::new("qemu-io")
            .args(["-f", "raw", "-c", action, &uri])
            .output();
        ran.unwrap().status.success()
    };
    [
        "write -P 0x11 64k 64k",
        "write -P 0x22 1000 3000",
        "write -z 128k 64k",
        "write -z -u 256k 64k",
        "write -f -P 0x33 512k 4k",
        "write -P 0 600k 64k",
        "read -P 0x11 64k 64k",
        "read 1020k 64k",
    ]
    .map(run)
    .to_vec()
}

#[test]
fn clients_are_told_and_images_hold_the_same() {
    let (Some(servers), Some(img), Some(_)) = (both(), QemuImg::find(), NbdTools::find()) else {
        return;
    };
    // The line, the export's name, the image, its format.
    for (line, name, image, format) in [
        ("-t -f raw r.raw", "", "r.raw", "raw"),
        ("-t r.raw", "", "r.raw", "raw"),
        ("-t -f qcow2 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t q.qcow2 -x a -D words", "a", "q.qcow2", "qcow2"),
        ("-t -r -f raw r.raw", "", "r.raw", "raw"),
        ("-tr -f qcow2 -A q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t -A -e 0 -f qcow2 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t -e 2 -f raw r.raw", "", "r.raw", "raw"),
        ("-t -o 4096 -f raw r.raw", "", "r.raw", "raw"),
        ("-t -o 0x10000 -f qcow2 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t -s -f raw r.raw", "", "r.raw", "raw"),
        ("-t -s -f qcow2 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t -l before -f qcow2 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t -l snapshot.id=1 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t -n -f raw r.raw", "", "r.raw", "raw"),
        ("-t --cache=writethrough -f raw r.raw", "", "r.raw", "raw"),
        ("-t --cache=unsafe -f qcow2 q.qcow2", "", "q.qcow2", "qcow2"),
        ("-t --aio=threads -f raw r.raw", "", "r.raw", "raw"),
        ("-t --discard=unmap -f raw r.raw", "", "r.raw", "raw"),
        (
            "-t --discard=unmap --detect-zeroes=unmap -f raw r.raw",
            "",
            "r.raw",
            "raw",
        ),
        (
            "-t --detect-zeroes=on -f qcow2 q.qcow2",
            "",
            "q.qcow2",
            "qcow2",
        ),
        (
            "-t --image-opts driver=raw,file.filename=r.raw",
            "",
            "r.raw",
            "raw",
        ),
        (
            "-t --image-opts driver=qcow2,file.filename=q.qcow2",
            "",
            "q.qcow2",
            "qcow2",
        ),
        ("-t --handshake-limit 0 -f raw r.raw", "", "r.raw", "raw"),
        ("-f raw r.raw -v -t", "", "r.raw", "raw"),
    ] {
        let [expected, is] = servers.each_ref().map(|server| {
            let dir = images();
            let dir = dir.path();
            let served = Served::start(server, dir, line);
            let told = told(dir, name);
            let written = written(dir, name);
            let ended = served.ended(dir);
            let flat = dir.join("flat");
            img.to_raw(format, &dir.join(image), &flat).unwrap();
            if format == "qcow2" {
                let checked = img.run_in(dir, &["check", "-f", "qcow2", image]);
                assert_eq!(checked.code, Some(0), "{line}: {}", checked.stderr);
            }
            (told, written, ended, fs::read(flat).unwrap())
        });
        assert_eq!(is.0, expected.0, "{line}");
        assert_eq!(is.1, expected.1, "{line}");
        assert_eq!(is.2, expected.2, "{line}");
        assert!(is.3 == expected.3, "{line}: other bytes");
    }
}

#[test]
fn without_t_both_end_with_their_last_client() {
    let (Some(servers), Some(_)) = (both(), NbdTools::find()) else {
        return;
    };
    for server in &servers {
        let dir = images();
        let mut served = Served::start(server, dir.path(), "-f raw r.raw");
        NbdTools::find()
            .unwrap()
            .copy(
                &nbd_uri(&dir.path().join("nbd"), ""),
                dir.path().join("out").to_str().unwrap(),
            )
            .unwrap();
        let began = Instant::now();
        while served.0.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "{server:?} goes on");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(served.0.wait().unwrap().success());
    }
}

/// Both return when clients are let in, and not before; the file has the number of who serves.
#[test]
fn with_fork_both_return_when_they_can_be_used() {
    let (Some(servers), Some(_)) = (both(), NbdTools::find()) else {
        return;
    };
    for server in &servers {
        let dir = images();
        let dir = dir.path();
        let line = "-t -k DIR/nbd --fork --pid-file=DIR/pid -f raw r.raw";
        let began = command(server, dir, line).output().unwrap();
        assert!(began.status.success(), "{began:?}");
        assert!(
            began.stdout.is_empty() && began.stderr.is_empty(),
            "{began:?}"
        );
        assert_eq!(told(dir, "")["export"]["export-size"], SIZE);
        let pid = fs::read_to_string(dir.join("pid")).unwrap();
        let pid: i32 = pid.strip_suffix('\n').unwrap().parse().unwrap();
        let uri = nbd_uri(&dir.join("nbd"), "");
        let write = ["-f", "raw", "-c", "write -P 0x77 0 64k", &uri];
        let write = Command::new("qemu-io").args(write).output().unwrap();
        assert!(write.status.success(), "{write:?}");
        // SAFETY: asks a process to end that this test has started.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        let began = Instant::now();
        // It is nobody's child here: it is gone when it cannot be connected to.
        while std::os::unix::net::UnixStream::connect(dir.join("nbd")).is_ok() {
            assert!(began.elapsed() < PATIENCE, "{server:?} goes on");
            thread::sleep(Duration::from_millis(5));
        }
        let raw = fs::read(dir.join("r.raw")).unwrap();
        assert!(raw[..64 << 10].iter().all(|byte| *byte == 0x77));
    }
}

/// A socket as a service manager hands it over: number 3, and the environment says so.
#[test]
fn a_socket_that_was_handed_over_is_served() {
    let (Some(servers), Some(_)) = (both(), NbdTools::find()) else {
        return;
    };
    for server in &servers {
        let dir = images();
        let dir = dir.path();
        let listener = UnixListener::bind(dir.join("nbd")).unwrap();
        // A shell knows its own number, which the server then has.
        let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" --compat=qemu-nbd \"$@\" 3<&0";
        let plain = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0";
        let script = if server == &servers[0] { plain } else { script };
        let start = |line: &str| {
            let stdin = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
            let mut command = Command::new("sh");
            command.current_dir(dir).args(["-c", script]).arg(server);
            command.args(line.split(' ')).stdin(Stdio::from(stdin));
            command
        };
        let mut child = start("-f raw r.raw").spawn().unwrap();
        // By one connection: who connects after the last has gone would wait for ever.
        let uri = nbd_uri(&dir.join("nbd"), "");
        let size = Command::new("nbdinfo").args(["--size", &uri]).output();
        assert_eq!(size.unwrap().stdout, format!("{SIZE}\n").into_bytes());
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "{server:?} goes on");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(child.wait().unwrap().success());
        assert!(dir.join("nbd").exists(), "it is not the server's to remove");
        let refused = start("-p 1 -f raw r.raw").output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let expected = "qemu-nbd: TCP port number can't be set when using socket activation\n";
        assert_eq!((refused.status.code(), &*said), (Some(1), expected));
    }
}

#[test]
fn within_tls_both_serve_who_has_a_certificate() {
    let (Some(servers), Some(tools), Some(certtool)) = (both(), NbdTools::find(), Certtool::find())
    else {
        return;
    };
    let pki = tempfile::tempdir().unwrap();
    certtool.make(&pki.path().join("pki"));
    let pki = pki.path().join("pki");
    let pki = pki.display();
    for server in &servers {
        let dir = images();
        let line = format!(
            "-t --object tls-creds-x509,id=t,dir={pki},endpoint=server --tls-creds t -f raw r.raw"
        );
        let served = Served::start(server, dir.path(), &line);
        let socket = dir.path().join("nbd");
        let socket = socket.display();
        let uri = format!("nbds+unix://localhost/?socket={socket}&tls-certificates={pki}");
        assert_eq!(tools.info(&uri).unwrap()["TLS"], true, "{server:?}");
        assert!(tools.info(&nbd_uri(&dir.path().join("nbd"), "")).is_err());
        assert_eq!(served.ended(dir.path()).0, Some(0));
    }
}

/// What a program that lists prints, and its exit code.
fn listed(program: &Path, dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let output = command(program, dir, &format!("-L {line}"))
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Both programs list the same, which begins with `exports available: COUNT`.
fn listed_alike(dir: &Path, line: &str, count: usize) -> String {
    let [expected, is] = both().unwrap().map(|program| listed(&program, dir, line));
    assert_eq!(expected.0, Some(0), "{line}: {}", expected.2);
    let first = format!("exports available: {count}\n");
    assert!(expected.1.starts_with(&first), "{line}: {}", expected.1);
    assert_eq!(is, expected, "{line}");
    is.1
}

#[test]
fn exports_are_listed_to_the_byte() {
    let Some(servers) = both() else {
        return;
    };
    for server in &servers {
        for (line, told) in [
            ("-t -f raw r.raw", "export: ''"),
            ("-t -r -f raw r.raw -x a -D words", "description: words"),
            ("-t -A -f qcow2 q.qcow2", "qemu:allocation-depth"),
            ("-t -e 5 -f qcow2 q.qcow2", "base:allocation"),
            ("-t -o 4096 -r -f raw r.raw", "readonly"),
        ] {
            let dir = images();
            let dir = dir.path();
            let served = Served::start(server, dir, line);
            let text = listed_alike(dir, "-k DIR/nbd", 1);
            assert!(text.contains(told), "{line}: {text}");
            served.ended(dir);
        }
    }
}

/// A server by `arguments`, ended when it is dropped.
struct Nbdkit(Child);

impl Nbdkit {
    fn start(dir: &Path, arguments: &[&str]) -> Option<Self> {
        let child = Command::new(NbdServer::Nbdkit.find()?)
            .current_dir(dir)
            .arg("-f")
            .args(arguments)
            .stderr(Stdio::null())
            .spawn();
        let served = Self(child.unwrap());
        let began = Instant::now();
        while !dir.join("pid").exists() {
            assert!(began.elapsed() < PATIENCE, "no server");
            thread::sleep(Duration::from_millis(5));
        }
        Some(served)
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn several_exports_and_those_of_older_servers_are_listed_to_the_byte() {
    let Some(_) = both() else {
        return;
    };
    let policy = [
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=1M",
    ];
    let policy = [&["--filter=blocksize-policy", "memory", "1M"], &policy[..]].concat();
    for (arguments, count) in [
        (&["file", "dir=exports"][..], 3),
        (&policy, 1),
        (&["--no-sr", "memory", "1000"], 1),
        (&["--oldstyle", "memory", "1000"], 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir(dir.join("exports")).unwrap();
        for (name, size) in [("one", 1 << 20), ("it's two", 1000), ("none", 0)] {
            let file = fs::File::create(dir.join("exports").join(name)).unwrap();
            file.set_len(size).unwrap();
        }
        let arguments = [&["-P", "pid", "-U", "nbd"], arguments].concat();
        let Some(served) = Nbdkit::start(dir, &arguments) else {
            return;
        };
        match arguments.contains(&"--oldstyle") {
            true => {
                let (code, _, error) = listed(&both().unwrap()[1], dir, "-k DIR/nbd");
                assert_eq!(code, Some(1));
                assert!(error.contains("no NBD server"), "{error}");
            }
            false => drop(listed_alike(dir, "-k DIR/nbd", count)),
        }
        drop(served);
    }
}

#[test]
fn within_tls_and_by_tcp_exports_are_listed_as_well() {
    let (Some([theirs, ours]), Some(certtool)) = (both(), Certtool::find()) else {
        return;
    };
    let object = "--object tls-creds-x509,id=t,dir=DIR";
    for server in [&theirs, &ours] {
        let dir = images();
        let dir = dir.path();
        for pki in ["pki", "others"] {
            certtool.make(&dir.join(pki));
        }
        let line = format!("-t -e 5 {object}/pki,endpoint=server --tls-creds t -f raw r.raw");
        let served = Served::start(server, dir, &line);
        let clients = format!("-k DIR/nbd {object}/pki,endpoint=client --tls-creds t");
        listed_alike(dir, &format!("{clients} --tls-hostname localhost"), 1);
        for (line, alike) in [
            (clients.clone(), true),
            ("-k DIR/nbd".into(), server == &theirs),
            (format!("{clients} --tls-hostname elsewhere"), false),
            (
                clients.replace("pki,", "others,") + " --tls-hostname localhost",
                false,
            ),
            (format!("{clients} --tls-authz x"), true),
            (clients.replace("=client", "=server"), true),
            (clients.replace("/pki", "/nowhere"), true),
        ] {
            let [expected, is] = [&theirs, &ours].map(|program| listed(program, dir, &line));
            assert_eq!((expected.0, is.0), (Some(1), Some(1)), "{line}: {is:?}");
            assert_eq!(is.1, "", "{line}");
            assert!(!alike || is == expected, "{line}: {is:?}, {expected:?}");
        }
        served.ended(dir);
        let served = Served::start(server, dir, "-t -e 5 -f raw r.raw");
        let [expected, is] = [&theirs, &ours].map(|program| {
            let line = format!("{clients} --tls-hostname localhost");
            let (code, _, error) = listed(program, dir, &line);
            (code, error.lines().next().map(str::to_owned))
        });
        assert_eq!((is.0, &is), (Some(1), &expected), "it has no TLS");
        served.ended(dir);
    }
    let dir = images();
    let dir = dir.path();
    // Not one of those that the host deals out: whoever waits for a server there could meet himself.
    let port = 20_000 + std::process::id() % 10_000;
    let port = u16::try_from(port).unwrap();
    for server in [&theirs, &ours] {
        let line = format!("-t -e 5 -b 127.0.0.1 -p {port} -f raw r.raw");
        let mut child = command(server, dir, &line).spawn().unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "no server");
            thread::sleep(Duration::from_millis(5));
        }
        listed_alike(dir, &format!("-b 127.0.0.1 -p {port}"), 1);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
