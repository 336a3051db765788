//! `serve` under pressure, and asked for what makes no sense, by clients that nobody here wrote.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{command, dw};
use testkit::oracle::{Fio, Nbdsh, nbd_uri};

const SIZE: usize = 16 << 20;

/// A server at the socket `nbd`, killed if a test fails before it has ended.
struct Served(Child);

impl Served {
    fn start(dir: &Path, line: &str) -> Self {
        let child = command(dir)
            .args(["serve", "-k", "nbd", "-t"])
            .args(line.split(' '))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !dir.join("nbd").exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "no socket");
            thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    fn ends(mut self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn fio_reads_what_it_wrote_and_the_images_are_clean() {
    let Some(fio) = Fio::find() else {
        return;
    };
    for format in ["raw", "qcow2", "vhdx"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        dw(dir, &format!("create -q -f {format} disk {SIZE}")).ok();
        let served = Served::start(dir, &format!("--writable -f {format} disk"));
        let uri = nbd_uri(&dir.join("nbd"), "");
        fio.verify(dir, &uri, SIZE).unwrap();
        served.ends();
        if format != "raw" {
            dw(dir, &format!("check -q -f {format} disk")).ok();
        }
    }
}

/// Each request as libnbd would never send it; the number of the error, and the connection lives.
const ILLEGAL: &str = r#"
import errno
h.set_strict_mode(0)
size = h.get_size()
def told(what, call):
    try:
        call()
        print(what, "went well")
    except nbd.Error as error:
        print(what, error.errno)
told("read past the end", lambda: h.pread(512, size - 1))
told("write past the end", lambda: h.pwrite(bytearray(512), size - 1))
told("read with a flag", lambda: h.pread(512, 0, nbd.CMD_FLAG_FAST_ZERO))
told("write with a flag", lambda: h.pwrite(bytearray(512), 0, nbd.CMD_FLAG_DF))
told("zero past the end", lambda: h.zero(2**32 - 1, 512))
told("trim past the end", lambda: h.trim(2**32 - 1, 512))
told("cache past the end", lambda: h.cache(512, size))
told("status of nothing selected", lambda: h.block_status(512, 0, lambda *_: 0))
told("unaligned", lambda: h.pwrite(b"abc", 1))
assert h.pread(3, 1) == (b"abc" if not h.is_read_only() else bytes(3))
assert h.aio_is_ready()
"#;

#[test]
fn illegal_requests_get_their_errors_and_the_connection_lives() {
    let Some(nbdsh) = Nbdsh::find() else {
        return;
    };
    for (writable, changes, past) in [(true, "went well", "ENOSPC"), (false, "EPERM", "EPERM")] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        dw(dir, &format!("create -q -f raw disk {SIZE}")).ok();
        let mode = if writable { "--writable" } else { "-r" };
        let served = Served::start(dir, &format!("{mode} -f raw disk"));
        let told = nbdsh.run(&nbd_uri(&dir.join("nbd"), ""), ILLEGAL).unwrap();
        let trim = if writable { "EINVAL" } else { "EPERM" };
        let expected = format!(
            "read past the end EINVAL\n\
             write past the end {past}\n\
             read with a flag EINVAL\n\
             write with a flag EINVAL\n\
             zero past the end {past}\n\
             trim past the end {trim}\n\
             cache past the end EINVAL\n\
             status of nothing selected EINVAL\n\
             unaligned {changes}\n"
        );
        assert_eq!(told, expected, "{mode}");
        served.ends();
    }
}
