//! Goes through the crash states of one scenario, as far as the budget reaches.

use std::collections::HashSet;
use std::time::Instant;

use super::budget::Share;
use super::choice::{Choice, Choices};
use super::record::{Recorded, record_recovery};
use super::recording::{Entry, Line, Mark};
use super::verify::AfterCrash;
use super::window::{Point, points};
use super::{
    Allowed, Bad, Control, CrashExplorer, CrashSubject, Expected, Image, Report, Scenario, StateId,
};
use crate::Rng;

/// Choices in a row that bring nothing new before a point counts as explored.
const STALE: u64 = 48;

/// Bad states that a report keeps in full.
const KEPT: usize = 10;

/// One exploration under way.
pub(super) struct Run<'a, S> {
    explorer: &'a CrashExplorer<'a, S>,
    allowed: Allowed,
    pub(super) start: Instant,
    seen: HashSet<(u64, usize)>,
    pub(super) report: Report,
}

/// What the states of one point share.
struct Place<'p> {
    recorded: &'p Recorded,
    point: &'p Point,
    expected: Expected,
    /// The operation that the crash cuts short.
    interrupted: Option<Control>,
    seed: u64,
}

impl<'a, S: CrashSubject> Run<'a, S> {
    pub(super) fn new(explorer: &'a CrashExplorer<'a, S>, scenario: &Scenario<'_, S>) -> Self {
        Self {
            explorer,
            allowed: scenario.allowed,
            start: Instant::now(),
            seen: HashSet::new(),
            report: Report {
                scenario: scenario.name.clone(),
                ..Report::default()
            },
        }
    }

    fn share(&self, points_left: usize) -> Share {
        let budget = &self.explorer.budget;
        Share::of(budget, self.report.distinct, self.start, points_left)
    }

    fn place<'p>(&self, recorded: &'p Recorded, point: &'p Point) -> Place<'p> {
        Place {
            recorded,
            point,
            expected: Expected::at(&recorded.history, point.at, self.allowed),
            interrupted: recorded.history.interrupted(point.at),
            seed: self.explorer.budget.seed,
        }
    }

    fn choices<'p>(&self, point: &'p Point, log: &'p [Line]) -> Choices<'p> {
        Choices::new(
            point,
            log,
            self.explorer.budget.seed,
            self.explorer.exhaustive_units,
        )
    }

    pub(super) fn explore(&mut self, recorded: &Recorded) {
        let points = points(&recorded.images, &recorded.log);
        // Telling the story does not count: its states do.
        self.start = Instant::now();
        self.report.points = points.len();
        for (n, point) in points.iter().enumerate() {
            let share = self.share(points.len() - n);
            let place = self.place(recorded, point);
            let choices = self.choices(point, &recorded.log);
            let mut stale = 0;
            for number in 0.. {
                let planned = number < choices.planned();
                // A story of which nothing was looked at would prove nothing, however slow the machine.
                let is_used = self.report.distinct > 0 && share.is_used(self.report.distinct);
                if is_used || !planned && stale >= STALE {
                    self.report.exhaustive_points += usize::from(!planned && choices.exhaustive());
                    break;
                }
                let new = self.state(&place, &choices.choice(number), number);
                stale = if new { 0 } else { stale + 1 };
                if self.report.bad_count >= self.explorer.stop_after {
                    return;
                }
            }
        }
    }

    /// Makes one state and verifies it, and some of the crashes in its recovery. False when it was
    /// met before.
    fn state(&mut self, place: &Place<'_>, choice: &Choice, number: u64) -> bool {
        let images = choice.images(place.point, &place.recorded.log);
        self.report.generated += 1;
        let hash = Image::hash_of(&images);
        if !self.seen.insert((hash, place.point.promises)) {
            return false;
        }
        let state = StateId {
            at: place.point.at,
            choice: number,
            within: None,
        };
        self.verify(place, &images, state, || {
            choice.describe(place.point, &place.recorded.log)
        });
        let every = self.explorer.recovery_every;
        if every > 0 && self.report.distinct.is_multiple_of(every) {
            self.recovery(place, &images, state);
        }
        true
    }

    fn verify(
        &mut self,
        place: &Place<'_>,
        images: &[Image],
        state: StateId,
        choice: impl FnOnce() -> String,
    ) {
        self.report.distinct += 1;
        let within = state.within.unwrap_or_default();
        let salt = (state.choice << 24) ^ ((within.0 as u64) << 12) ^ within.1;
        let mut rng = Rng::new(place.seed ^ (state.at as u64).rotate_left(40) ^ salt);
        let after = AfterCrash {
            subject: self.explorer.subject,
            expected: &place.expected,
            view: &place.recorded.view,
            interrupted: place.interrupted,
        };
        if let Err(description) = after.verify(images, &mut rng) {
            self.report.bad_count += 1;
            if self.report.bad.len() < KEPT {
                self.report.bad.push(Bad {
                    seed: place.seed,
                    state,
                    epoch: place.point.epoch,
                    operation: operation(place.recorded, place.point.at),
                    choice: choice(),
                    description,
                });
            }
        }
    }

    /// Crashes within the recovery of `images`, a few at random.
    fn recovery(&mut self, place: &Place<'_>, images: &[Image], state: StateId) {
        // A recovery that fails has been reported by the state itself.
        let recorded = record_recovery(self.explorer.subject, images, place.interrupted);
        let Ok(log) = recorded else {
            return;
        };
        let inner = points(images, &log);
        let moments = inner.iter().filter(|point| !point.window.is_empty());
        let moments: Vec<&Point> = moments.collect();
        if moments.is_empty() {
            return;
        }
        let mut rng = Rng::new(place.seed ^ Image::hash_of(images));
        for _ in 0..self.explorer.recovery_states {
            let point = *rng.pick(&moments);
            let choices = self.choices(point, &log);
            let number = rng.below(choices.planned() + 8);
            self.within(place, state, point, &log, &choices, number);
        }
    }

    fn within(
        &mut self,
        place: &Place<'_>,
        state: StateId,
        point: &Point,
        log: &[Line],
        choices: &Choices<'_>,
        number: u64,
    ) {
        let choice = choices.choice(number);
        let images = choice.images(point, log);
        self.report.generated += 1;
        let hash = Image::hash_of(&images);
        if self.seen.insert((hash, place.point.promises)) {
            self.report.second_level += 1;
            let state = StateId {
                within: Some((point.at, number)),
                ..state
            };
            self.verify(place, &images, state, || choice.describe(point, log));
        }
    }

    pub(super) fn replay(&mut self, recorded: &Recorded, state: StateId) {
        let points = points(&recorded.images, &recorded.log);
        let point = points.iter().find(|point| point.at == state.at);
        let point = point.expect("a moment of this scenario");
        let place = self.place(recorded, point);
        let choice = self.choices(point, &recorded.log).choice(state.choice);
        let images = choice.images(point, &recorded.log);
        self.report.generated = 1;
        let Some((at, number)) = state.within else {
            return self.verify(&place, &images, state, || {
                choice.describe(point, &recorded.log)
            });
        };
        match record_recovery(self.explorer.subject, &images, place.interrupted) {
            Err(error) => self.broken(error),
            Ok(log) => {
                let inner = self::points(&images, &log);
                let point = inner.iter().find(|point| point.at == at);
                let point = point.expect("a moment of this recovery");
                let choices = self.choices(point, &log);
                self.within(&place, state, point, &log, &choices, number);
            }
        }
    }

    /// The scenario could not even be told.
    pub(super) fn broken(&mut self, description: String) {
        self.report.bad_count += 1;
        self.report.bad.push(Bad {
            seed: self.explorer.budget.seed,
            state: StateId {
                at: 0,
                choice: 0,
                within: None,
            },
            epoch: 0,
            operation: "no crash".into(),
            choice: String::new(),
            description,
        });
    }
}

/// What the guest was doing when the log had `at` lines.
fn operation(recorded: &Recorded, at: usize) -> String {
    let mark = recorded.log[..at]
        .iter()
        .rev()
        .find_map(|line| match &line.entry {
            Entry::Mark(mark) => Some(*mark),
            _ => None,
        });
    let name = |op: u32| &recorded.history.names[usize::try_from(op).expect("an index")];
    match mark {
        None => "before the first operation".into(),
        Some(Mark::Begin(op)) => format!("during operation {op}, {}", name(op)),
        Some(Mark::End { op, .. }) => format!("after operation {op}, {}", name(op)),
    }
}
