//! `qemu-io`: another process that has an image open.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Ran, find, run};

/// QEMU's I/O exerciser.
#[derive(Debug, Clone)]
pub struct QemuIo(PathBuf);

impl QemuIo {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["qemu-io"], "qemu-utils").map(Self)
    }

    /// Opens `image` for writing and keeps it open for as long as the result lives.
    ///
    /// # Errors
    /// What it complained of when it could not open the image.
    pub fn hold_writable(&self, format: &str, image: &Path) -> Result<Held, String> {
        self.hold(&["-f", format], image)
    }

    /// Opens `image` read-only and keeps it open for as long as the result lives.
    ///
    /// # Errors
    /// What it complained of when it could not open the image.
    pub fn hold_read_only(&self, format: &str, image: &Path) -> Result<Held, String> {
        self.hold(&["-r", "-f", format], image)
    }

    /// Runs commands (`write -P 0xaa 0 64k`) on `image`, opened for writing, to their end.
    ///
    /// # Errors
    /// What it complained of.
    pub fn run(&self, format: &str, image: &Path, commands: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.0);
        command.args(["-f", format]);
        for line in commands {
            command.args(["-c", line]);
        }
        let ran: Ran = run(command.arg(image));
        let stdout = ran.ok()?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    fn hold(&self, args: &[&str], image: &Path) -> Result<Held, String> {
        let mut child = Command::new(&self.0)
            .args(args)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        // It answers questions only once the image is open. A write to a process that has already
        // given up fails, which its own complaint explains better.
        let mut stdin = child.stdin.take().expect("piped");
        let _ = stdin.write_all(b"length\n").and_then(|()| stdin.flush());
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut answer = String::new();
        let answered = stdout.read_line(&mut answer).is_ok_and(|n| n > 0);
        if answered {
            return Ok(Held {
                child,
                stdin,
                _stdout: stdout,
            });
        }
        drop(stdin);
        let mut complaint = String::new();
        let mut stderr = child.stderr.take().expect("piped");
        let _ = stderr.read_to_string(&mut complaint);
        let _ = child.wait();
        Err(complaint)
    }
}

/// An image that `qemu-io` has open; closed on drop.
#[derive(Debug)]
pub struct Held {
    child: Child,
    stdin: std::process::ChildStdin,
    // Kept, for the tool is killed by a write to a pipe that nobody reads.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Held {
    /// Process number of the holder.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the holder, as a crash would: nothing is flushed or closed.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.stdin.write_all(b"quit\n");
        let _ = self.stdin.flush();
        let _ = self.child.wait();
    }
}
