//! Timing beside others: what is compared, how much of it, how often; and whether the targets are met.
//!
//! ```text
//!   groups ─► rows in target/bench/results.tsv ─► the table of targets
//!   scale  ─► points in the same file          ─► pictures, and the page about them
//! ```

mod check;
mod convert;
mod instructions;
mod kinds;
mod limits;
mod memory;
mod process;
mod queue;
mod requests;
pub(crate) mod results;
mod scale;
mod sparse;
pub(crate) mod table;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use crate::sh::{self, Outcome};
use results::{Book, Point, Results, Row, Run};

const USAGE: &str = "\
usage: cargo xtask bench [GROUP…] [--mib N] [--rounds N] [--dir DIRECTORY]
       cargo xtask bench GROUP MIB [ROUNDS]
       cargo xtask bench instructions [--record]";
const DEFAULT_MIB: u64 = 1024;
const DEFAULT_ROUNDS: usize = 3;

/// A group of things that are measured together.
struct Group {
    name: &'static str,
    run: fn(&Bench) -> Outcome,
}

const fn group(name: &'static str, run: fn(&Bench) -> Outcome) -> Group {
    Group { name, run }
}

/// All that are run if none is asked for.
const GROUPS: &[Group] = &[
    group("convert", convert::run),
    group("qcow2", |bench| requests::run("qcow2", bench)),
    group("vhdx", |bench| requests::run("vhdx", bench)),
    group("threads", |bench| requests::run("threads", bench)),
    group("chain", |bench| requests::run("chain", bench)),
    group("start", |bench| requests::run("start", bench)),
    group("queue", queue::run),
    group("sparse", sparse::run),
    group("check", check::run),
    group("memory", memory::run),
    group("fsync", |bench| requests::run("fsync", bench)),
];

/// Those that take a name of their own.
const OTHERS: &[Group] = &[group("scale", scale::run)];

/// Where Linux has a file system in memory.
const MEMORY: &str = "/dev/shm";

/// What a group gets.
pub(crate) struct Bench {
    /// For files; it goes with them.
    dir: PathBuf,
    /// Bytes of the disks, and how often each thing is done.
    size: u64,
    rounds: usize,
    diskweave: PathBuf,
    book: Book,
}

impl Bench {
    /// Does something in a directory in memory, which goes with what it leaves; not where there is none.
    fn in_memory(&self, work: impl FnOnce(&Path) -> Outcome) -> Outcome {
        let dir = Path::new(MEMORY).join(format!("diskweave-bench-{}", std::process::id()));
        if fs::create_dir(&dir).is_err() {
            println!("no {MEMORY}: nothing is measured in memory");
            return Ok(());
        }
        let result = work(&dir);
        let removed = fs::remove_dir_all(&dir).map_err(|error| error.to_string());
        result.and(removed)
    }

    /// Keeps a point of a curve, and shows it.
    fn point(&self, curve: &str, line: &str, x: u64, y: f64) -> Outcome {
        println!("{curve}: {line} at {x}: {y:.4}");
        self.book.point(&Point {
            group: "scale".into(),
            curve: curve.into(),
            line: line.into(),
            x: number(x),
            y,
        })
    }

    /// Keeps what was measured, and shows that it was.
    fn row(&self, row: &Row) -> Outcome {
        let theirs = row.theirs.map_or(String::new(), |theirs| {
            format!(", {} {:.4}", row.reference, theirs.median)
        });
        let ratio = row
            .ratio()
            .map_or(String::new(), |r| format!(", {r:.2} times"));
        println!(
            "{}: {:.4} {}{theirs}{ratio}",
            row.work, row.ours.median, row.unit
        );
        self.book.row(row)
    }
}

struct Asked {
    groups: Vec<&'static Group>,
    mib: u64,
    rounds: usize,
    dir: PathBuf,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    if let [name, rest @ ..] = arguments
        && name == "instructions"
    {
        return instructions::run(rest);
    }
    let asked = parse(arguments)?;
    if !sh::installed("qemu-img") {
        return Err("there is no qemu-img to compare with: cargo xtask setup".into());
    }
    let book = Book::usual()?;
    let diskweave = sh::diskweave()?;
    let mut failed = Vec::new();
    for group in asked.groups {
        println!("\n=== {}", group.name);
        book.begin(&Run {
            group: group.name.into(),
            mib: asked.mib,
            rounds: asked.rounds,
        })?;
        let dir = asked.dir.join(format!("bench-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let bench = Bench {
            dir,
            size: asked.mib << 20,
            rounds: asked.rounds,
            diskweave: diskweave.clone(),
            book: book.clone(),
        };
        let result = (group.run)(&bench);
        // The files go whether it went well or not; what was measured stays.
        let removed = fs::remove_dir_all(&bench.dir).map_err(|error| error.to_string());
        if let Err(error) = result.and(removed) {
            failed.push(format!("{}: {error}", group.name));
        }
    }
    table::print(&Results::read(book.path())?);
    println!("all of it: {}", book.path().display());
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n")),
    }
}

fn parse(arguments: &[String]) -> Outcome<Asked> {
    let mut asked = Asked {
        groups: Vec::new(),
        mib: DEFAULT_MIB,
        rounds: DEFAULT_ROUNDS,
        dir: sh::target_dir()?,
    };
    let count = |text: &str| {
        let number: Option<u64> = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{text:?} is no number above 0\n{USAGE}"))
    };
    let times = |text: &str| usize::try_from(count(text)?).map_err(|error| error.to_string());
    let mut numbers = Vec::new();
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        let mut value = || {
            rest.next()
                .ok_or_else(|| format!("{argument} what?\n{USAGE}"))
        };
        match argument {
            "--mib" => asked.mib = count(value()?)?,
            "--rounds" => asked.rounds = times(value()?)?,
            "--dir" => asked.dir = fs::canonicalize(value()?).map_err(|e| e.to_string())?,
            number if number.starts_with(|first: char| first.is_ascii_digit()) => {
                numbers.push(number);
            }
            name => {
                let known = GROUPS.iter().chain(OTHERS);
                let group = known.into_iter().find(|group| group.name == name);
                asked.groups.push(group.ok_or_else(|| groups_are(name))?);
            }
        }
    }
    match numbers[..] {
        [] => {}
        [mib] => asked.mib = count(mib)?,
        [mib, rounds] => (asked.mib, asked.rounds) = (count(mib)?, times(rounds)?),
        _ => return Err(USAGE.into()),
    }
    if asked.groups.is_empty() {
        asked.groups = GROUPS.iter().collect();
    }
    Ok(asked)
}

fn groups_are(name: &str) -> String {
    let names: Vec<_> = GROUPS
        .iter()
        .chain(OTHERS)
        .map(|group| group.name)
        .collect();
    format!("no group {name:?}\n{USAGE}\ngroups: {}", names.join(", "))
}

/// A count to reckon with.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}
