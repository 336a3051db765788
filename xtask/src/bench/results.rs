//! What was measured, a line a record in one file, which outlives the run that wrote it.
//!
//! ```text
//!   run    group  MiB  rounds
//!   row    group  work  unit  ours  median  reference  its  median  peak memory  its
//!   point  group  curve  line  x  y
//! ```
//!
//! Fields are parted by tabs; what is not known is empty. Programs in `benches` add lines to the same
//! file, whose path they have from [`VARIABLE`]. A group that is run again takes the place of what it
//! left before, and the others stay.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::sh::{self, Outcome};

/// How programs that are run learn where the file is.
pub(crate) const VARIABLE: &str = "DISKWEAVE_BENCH_RESULTS";

/// The best and the middle of several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Value {
    pub(crate) best: f64,
    pub(crate) median: f64,
}

impl Value {
    /// Of what was counted once, and is the same each time.
    pub(crate) fn once(value: f64) -> Self {
        Self {
            best: value,
            median: value,
        }
    }

    /// Of numbers of which the least is the best; there is one at least.
    pub(crate) fn least(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            best: values[0],
            median: values[values.len() / 2],
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) work: String,
    /// Ends with `/s`, or is `times`, where more is better.
    pub(crate) unit: String,
    pub(crate) ours: Value,
    pub(crate) reference: String,
    pub(crate) theirs: Option<Value>,
    /// Bytes of memory at most, ours and the reference's.
    pub(crate) peaks: [Option<u64>; 2],
}

impl Row {
    pub(crate) fn new(group: &str, work: impl Into<String>, unit: &str, ours: Value) -> Self {
        Self {
            group: group.into(),
            work: work.into(),
            unit: unit.into(),
            ours,
            reference: String::new(),
            theirs: None,
            peaks: [None; 2],
        }
    }

    pub(crate) fn beside(mut self, reference: &str, theirs: Value) -> Self {
        self.reference = reference.into();
        self.theirs = Some(theirs);
        self
    }

    /// How many times as good as the reference ours is, by the medians of both.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours.median, self.theirs?.median);
        let more_is_better = self.unit.ends_with("/s") || self.unit == "times";
        let ratio = if more_is_better {
            ours / theirs
        } else {
            theirs / ours
        };
        ratio.is_finite().then_some(ratio)
    }

    fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let bytes = |peak: Option<u64>| peak.map_or(String::new(), |peak| peak.to_string());
        let theirs = self.theirs;
        [
            "row".into(),
            self.group.clone(),
            self.work.clone(),
            self.unit.clone(),
            self.ours.best.to_string(),
            self.ours.median.to_string(),
            self.reference.clone(),
            number(theirs.map(|theirs| theirs.best)),
            number(theirs.map(|theirs| theirs.median)),
            bytes(self.peaks[0]),
            bytes(self.peaks[1]),
        ]
        .join("\t")
    }

    fn parse(fields: &[&str]) -> Option<Self> {
        let &[
            group,
            work,
            unit,
            best,
            median,
            reference,
            its,
            its_median,
            peak,
            its_peak,
        ] = fields
        else {
            return None;
        };
        let value = |best: &str, median: &str| {
            Some(Value {
                best: best.parse().ok()?,
                median: median.parse().ok()?,
            })
        };
        Some(Self {
            group: group.into(),
            work: work.into(),
            unit: unit.into(),
            ours: value(best, median)?,
            reference: reference.into(),
            theirs: value(its, its_median),
            peaks: [peak, its_peak].map(|peak| peak.parse().ok()),
        })
    }
}

/// One point of one line of a curve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) group: String,
    pub(crate) curve: String,
    pub(crate) line: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// How a group was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) group: String,
    pub(crate) mib: u64,
    pub(crate) rounds: usize,
}

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) runs: Vec<Run>,
    pub(crate) rows: Vec<Row>,
    pub(crate) points: Vec<Point>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut results = Self::default();
        for (number, line) in text.lines().enumerate() {
            results
                .take(line)
                .ok_or_else(|| format!("{}:{}: no record", path.display(), number + 1))?;
        }
        Ok(results)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["run", group, mib, rounds] => self.runs.push(Run {
                group: (*group).into(),
                mib: mib.parse().ok()?,
                rounds: rounds.parse().ok()?,
            }),
            ["row", fields @ ..] => self.rows.push(Row::parse(fields)?),
            ["point", group, curve, line, x, y] => self.points.push(Point {
                group: (*group).into(),
                curve: (*curve).into(),
                line: (*line).into(),
                x: x.parse().ok()?,
                y: y.parse().ok()?,
            }),
            _ => return None,
        }
        Some(())
    }
}

/// The file that is added to.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    path: PathBuf,
}

impl Book {
    /// Where results are kept unless said otherwise.
    pub(crate) fn usual() -> Outcome<Self> {
        let dir = sh::target_dir()?.join("bench");
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self {
            path: dir.join("results.tsv"),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what `run`'s group left before, and notes how it is run now.
    pub(crate) fn begin(&self, run: &Run) -> Outcome {
        let before = fs::read_to_string(&self.path).unwrap_or_default();
        let mut text = String::new();
        let others = |line: &&str| line.split('\t').nth(1) != Some(run.group.as_str());
        for line in before.lines().filter(others) {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "run\t{}\t{}\t{}", run.group, run.mib, run.rounds);
        fs::write(&self.path, text).map_err(|error| self.wrong(&error))
    }

    pub(crate) fn row(&self, row: &Row) -> Outcome {
        self.add(&row.line())
    }

    pub(crate) fn point(&self, point: &Point) -> Outcome {
        let Point {
            group,
            curve,
            line,
            x,
            y,
        } = point;
        self.add(&format!("point\t{group}\t{curve}\t{line}\t{x}\t{y}"))
    }

    fn add(&self, line: &str) -> Outcome {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &std::io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_with_its_gaps() {
        let alone = Row::new("memory", "info", "MiB", Value::once(3.5));
        let mut beside = alone
            .clone()
            .beside("qemu-img", Value::least(vec![9.0, 7.0]));
        beside.peaks = [Some(1), None];
        for row in [alone, beside] {
            let mut results = Results::default();
            results.take(&row.line()).expect("a record");
            assert_eq!(results.rows, [row]);
        }
        assert_eq!(Results::default().take("row\tmemory"), None);
    }

    #[test]
    fn a_ratio_says_how_many_times_better_whichever_way_the_unit_goes() {
        let slow = Row::new("g", "w", "s", Value::once(2.0));
        let many = Row::new("g", "w", "/s", Value::once(2.0));
        assert_eq!(slow.ratio(), None);
        assert_eq!(slow.beside("r", Value::once(4.0)).ratio(), Some(2.0));
        assert_eq!(many.beside("r", Value::once(4.0)).ratio(), Some(0.5));
    }
}
