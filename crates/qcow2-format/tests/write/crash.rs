//! Every state a crash can leave.
//!
//! The ordinary run looks at a few states of each story; `cargo xtask crash` asks for more by the
//! environment: `DISKWEAVE_CRASH` is `full`, or a number of seconds; `DISKWEAVE_CRASH_SEED` another
//! choice of states and other random stories.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use testkit::crash::{Budget, CrashExplorer, Report};

use crate::random;
use crate::stories::{STORIES, Story};

/// How much is looked at.
struct Plan {
    /// Of each story.
    states: u64,
    /// For all stories together.
    seconds: Option<f64>,
    seed: u64,
    random: u64,
}

impl Plan {
    fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let seed = variable("DISKWEAVE_CRASH_SEED").map_or(0, |seed| seed.parse().unwrap());
        let plan = |states, seconds, random| Self {
            states,
            seconds,
            seed,
            random,
        };
        match variable("DISKWEAVE_CRASH").as_deref() {
            None => plan(1000, None, 30),
            Some("full") => plan(4000, None, 60),
            Some(seconds) => plan(u64::MAX, Some(seconds.parse().unwrap()), 60),
        }
    }

    fn story(&self, n: usize) -> Option<Story> {
        if let Some((name, make)) = STORIES.get(n) {
            let (subject, mut scenario) = make();
            scenario.name = (*name).into();
            return Some((subject, scenario));
        }
        let n = (n - STORIES.len()) as u64;
        (n < self.random).then(|| random::story(self.seed * 1000 + n, 30))
    }

    fn explore(&self, (subject, scenario): &Story, share: f64) -> Report {
        let mut budget = match self.seconds {
            Some(seconds) => Budget::seconds(seconds * share),
            None => Budget::states(self.states),
        };
        budget.seed = self.seed;
        CrashExplorer::new(subject, budget)
            .stop_after(20)
            .run(scenario)
    }

    fn run(&self) -> Vec<Report> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = threads as f64 / (STORIES.len() as f64 + self.random as f64);
        let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(story) = self.story(next.fetch_add(1, Ordering::Relaxed)) {
                        let report = self.explore(&story, share);
                        println!("{report}");
                        reports.lock().unwrap().push(report);
                    }
                });
            }
        });
        reports.into_inner().unwrap()
    }
}

#[test]
fn every_state_a_crash_can_leave_is_an_image_with_what_was_flushed() {
    let start = Instant::now();
    let reports = Plan::of_environment().run();
    let states: u64 = reports.iter().map(|report| report.distinct).sum();
    let bad: u64 = reports.iter().map(|report| report.bad_count).sum();
    println!(
        "qcow2: {states} states, {} scenarios, {bad} bad, {:.1} s",
        reports.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(reports.iter().all(|report| report.distinct > 0));
    assert_eq!(bad, 0);
}
