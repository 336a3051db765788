//! What was measured, a line a record, added to the file that `cargo xtask bench` keeps; what the fields
//! are is said there, in `results.rs` of its `bench`. Without such a file nothing is kept.

use std::fs::OpenOptions;
use std::io::Write;

use crate::Outcome;
use crate::engine::{Engine, text};
use crate::job::{Done, Job, LARGE};
use crate::suite::Suite;

const VARIABLE: &str = "DISKWEAVE_BENCH_RESULTS";

/// The best and the middle of several.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) best: f64,
    pub(crate) median: f64,
    /// Bytes of memory at most, where they are known.
    pub(crate) peak: Option<u64>,
}

impl Value {
    pub(crate) fn once(value: f64) -> Self {
        Self {
            best: value,
            median: value,
            peak: None,
        }
    }

    /// The same with the memory that it took at most.
    pub(crate) fn with_peak(self, peak: Option<u64>) -> Self {
        Self { peak, ..self }
    }

    /// Of numbers of which the least is the best.
    pub(crate) fn least(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Some(Self {
            best: *values.first()?,
            median: values[values.len() / 2],
            peak: None,
        })
    }

    /// Rates, so many of a unit for each request.
    pub(crate) fn of(done: &[Done], scale: f64) -> Option<Self> {
        let mut rates: Vec<f64> = done.iter().map(|done| done.rate() * scale).collect();
        rates.sort_by(f64::total_cmp);
        Some(Self {
            best: *rates.last()?,
            median: rates[rates.len() / 2],
            peak: done.iter().filter_map(|done| done.peak).max(),
        })
    }
}

/// The unit of a job's rate, and how much of it a request is.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn unit(job: &Job) -> (&'static str, f64) {
    if job.bytes >= LARGE {
        ("MB/s", job.bytes as f64 / 1e6)
    } else {
        ("/s", 1.0)
    }
}

/// What the engines of a suite did in a job: ours beside the best of the others, beside each of them, and
/// beside the plain file.
pub(crate) fn job(group: &str, suite: &Suite, job: &Job, done: &[Vec<Done>]) -> Outcome {
    let (unit, scale) = unit(job);
    let values: Vec<_> = done.iter().map(|done| Value::of(done, scale)).collect();
    let Some(ours) = values[0] else {
        return Ok(());
    };
    let peers = suite.engines.iter().zip(&values).skip(1);
    let peers: Vec<_> = peers
        .filter_map(|(&who, value)| Some((who, (*value)?)))
        .collect();
    let others = peers.iter().filter(|(who, _)| *who != Engine::Plain);
    let best = others.max_by(|(_, one), (_, other)| one.median.total_cmp(&other.median));
    if let Some((who, value)) = best {
        let name = format!("best ({})", who.name());
        row(group, &job.name, unit, ours, &name, Some(*value))?;
    }
    for (who, value) in peers {
        row(group, &job.name, unit, ours, who.name(), Some(value))?;
    }
    Ok(())
}

/// One row.
pub(crate) fn row(
    group: &str,
    work: &str,
    unit: &str,
    ours: Value,
    reference: &str,
    theirs: Option<Value>,
) -> Outcome {
    let Value { best, median, peak } = ours;
    let bytes = |peak: Option<u64>| peak.map_or(String::new(), |peak| peak.to_string());
    let its_peak = bytes(theirs.and_then(|theirs| theirs.peak));
    let theirs = theirs.map_or("\t".into(), |theirs| {
        format!("{}\t{}", theirs.best, theirs.median)
    });
    let peak = bytes(peak);
    add(&format!(
        "row\t{group}\t{work}\t{unit}\t{best}\t{median}\t{reference}\t{theirs}\t{peak}\t{its_peak}"
    ))
}

/// One point of a line of a curve.
pub(crate) fn point(curve: &str, line: &str, x: f64, y: f64) -> Outcome {
    add(&format!("point\tscale\t{curve}\t{line}\t{x}\t{y}"))
}

fn add(line: &str) -> Outcome {
    let Some(path) = std::env::var_os(VARIABLE) else {
        return Ok(());
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}"))
        .map_err(text)
}
