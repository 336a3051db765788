//! Programs timed in turn, with the memory that each took at most.
//!
//! The program in `benches` starts them: the kernel tells the memory of a child to who waited for it,
//! which takes a call that this program, without dependencies, does not have.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::results::Value;
use crate::sh::{self, Outcome};

/// One run of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    pub(super) time: Duration,
    /// Bytes of memory.
    pub(super) peak: u64,
}

/// All runs of one program.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs(Vec<Ran>);

impl Runs {
    pub(super) fn push(&mut self, ran: Ran) {
        self.0.push(ran);
    }

    /// In seconds.
    pub(super) fn seconds(&self) -> Value {
        Value::least(self.0.iter().map(|ran| ran.time.as_secs_f64()).collect())
    }

    pub(super) fn millis(&self) -> Value {
        let Value { best, median } = self.seconds();
        Value {
            best: best * 1e3,
            median: median * 1e3,
        }
    }

    /// The most of all runs.
    pub(super) fn peak(&self) -> u64 {
        self.0.iter().map(|ran| ran.peak).max().unwrap_or(0)
    }

    /// The same in MiB.
    pub(super) fn peak_mib(&self) -> Value {
        #[allow(clippy::cast_precision_loss)]
        Value::once(self.peak() as f64 / f64::from(1 << 20))
    }
}

/// Starts programs in one directory.
#[derive(Debug)]
pub(super) struct Launcher {
    program: PathBuf,
    dir: PathBuf,
}

impl Launcher {
    /// Builds what starts them.
    pub(super) fn new(dir: &Path) -> Outcome<Self> {
        Ok(Self {
            program: super::requests::build()?,
            dir: dir.to_owned(),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program that runs in the directory.
    pub(super) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).args(arguments);
        command
    }

    /// Runs it and says what it took; it must end well.
    pub(super) fn run(&self, command: &Command) -> Outcome<Ran> {
        let mut launch = Command::new(&self.program);
        launch.arg("launch").arg(command.get_program());
        launch.args(command.get_args()).current_dir(&self.dir);
        let said = sh::output(launch.stdin(Stdio::null()))?;
        let numbers: Vec<u64> = said
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        let [nanos, peak] = numbers[..] else {
            return Err(format!("`{}` was measured as {said:?}", sh::shown(command)));
        };
        Ok(Ran {
            time: Duration::from_nanos(nanos),
            peak,
        })
    }

    /// Runs each so often, in turn; who begins changes from round to round. `between` is called after each
    /// run with its place in the list.
    pub(super) fn in_turn(
        &self,
        commands: &[Command],
        rounds: usize,
        mut between: impl FnMut(usize) -> Outcome,
    ) -> Outcome<Vec<Runs>> {
        let mut runs = vec![Runs::default(); commands.len()];
        for round in 0..rounds {
            for turn in 0..commands.len() {
                let number = (round + turn) % commands.len();
                runs[number].push(self.run(&commands[number])?);
                between(number)?;
            }
        }
        Ok(runs)
    }
}

/// Has the host write out what runs before left: it would be paid for by the next.
pub(super) fn settle() {
    let _ = Command::new("sync").status();
}
