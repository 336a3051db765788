//! What more threads on one image give, beside what they give on a plain file.

use std::fs;
use std::path::Path;

use crate::engine::{Engine, text};
use crate::place::Place;
use crate::results::{self, Value};
use crate::suite::Suite;
use crate::{Outcome, job};

const GROUP: &str = "threads";
const JOBS: [&str; 3] = [
    "4K random read",
    "4K random overwrite",
    "4K random fresh write",
];

pub(crate) fn run(dir: &Path, size: u64, rounds: u64) -> Outcome {
    for format in ["qcow2", "vhdx"] {
        let dir = dir.join(format);
        fs::create_dir(&dir).map_err(text)?;
        let suite = Suite::of(format).ok_or("no such format")?;
        let place = Place::prepare(&dir, suite, size)?.only(&[Engine::Ours, Engine::Plain]);
        for name in JOBS {
            gain(&place, format, name, size, rounds)?;
        }
        fs::remove_dir_all(dir).map_err(text)?;
    }
    Ok(())
}

/// One job at every number of threads; a row for each but the first.
fn gain(place: &Place, format: &str, name: &str, size: u64, rounds: u64) -> Outcome {
    let mut alone = None;
    let mut remarks = Vec::new();
    for job in (place.suite.jobs)(size) {
        if !job.name.starts_with(&format!("{name},")) {
            continue;
        }
        let done = job::compare(place, &job, rounds, &mut remarks);
        let [Some(ours), Some(plain)] = [0, 1].map(|who: usize| Value::of(&done[who], 1.0)) else {
            return Err(remarks.join("\n"));
        };
        let (one, plain_one) = *alone.get_or_insert((ours, plain));
        println!(
            "{format}, {}: {:.0}/s, plain {:.0}/s; {:.2} and {:.2} times one thread",
            job.name,
            ours.median,
            plain.median,
            ours.median / one.median,
            plain.median / plain_one.median
        );
        if job.threads > 1 {
            let gain = |many: Value, one: Value| Value {
                best: many.best / one.best,
                median: many.median / one.median,
                peak: many.peak,
            };
            let (ours, plain) = (gain(ours, one), gain(plain, plain_one));
            let work = format!("{format}, {}", job.name);
            results::row(GROUP, &work, "times", ours, "plain", Some(plain))?;
        }
    }
    Ok(())
}
