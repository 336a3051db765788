//! What it costs to move what is in a chain: into a parent, into one image, into the top.
//!
//! Each time on a fresh copy of the chain. Ours end when the result is durable; `qemu-img` leaves that to the
//! host, unless a line says `-t none`, with which it writes past the host's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use diskweave::core::locate::ChainPolicy;
use diskweave::{CommitOptions, NewImage, NoProgress, OpenDisk, commit, flatten, qcow2, stream};

use super::images::{KINDS, Kind, Layout, make, open};
use crate::engine::text;
use crate::{Outcome, qemu};

/// A copy of a chain, and what is done to it.
struct Place {
    top: PathBuf,
    format: &'static str,
}

impl Place {
    fn beside(&self, name: &str) -> PathBuf {
        self.top.with_file_name(name)
    }

    fn how(&self) -> OpenDisk {
        OpenDisk::new().format(self.format).policy(ChainPolicy::Any)
    }
}

/// One operation and who does it.
struct Way {
    operation: &'static str,
    depth: usize,
    who: &'static str,
    run: fn(&Place) -> Outcome,
}

const WAYS: [Way; 10] = [
    Way {
        operation: "commit",
        depth: 2,
        who: "ours",
        run: |place| {
            let mut options = CommitOptions::default();
            options.keep = true;
            let done = commit(&place.top, &place.how(), &options, &NoProgress);
            done.map(drop).map_err(text)
        },
    },
    Way {
        operation: "commit",
        depth: 2,
        who: "qemu-img",
        run: |place| by_qemu(place, &["commit", "-q", "-d"], &[]),
    },
    Way {
        operation: "commit",
        depth: 2,
        who: "qemu-img -t none",
        run: |place| by_qemu(place, &["commit", "-q", "-d", "-t", "none"], &[]),
    },
    Way {
        operation: "flatten",
        depth: 8,
        who: "ours",
        run: |place| {
            let disk = open(&place.top, place.format, false)?;
            let image = NewImage::Qcow2(qcow2::CreateOptions::new(0));
            flatten(&disk, place.beside("flat"), &image, &NoProgress).map_err(text)
        },
    },
    Way {
        operation: "flatten",
        depth: 8,
        who: "qemu-img -m 16 -W",
        run: |place| {
            let convert = ["convert", "-m", "16", "-W", "-O", "qcow2"];
            by_qemu(place, &convert, &[&place.beside("flat")])
        },
    },
    Way {
        operation: "flatten",
        depth: 8,
        who: "qemu-img -t none",
        run: |place| {
            let convert = ["convert", "-m", "16", "-W", "-t", "none", "-O", "qcow2"];
            by_qemu(place, &convert, &[&place.beside("flat")])
        },
    },
    Way {
        operation: "stream",
        depth: 8,
        who: "ours",
        run: |place| {
            let done = stream(&place.top, &place.how(), None, &NoProgress);
            done.map(drop).map_err(text)
        },
    },
    Way {
        operation: "stream",
        depth: 8,
        who: "qemu-img",
        run: |place| by_qemu(place, &["rebase", "-q", "-b", ""], &[]),
    },
    Way {
        operation: "stream",
        depth: 8,
        who: "qemu-img -t none",
        run: |place| by_qemu(place, &["rebase", "-q", "-t", "none", "-b", ""], &[]),
    },
    Way {
        operation: "copy of all files",
        depth: 8,
        who: "cp",
        run: |place| {
            let from = place.top.parent().ok_or("a folder")?;
            copy(from, &from.join("copy"))
        },
    },
];

fn by_qemu(place: &Place, arguments: &[&str], more: &[&Path]) -> Outcome {
    if place.format != "qcow2" {
        return Err("not such chains".into());
    }
    let mut command = Command::new("qemu-img");
    command.args(arguments).args(["-f", place.format]);
    command.arg(&place.top).args(more).stdin(Stdio::null());
    qemu::ran(&mut command).map(drop)
}

/// Chains with a disk of `size` bytes, half of which is in the top, or an eighth in each of eight.
pub(super) fn run(dir: &Path, size: u64, rounds: u64) -> Outcome {
    println!(
        "what is in a chain of {} MiB moved, milliseconds",
        size >> 20
    );
    println!("{:<8}{:<40}{:>10}{:>10}", "", "", "least", "median");
    for kind in &KINDS {
        let chains = [2, 8].map(|depth| (depth, dir.join(format!("operations-{depth}"))));
        let mut tops = Vec::new();
        for (depth, dir) in &chains {
            tops.push((*depth, make(kind, Layout::Spread, *depth, dir, size)?));
        }
        table(kind, &tops, dir, rounds)?;
        for (_, dir) in &chains {
            fs::remove_dir_all(dir).map_err(text)?;
        }
    }
    println!();
    Ok(())
}

fn table(kind: &Kind, tops: &[(usize, PathBuf)], dir: &Path, rounds: u64) -> Outcome {
    let mut times: Vec<Vec<Duration>> = WAYS.iter().map(|_| Vec::new()).collect();
    // One after the other, round by round, so that what disturbs the machine disturbs all of them.
    for _ in 0..rounds.max(3) {
        for (way, times) in WAYS.iter().zip(&mut times) {
            let top = tops.iter().find(|(depth, _)| *depth == way.depth);
            let (_, top) = top.ok_or("no chain of this depth")?;
            let folder = dir.join("fresh");
            copy(top.parent().ok_or("a folder")?, &folder)?;
            let place = Place {
                top: folder.join(top.file_name().ok_or("a name")?),
                format: kind.format(way.depth - 1),
            };
            let start = Instant::now();
            let outcome = (way.run)(&place);
            let time = start.elapsed();
            fs::remove_dir_all(folder).map_err(text)?;
            match outcome {
                Ok(()) => times.push(time),
                Err(_) if kind.name != "qcow2" && way.who.starts_with("qemu") => {}
                Err(error) => return Err(format!("{} by {}: {error}", way.operation, way.who)),
            }
        }
    }
    for (way, times) in WAYS.iter().zip(&mut times) {
        times.sort();
        let (Some(least), Some(median)) = (times.first(), times.get(times.len() / 2)) else {
            continue;
        };
        let what = format!("{} of {}, {}", way.operation, way.depth, way.who);
        let millis = |time: &Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:<8}{what:<40}{:>10.1}{:>10.1}",
            kind.name,
            millis(least),
            millis(median)
        );
    }
    Ok(())
}

/// Copies the files of `from`, and has the copy on the disk before anything is timed.
fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir(to).map_err(text)?;
    for entry in fs::read_dir(from).map_err(text)? {
        let path = entry.map_err(text)?.path();
        if path.is_file() {
            let name = path.file_name().ok_or("a name")?;
            let copied = to.join(name);
            // By a program that keeps holes and times: children know their parents by them.
            let mut command = Command::new("cp");
            command
                .args(["--preserve", "--sparse=always"])
                .arg(&path)
                .arg(&copied);
            qemu::ran(&mut command)?;
            let file = fs::File::open(&copied).map_err(text)?;
            file.sync_all().map_err(text)?;
        }
    }
    Ok(())
}
