//! What an engine made of failures.

use std::fmt;

/// What one scenario came to under failures.
#[derive(Debug, Clone, Default)]
pub struct FaultReport {
    /// The scenario's name.
    pub scenario: String,
    /// Failures injected, each in a telling of its own.
    pub injected: u64,
    /// Of these, the ones after which the handle was poisoned.
    pub poisoned: u64,
    /// Files verified afterwards.
    pub states: u64,
    /// Tellings that ended badly.
    pub bad_count: u64,
    /// The first of them, in words.
    pub bad: Vec<String>,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} failures injected, {} poisoned, {} states, {} bad",
            self.scenario, self.injected, self.poisoned, self.states, self.bad_count
        )?;
        self.bad.iter().try_for_each(|bad| write!(f, "\n  {bad}"))
    }
}

impl FaultReport {
    /// Fails the test when a telling ended badly, or when nothing could be made to fail.
    ///
    /// # Panics
    /// With the report.
    pub fn assert_clean(&self) {
        assert!(self.bad_count == 0 && self.injected > 0, "{self}");
    }
}
