//! Going on in the background: the program runs itself again, in a session of its own, and returns when
//! that one lets clients in, or has failed.
//!
//! ```text
//!   parent ── runs itself, its number in the environment ──► child: setsid, opens, listens
//!      └─ reads the child's standard output ◄── one byte ──────┘ then both outputs go nowhere
//! ```

/// What becomes of this process.
pub(crate) enum Turn {
    /// It did its part: the exit code.
    Parent(u8),
    /// It is the one that serves.
    Child(Background),
}

/// The way back to the process that waits.
pub(crate) struct Background {
    /// Messages still go where they went.
    verbose: bool,
}

#[cfg(unix)]
mod process {
    use std::fs::OpenOptions;
    use std::io::{self, Read, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::{env, process};

    use super::{Background, Turn};

    /// Holds the number of the parent, so that it means nothing to anybody else's children.
    const MARK: &str = "DISKWEAVE_BACKGROUND_OF";
    const READY: &[u8] = b"+";

    /// Parts ways. With `verbose` the child goes on telling what it has to tell.
    pub(crate) fn part(verbose: bool) -> io::Result<Turn> {
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
        if parent.is_some() && env::var(MARK).ok() == parent {
            rustix::process::setsid()?;
            return Ok(Turn::Child(Background { verbose }));
        }
        let mut arguments = env::args_os();
        let called = arguments.next().unwrap_or_default();
        let mut child = Command::new(env::current_exe()?)
            .arg0(called)
            .args(arguments)
            .env(MARK, process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(READY.len() as u64).read_to_end(&mut said)?;
        }
        if said == READY {
            return Ok(Turn::Parent(0));
        }
        // It has said on standard error what went wrong, unless a signal ended it.
        let code = child
            .wait()?
            .code()
            .and_then(|code| u8::try_from(code).ok());
        Ok(Turn::Parent(code.filter(|code| *code != 0).unwrap_or(1)))
    }

    impl Background {
        /// Lets the process that waits return.
        pub(crate) fn tell(self) -> Result<(), String> {
            let tell = || {
                let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
                let mut out = io::stdout();
                // Nobody waits any more: nor is this one wanted.
                out.write_all(READY)?;
                out.flush()?;
                rustix::stdio::dup2_stdout(&nowhere)?;
                if !self.verbose {
                    rustix::stdio::dup2_stderr(&nowhere)?;
                }
                Ok(())
            };
            tell().map_err(|error: io::Error| format!("Failed to go on in the background: {error}"))
        }
    }
}

#[cfg(unix)]
pub(crate) use process::part;

/// Elsewhere nothing is left behind that way.
#[cfg(not(unix))]
pub(crate) fn part(_verbose: bool) -> std::io::Result<Turn> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
impl Background {
    pub(crate) fn tell(self) -> Result<(), String> {
        match self.verbose {
            _ => Err("nobody waits".into()),
        }
    }
}
