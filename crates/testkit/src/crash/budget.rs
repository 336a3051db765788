//! How much of a scenario's states are made.

use std::time::{Duration, Instant};

/// How far an exploration goes, for each scenario.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Distinct states.
    pub states: u64,
    /// Wall clock; the states are then not the same everywhere, but each is still made by its
    /// number.
    pub time: Option<Duration>,
    /// What decides every random choice.
    pub seed: u64,
}

impl Budget {
    /// So many distinct states.
    #[must_use]
    pub fn states(states: u64) -> Self {
        Self {
            states,
            time: None,
            seed: 0,
        }
    }

    /// So many seconds.
    #[must_use]
    pub fn seconds(seconds: f64) -> Self {
        Self {
            states: u64::MAX,
            time: Some(Duration::from_secs_f64(seconds)),
            seed: 0,
        }
    }

    /// The same, with another seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// One point's part of what is left of the budget.
#[derive(Debug)]
pub(super) struct Share {
    states: u64,
    until: Option<Instant>,
}

impl Share {
    /// With `distinct` states verified since `start`, and `points_left` points to come.
    pub(super) fn of(budget: &Budget, distinct: u64, start: Instant, points_left: usize) -> Self {
        let left = budget.states.saturating_sub(distinct);
        let parts = u32::try_from(points_left).unwrap_or(u32::MAX).max(1);
        Self {
            states: distinct + left / u64::from(parts),
            until: budget.time.map(|time| {
                let left = time.saturating_sub(start.elapsed());
                Instant::now() + left / parts
            }),
        }
    }

    /// True once it is used up by `distinct` states, or by time.
    pub(super) fn is_used(&self, distinct: u64) -> bool {
        distinct > self.states || self.until.is_some_and(|until| Instant::now() >= until)
    }
}
