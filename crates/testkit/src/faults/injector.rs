//! Which calls fail, and in which ways.

use super::FaultReport;
use super::telling::{Plan, Telling};
use crate::counting::{Fault, Op};
use crate::crash::record::start_content;
use crate::crash::verify::guarded;
use crate::crash::{CrashSubject, Image, Scenario};

/// Lets the host fail under a subject.
#[derive(Debug)]
pub struct FaultInjector<'a, S> {
    pub(super) subject: &'a S,
    pub(super) seed: u64,
    pub(super) states: u64,
    from_then_on: bool,
    at_most: u64,
}

/// What can fail, and how.
const PLANS: [(Op, &[Fault]); 7] = [
    (Op::Write, &[Fault::Io, Fault::NoSpace, Fault::Torn]),
    (Op::SetLen, &[Fault::Io, Fault::NoSpace]),
    (Op::Zero, &[Fault::Io, Fault::NoSpace]),
    (Op::Punch, &[Fault::Io]),
    (Op::SyncData, &[Fault::Io, Fault::NoSpace]),
    (Op::SyncFull, &[Fault::Io]),
    (Op::Read, &[Fault::Io]),
];

/// Bad tellings that a report keeps.
const KEPT: usize = 10;

impl<'a, S: CrashSubject> FaultInjector<'a, S> {
    /// Fails everything once, and everything from some call on.
    #[must_use]
    pub fn new(subject: &'a S) -> Self {
        Self {
            subject,
            seed: 0,
            states: 6,
            from_then_on: true,
            at_most: u64::MAX,
        }
    }

    /// The same, with another seed for the crash states.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Verifies so many crash states of each telling: 6 unless told.
    #[must_use]
    pub fn states(mut self, states: u64) -> Self {
        self.states = states;
        self
    }

    /// Fails only the first so many calls of each kind. All, unless told.
    #[must_use]
    pub fn at_most(mut self, calls: u64) -> Self {
        self.at_most = calls;
        self
    }

    /// Tells `scenario` once for each failure. Its script must hand errors on with `?`.
    pub fn run(&self, scenario: &Scenario<'_, S>) -> FaultReport {
        let mut report = FaultReport {
            scenario: scenario.name.clone(),
            ..FaultReport::default()
        };
        let content = match start_content(self.subject, scenario) {
            Ok(content) => content,
            Err(wrong) => {
                report.bad_count = 1;
                report.bad.push(wrong);
                return report;
            }
        };
        for (op, faults) in PLANS {
            for fault in faults {
                for from_then_on in [false, true] {
                    if from_then_on && !self.from_then_on {
                        continue;
                    }
                    for nth in 1..=self.at_most {
                        let plan = Plan {
                            op,
                            nth,
                            fault: *fault,
                            from_then_on,
                        };
                        if !self.tell(scenario, &content, plan, &mut report) {
                            break;
                        }
                    }
                }
            }
        }
        report
    }

    /// One telling. False when the failure was never met.
    fn tell(
        &self,
        scenario: &Scenario<'_, S>,
        content: &Image,
        plan: Plan,
        report: &mut FaultReport,
    ) -> bool {
        let mut telling = Telling::new(self, scenario, plan);
        let verdict = guarded(|| telling.run(content, report));
        if !telling.was_hit() {
            return false;
        }
        report.injected += 1;
        if let Err(wrong) = verdict {
            report.bad_count += 1;
            if report.bad.len() < KEPT {
                report.bad.push(format!("{plan:?}: {wrong}"));
            }
        }
        true
    }
}
