//! How rates go with the depth of a chain, and with how many requests are under way at a time: the points
//! of curves.
//!
//! A thread of ours has one request under way; `qemu-img bench` has as many in one process.

use std::fs;
use std::path::Path;

use crate::chain::images::{KINDS, Layout, make};
use crate::chain::reads::{Reader, Top, jobs, once};
use crate::engine::text;
use crate::job::Order::Random;
use crate::job::Start::{Full, Part};
use crate::job::{Job, compare};
use crate::place::Place;
use crate::results::{Value, point, unit};
use crate::suite::Suite;
use crate::{Outcome, results};

const DEPTHS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
const UNDER_WAY: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// Chains of more hold the same; their making takes long.
const MOST: u64 = 256 << 20;

pub(crate) fn run(dir: &Path, size: u64, rounds: u64) -> Outcome {
    depth(dir, size.min(MOST), rounds)?;
    for format in ["qcow2", "vhdx"] {
        under_way(dir, format, size, rounds)?;
    }
    Ok(())
}

fn depth(dir: &Path, size: u64, rounds: u64) -> Outcome {
    let job = jobs(size)
        .into_iter()
        .find(|job| job.name == "1M sequential");
    let job = job.ok_or("no such job")?;
    for kind in &KINDS[..2] {
        for layout in Layout::ALL {
            for depth in DEPTHS {
                let dir = dir.join("chain");
                let images = usize::try_from(depth).map_err(text)?;
                let path = make(kind, layout, images, &dir, size)?;
                let format = kind.format(images - 1);
                let top = Top { path, format };
                let readers = [Reader::Ours, Reader::Imago, Reader::QemuImg, Reader::Plain];
                let readers = readers.into_iter().filter(|reader| reader.can(kind));
                let mut all: Vec<_> = readers.map(|reader| (reader, Vec::new())).collect();
                for _ in 0..rounds {
                    for (reader, done) in &mut all {
                        done.push(once(*reader, &top, &job, size)?);
                    }
                }
                let curve = format!("depth-{}-{}", kind.name, layout.name());
                for (reader, done) in all {
                    if let Some(value) = Value::of(&done, results::unit(&job).1) {
                        point(&curve, reader.name(), f64::from(depth), value.median)?;
                        println!(
                            "{curve} {depth}: {} {:.0} MB/s",
                            reader.name(),
                            value.median
                        );
                    }
                }
                fs::remove_dir_all(dir).map_err(text)?;
            }
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn under_way(dir: &Path, format: &str, size: u64, rounds: u64) -> Outcome {
    let dir = dir.join(format);
    fs::create_dir(&dir).map_err(text)?;
    let suite = Suite::of(format).ok_or("no such format")?;
    let place = Place::prepare(&dir, suite, size)?;
    let mut remarks = Vec::new();
    for (name, task) in [
        ("read", Full.read(Random)),
        ("overwrite", Part.write(Random)),
    ] {
        let curve = format!("threads-{format}-{name}");
        for job in Job::each(name, task, 100_000, &UNDER_WAY) {
            let done = compare(&place, &job, rounds, &mut remarks);
            for (engine, done) in place.engines.iter().zip(&done) {
                if let Some(value) = Value::of(done, unit(&job).1) {
                    point(&curve, engine.name(), job.threads as f64, value.median)?;
                    println!(
                        "{curve} {}: {} {:.0}/s",
                        job.threads,
                        engine.name(),
                        value.median
                    );
                }
            }
        }
    }
    fs::remove_dir_all(dir).map_err(text)
}
