//! The entry: scenarios in, reports out.

use super::record::record;
use super::run::Run;
use super::{Budget, CrashSubject, Report, Scenario, StateId};

/// Crashes a subject everywhere.
#[derive(Debug)]
pub struct CrashExplorer<'a, S> {
    pub(super) subject: &'a S,
    pub(super) budget: Budget,
    pub(super) exhaustive_units: usize,
    pub(super) recovery_every: u64,
    pub(super) recovery_states: u64,
    pub(super) stop_after: u64,
}

impl<'a, S: CrashSubject> CrashExplorer<'a, S> {
    /// Explores `subject` within `budget`.
    #[must_use]
    pub fn new(subject: &'a S, budget: Budget) -> Self {
        Self {
            subject,
            budget,
            exhaustive_units: 10,
            recovery_every: 16,
            recovery_states: 4,
            stop_after: 100,
        }
    }

    /// Windows of up to `units` uncertain operations (10 unless told, at most 20) are explored
    /// subset by subset.
    #[must_use]
    pub fn exhaustive_units(mut self, units: usize) -> Self {
        self.exhaustive_units = units;
        self
    }

    /// In every `every`th state (16 unless told; never when 0), up to `states` (4) crashes within
    /// the recovery are explored.
    #[must_use]
    pub fn recovery(mut self, every: u64, states: u64) -> Self {
        self.recovery_every = every;
        self.recovery_states = states;
        self
    }

    /// Ends a scenario after so many bad states: 100 unless told.
    #[must_use]
    pub fn stop_after(mut self, bad: u64) -> Self {
        self.stop_after = bad;
        self
    }

    /// Explores one scenario.
    pub fn run(&self, scenario: &Scenario<'_, S>) -> Report {
        let mut run = Run::new(self, scenario);
        match record(self.subject, scenario) {
            Ok(recorded) => run.explore(&recorded),
            Err(error) => run.broken(error),
        }
        run.report.elapsed = run.start.elapsed();
        run.report
    }

    /// Makes and verifies state `state` of an exploration with the budget's seed again.
    ///
    /// # Panics
    /// When the scenario has no such state.
    pub fn replay(&self, scenario: &Scenario<'_, S>, state: StateId) -> Report {
        let mut run = Run::new(self, scenario);
        match record(self.subject, scenario) {
            Ok(recorded) => run.replay(&recorded, state),
            Err(error) => run.broken(error),
        }
        run.report.elapsed = run.start.elapsed();
        run.report
    }
}
