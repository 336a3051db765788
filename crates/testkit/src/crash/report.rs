//! What an exploration found.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The number of one state: with the seed, enough to make it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId {
    /// The moment: lines of the log that had happened.
    pub at: usize,
    /// The choice among the states of that moment.
    pub choice: u64,
    /// For a crash within the recovery of that state: moment and choice in it.
    pub within: Option<(usize, u64)>,
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at, self.choice)?;
        match self.within {
            Some((at, choice)) => write!(f, ".{at}.{choice}"),
            None => Ok(()),
        }
    }
}

impl FromStr for StateId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no state number");
        let parts: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
        let at = |n: u64| usize::try_from(n).map_err(|_| bad());
        match parts.map_err(|_| bad())?[..] {
            [moment, choice] => Ok(Self {
                at: at(moment)?,
                choice,
                within: None,
            }),
            [moment, choice, inner, inner_choice] => Ok(Self {
                at: at(moment)?,
                choice,
                within: Some((at(inner)?, inner_choice)),
            }),
            _ => Err(bad()),
        }
    }
}

/// A state in which the image is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// The seed of the exploration.
    pub seed: u64,
    /// The state's number.
    pub state: StateId,
    /// The epoch (completed syncs so far) of the crash.
    pub epoch: usize,
    /// The guest operation in flight, or the last one over.
    pub operation: String,
    /// Which units reached the disk, and how.
    pub choice: String,
    /// What is wrong.
    pub description: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} state {} (epoch {}, at {}): {}\n    {}",
            self.seed, self.state, self.epoch, self.operation, self.description, self.choice
        )
    }
}

/// What the exploration of one scenario came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// States made.
    pub generated: u64,
    /// Of these, different ones, which were verified.
    pub distinct: u64,
    /// Of the distinct ones, crashes within the recovery from a crash.
    pub second_level: u64,
    /// Moments at which a crash was tried.
    pub points: usize,
    /// Of these, the ones of which every subset of the window was tried.
    pub exhaustive_points: usize,
    /// Bad states.
    pub bad_count: u64,
    /// The first of them.
    pub bad: Vec<Bad>,
    /// Wall clock.
    pub elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} states generated, {} distinct ({} within a recovery), {} crash points \
             ({} exhaustively), {} bad, {:.2} s",
            self.scenario,
            self.generated,
            self.distinct,
            self.second_level,
            self.points,
            self.exhaustive_points,
            self.bad_count,
            self.elapsed.as_secs_f64()
        )?;
        self.bad.iter().try_for_each(|bad| write!(f, "\n  {bad}"))
    }
}

impl Report {
    /// Fails the test when a state was bad, or when nothing was explored.
    ///
    /// # Panics
    /// With the report.
    pub fn assert_clean(&self) {
        assert!(self.bad_count == 0 && self.distinct > 0, "{self}");
    }
}

/// All scenarios of a format in one line.
#[must_use]
pub fn closing_line(format: &str, reports: &[Report]) -> String {
    let states: u64 = reports.iter().map(|report| report.distinct).sum();
    let bad: u64 = reports.iter().map(|report| report.bad_count).sum();
    let elapsed: Duration = reports.iter().map(|report| report.elapsed).sum();
    format!(
        "{format}: {states} states, {} scenarios, {bad} bad, {:.1} s",
        reports.len(),
        elapsed.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_number_reads_as_it_is_written() {
        for text in ["17.305", "17.305.4.9"] {
            assert_eq!(text.parse::<StateId>().unwrap().to_string(), text);
        }
        for text in ["", "17", "1.2.3", "1.2.x.4"] {
            assert!(text.parse::<StateId>().is_err());
        }
    }
}
