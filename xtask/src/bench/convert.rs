//! `diskweave convert` beside `qemu-img convert`: the same jobs, in turn, in one run.
//!
//! Sources are made by `qemu-img`, files are warm in memory, and each program gets its destination
//! fresh. The first result of ours for each pair is held against the source, so that nobody is fast
//! at the wrong thing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Extent;
use crate::disk_content;
use crate::sh::{self, Outcome};

/// An image of one kind, as both programs are asked for it.
struct Kind {
    name: &'static str,
    format: &'static str,
    options: &'static [&'static str],
}

const fn kind(name: &'static str, format: &'static str, options: &'static [&'static str]) -> Kind {
    Kind {
        name,
        format,
        options,
    }
}

const PLAIN: [Kind; 3] = [
    kind("raw", "raw", &[]),
    kind("qcow2", "qcow2", &[]),
    kind("vhdx", "vhdx", &[]),
];

const PACKED: [Kind; 2] = [
    kind("qcow2-zlib", "qcow2", &["-c"]),
    kind(
        "qcow2-zstd",
        "qcow2",
        &["-c", "-o", "compression_type=zstd"],
    ),
];

pub(super) fn run(dir: &Path, extent: Extent) -> Outcome {
    let bench = Bench {
        diskweave: sh::diskweave()?,
        dir: dir.to_owned(),
    };
    bench.convert(extent.size, extent.rounds)
}

struct Bench {
    diskweave: PathBuf,
    dir: PathBuf,
}

/// Who converts. Ours ends when the result is durable; `qemu-img` by default leaves that to the host,
/// and sees to it itself with `-t writeback`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    Theirs,
    TheirsDurable,
}

const ALL: [Who; 3] = [Who::Ours, Who::Theirs, Who::TheirsDurable];

/// Times of one pair of formats and lengths of what came out, for each of [`ALL`].
#[derive(Default)]
struct Times {
    times: [Vec<Duration>; 3],
    bytes: [u64; 3],
}

impl Bench {
    fn convert(&self, size: u64, rounds: usize) -> Outcome {
        println!("making the sources, {} MiB each …", size >> 20);
        disk_content::save(&self.dir.join("raw"), size)?;
        for kind in PLAIN.iter().skip(1).chain(&PACKED) {
            let mut command = self.theirs(&PLAIN[0], kind, kind.name, Who::Theirs);
            sh::output(&mut command)?;
        }
        let packs = self.packs();
        if !packs {
            println!("this diskweave does not compress: no compressed targets");
        }
        let mut pairs: Vec<(&Kind, &Kind)> = Vec::new();
        for source in PLAIN.iter().chain(&PACKED) {
            pairs.extend(PLAIN.iter().map(|target| (source, target)));
        }
        if packs {
            pairs.extend(PACKED.iter().map(|target| (&PLAIN[0], target)));
        }
        println!(
            "\n{:<24}ours           qemu-img       … durable      ratio         length",
            ""
        );
        println!(
            "source     -> target     min    median  min    median  min    median       durable"
        );
        for (source, target) in pairs {
            let times = self.pair(source, target, rounds)?;
            print_row(source, target, times);
        }
        println!("\nseconds; ratio: how many times as long qemu-img takes, by the minima");
        println!("durable: qemu-img -t writeback, which like ours ends when the disk has it all");
        println!("length: of our file, for one of qemu-img's");
        Ok(())
    }

    /// All of them in turn; who begins changes from round to round.
    fn pair(&self, source: &Kind, target: &Kind, rounds: usize) -> Outcome<Times> {
        let mut times = Times::default();
        let path = self.dir.join("target");
        for round in 0..rounds {
            for turn in 0..ALL.len() {
                let n = (round + turn) % ALL.len();
                let mut command = match ALL[n] {
                    Who::Ours => self.ours(source, target),
                    who => self.theirs(source, target, "target", who),
                };
                times.times[n].push(timed(&mut command)?);
                times.bytes[n] = fs::metadata(&path).map_err(|e| e.to_string())?.len();
                if ALL[n] == Who::Ours && round == 0 {
                    self.is_the_same(source, target)?;
                }
                fs::remove_file(&path).map_err(|error| error.to_string())?;
            }
        }
        Ok(times)
    }

    fn ours(&self, source: &Kind, target: &Kind) -> Command {
        let mut command = self.command(&self.diskweave);
        command.args(["convert", "-f", source.format, "-O", target.format]);
        command.args(target.options).args([source.name, "target"]);
        command
    }

    fn theirs(&self, source: &Kind, target: &Kind, to: &str, who: Who) -> Command {
        let mut command = self.command(Path::new("qemu-img"));
        command.args(["convert", "-m", "16", "-W", "-f", source.format]);
        if who == Who::TheirsDurable {
            command.args(["-t", "writeback"]);
        }
        command.args(["-O", target.format]).args(target.options);
        command.args([source.name, to]);
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        command
    }

    fn is_the_same(&self, source: &Kind, target: &Kind) -> Outcome {
        let mut command = self.command(Path::new("qemu-img"));
        command.args(["compare", "-f", source.format, "-F", target.format]);
        sh::output(command.args([source.name, "target"])).map(drop)
    }

    /// True when the command compresses.
    fn packs(&self) -> bool {
        let small = self.dir.join("small");
        let made = fs::write(&small, [1; 65_536]).is_ok();
        let mut command = self.command(&self.diskweave);
        command.args([
            "convert", "-f", "raw", "-O", "qcow2", "-c", "small", "packed",
        ]);
        made && sh::output(&mut command).is_ok()
    }
}

/// How long `command` takes, with nothing left over from before it.
fn timed(command: &mut Command) -> Outcome<Duration> {
    // What the run before left to be written would be paid for by this one.
    let _ = Command::new("sync").status();
    command.stdout(Stdio::null());
    let start = Instant::now();
    let output = command.output().map_err(|error| error.to_string())?;
    let time = start.elapsed();
    if output.status.success() {
        return Ok(time);
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`{}` failed: {complaint}", sh::shown(command)))
}

fn print_row(source: &Kind, target: &Kind, times: Times) {
    let [ours, theirs, durable] = times.times.map(|mut times| {
        times.sort();
        (times[0].as_secs_f64(), times[times.len() / 2].as_secs_f64())
    });
    #[allow(clippy::cast_precision_loss)]
    let length = times.bytes[0] as f64 / times.bytes[1].max(1) as f64;
    print!("{:<10} -> {:<10} ", source.name, target.name);
    for (least, median) in [ours, theirs, durable] {
        print!("{least:<6.3} {median:<6.3}  ");
    }
    let (ratio, durable) = (theirs.0 / ours.0, durable.0 / ours.0);
    println!("{ratio:<5.2} {durable:<6.2}  {length:.3}");
}
