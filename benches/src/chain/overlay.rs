//! What it costs to put an empty image over another, and to say what an image is: by the library, by the
//! command, by `qemu-img`.
//!
//! On the disk, where it ends when the new image is durable, and in memory, where a sync costs nothing.
//! `qemu-img create` leaves that to the host.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use diskweave::core::BlockDevice;

use super::images::{image, open, overlay};
use crate::engine::text;
use crate::results::{self, Value};
use crate::{Outcome, peak, qemu};

/// Where Linux has a file system in memory.
const MEMORY: &str = "/dev/shm";

const SIZE: u64 = 10 << 30;
/// Overlays of each round.
const EACH: u64 = 20;

/// One line: what is done to make `child` over `parent`, both of one format.
struct Way {
    name: &'static str,
    run: fn(&Place<'_>, &Path) -> Outcome,
}

struct Place<'a> {
    parent: &'a Path,
    format: &'static str,
    command: &'a Path,
    /// The parent, open.
    disk: diskweave::chain::Chain,
}

const WAYS: [Way; 8] = [
    Way {
        name: "library: create",
        run: |place, child| {
            let image = image(child, place.format, place.parent, place.format, &place.disk)?;
            diskweave::create(child, &image, None, Some(&place.disk)).map_err(text)
        },
    },
    Way {
        name: "library: open the parent, create",
        run: |place, child| overlay(child, place.format, place.parent, place.format),
    },
    Way {
        name: "library: open, create, open both, size",
        run: |place, child| {
            overlay(child, place.format, place.parent, place.format)?;
            let size = open(child, place.format, false)?.size();
            (size == SIZE).then_some(()).ok_or("another size".into())
        },
    },
    Way {
        name: "command: create -b",
        run: |place, child| by(place.command, place, child),
    },
    Way {
        name: "qemu-img create -b",
        run: |place, child| match place.format {
            "qcow2" => by(Path::new("qemu-img"), place, child),
            _ => Err("none over a parent".into()),
        },
    },
    Way {
        name: "command: info",
        run: |place, _| info(place.command, place),
    },
    Way {
        name: "qemu-img info",
        run: |place, _| info(Path::new("qemu-img"), place),
    },
    Way {
        name: "a program that does nothing",
        run: |_, _| ran(&mut Command::new("true")),
    },
];

fn by(program: &Path, place: &Place<'_>, child: &Path) -> Outcome {
    let mut command = Command::new(program);
    command.args(["create", "-f", place.format, "-b"]);
    let name = place.parent.file_name().ok_or("a parent has a name")?;
    ran(command.arg(name).args(["-F", place.format]).arg(child))
}

fn info(program: &Path, place: &Place<'_>) -> Outcome {
    let mut command = Command::new(program);
    ran(command.args(["info", "-f", place.format]).arg(place.parent))
}

fn ran(command: &mut Command) -> Outcome {
    qemu::ran(command.stdin(Stdio::null())).map(drop)
}

pub(crate) fn run(dir: &Path, rounds: u64, command: &Path) -> Outcome {
    peak::begin();
    println!("an empty image over another, milliseconds");
    println!("{:<48}{:>20}{:>20}", "", "on the disk", "in memory");
    println!(
        "{:<48}{:>10}{:>10}{:>10}{:>10}",
        "", "least", "median", "least", "median"
    );
    let memory = Path::new(MEMORY).join(format!("diskweave-bench-{}", std::process::id()));
    let in_memory = fs::create_dir(&memory).is_ok();
    let result = table(dir, in_memory.then_some(&memory), rounds, command);
    if in_memory {
        fs::remove_dir_all(memory).map_err(text)?;
    }
    result
}

fn table(dir: &Path, memory: Option<&Path>, rounds: u64, command: &Path) -> Outcome {
    for format in ["qcow2", "vhdx"] {
        let parents = [Some(dir), memory].map(|dir| Some(dir?.join("base").with_extension(format)));
        let mut places = Vec::new();
        for parent in parents.iter().flatten() {
            qemu::create(parent, format, SIZE, &[])?;
            let disk = open(parent, format, false)?;
            places.push(Place {
                parent,
                format,
                command,
                disk,
            });
        }
        // Round by round, so that what disturbs the machine disturbs all of them.
        let mut all = vec![vec![Ok(Vec::new()); places.len()]; WAYS.len()];
        for _ in 0..rounds * EACH {
            for (way, all) in WAYS.iter().zip(&mut all) {
                for (place, times) in places.iter().zip(all) {
                    let time = once(way, place);
                    match (times.as_mut(), time) {
                        (Ok(times), Ok(time)) => times.push(time.as_secs_f64() * 1e3),
                        (Ok(_), Err(error)) => *times = Err(error),
                        (Err(_), _) => {}
                    }
                }
            }
        }
        show(format, &all)?;
    }
    Ok(())
}

/// Milliseconds of one way at one place, or why there are none.
type Times = Outcome<Vec<f64>>;

fn show(format: &str, all: &[Vec<Times>]) -> Outcome {
    let all_values: Vec<Vec<_>> = all
        .iter()
        .map(|places| {
            places
                .iter()
                .map(|times| Value::least(times.as_ref().ok()?))
                .collect()
        })
        .collect();
    for (way, (values, times)) in WAYS.iter().zip(all_values.iter().zip(all)) {
        print!("{format:<8}{:<40}", way.name);
        for value in values {
            match value {
                Some(value) => print!("{:>10.3}{:>10.3}", value.best, value.median),
                None => print!("{:>10}{:>10}", "-", "-"),
            }
        }
        let failed = times.iter().find_map(|times| times.as_ref().err());
        println!(
            "{}",
            failed.map_or(String::new(), |error| format!("  {error}"))
        );
        if !way.name.starts_with("library") && !way.name.starts_with("command") {
            continue;
        }
        let reference = match way.name {
            "command: info" => "qemu-img info",
            _ => "qemu-img create -b",
        };
        let theirs = WAYS.iter().position(|way| way.name == reference);
        for (number, (place, value)) in ["on the disk", "in memory"].iter().zip(values).enumerate()
        {
            if let Some(ours) = *value {
                // Programs are processes of their own.
                let is_here = way.name.starts_with("library");
                let ours = ours.with_peak(is_here.then(peak::bytes).flatten());
                let work = format!("{format}, {}, {place}", way.name);
                let theirs = theirs.and_then(|theirs| all_values[theirs][number]);
                results::row("start", &work, "ms", ours, reference, theirs)?;
            }
        }
    }
    Ok(())
}

fn once(way: &Way, place: &Place<'_>) -> Outcome<Duration> {
    let child = place
        .parent
        .with_file_name("child")
        .with_extension(place.format);
    let start = Instant::now();
    (way.run)(place, &child)?;
    let time = start.elapsed();
    // Not every way leaves one.
    let _ = fs::remove_file(&child);
    Ok(time)
}
