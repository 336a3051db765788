//! How much is looked at in this run, as the environment says, and the looking.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `DISKWEAVE_CRASH` | unset: a few states of each story; `full`; or a number of seconds for all stories together |
//! | `DISKWEAVE_CRASH_SEED` | another choice of states, and other random stories |

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::{Budget, CrashExplorer, CrashSubject, Report, Scenario};

/// An engine and what happens to it.
pub type Story<S> = (S, Scenario<'static, S>);

/// The name that a story has in reports, and what makes it.
pub type Named<S> = (&'static str, fn() -> Story<S>);

/// How much of a format's stories is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// States of each story.
    pub states: u64,
    /// For all stories together, in place of the states.
    pub seconds: Option<f64>,
    /// What decides every random choice.
    pub seed: u64,
    /// Random stories beside the named ones.
    pub random: u64,
}

/// True where the environment asks for more than a few states.
#[must_use]
pub fn asks_for_much() -> bool {
    env::var_os("DISKWEAVE_CRASH").is_some()
}

impl Plan {
    /// What the environment asks for, where `few` and `full` say how much of each story that is.
    ///
    /// # Panics
    /// When the environment's numbers are none.
    #[must_use]
    pub fn of_environment(few: Self, full: Self) -> Self {
        let variable = |name| env::var(name).ok();
        let seed = variable("DISKWEAVE_CRASH_SEED").map(|seed| seed.parse().expect("a seed"));
        let plan = match variable("DISKWEAVE_CRASH").as_deref() {
            None => few,
            Some("full") => full,
            Some(seconds) => Self {
                states: u64::MAX,
                seconds: Some(seconds.parse().expect("a number of seconds")),
                ..full
            },
        };
        Self {
            seed: seed.unwrap_or(plan.seed),
            ..plan
        }
    }

    /// Looks at every story of `named`, and at as many that `random` makes of a seed, in as many
    /// threads as the machine has; prints each report and the closing line.
    ///
    /// # Panics
    /// When a state is bad, or when of some story none was made.
    #[expect(clippy::print_stdout, reason = "what a proof came to is printed")]
    pub fn prove<S: CrashSubject>(
        &self,
        format: &str,
        named: &[Named<S>],
        random: impl Fn(u64) -> Story<S> + Sync,
    ) {
        let start = Instant::now();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = threads as f64 / (named.len() as f64 + self.random as f64);
        let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(story) = self.story(n, named, &random) else {
                            return;
                        };
                        let report = self.explore(&story, share);
                        println!("{report}");
                        let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                        reports.push(report);
                    }
                });
            }
        });
        let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        let states: u64 = reports.iter().map(|report| report.distinct).sum();
        let bad: u64 = reports.iter().map(|report| report.bad_count).sum();
        println!(
            "{format}: {states} states, {} scenarios, {bad} bad, {:.1} s",
            reports.len(),
            start.elapsed().as_secs_f64()
        );
        assert!(reports.iter().all(|report| report.distinct > 0) && !reports.is_empty());
        assert_eq!(bad, 0);
    }

    fn story<S: CrashSubject>(
        &self,
        n: usize,
        named: &[Named<S>],
        random: &impl Fn(u64) -> Story<S>,
    ) -> Option<Story<S>> {
        if let Some((name, make)) = named.get(n) {
            let (subject, mut scenario) = make();
            scenario.name = (*name).into();
            return Some((subject, scenario));
        }
        let n = (n - named.len()) as u64;
        (n < self.random).then(|| random(self.seed * 1000 + n))
    }

    fn explore<S: CrashSubject>(&self, (subject, scenario): &Story<S>, share: f64) -> Report {
        let mut budget = match self.seconds {
            Some(seconds) => Budget::seconds(seconds * share),
            None => Budget::states(self.states),
        };
        budget.seed = self.seed;
        CrashExplorer::new(subject, budget)
            .stop_after(20)
            .run(scenario)
    }
}
