//! Tells scenarios with one failure each.

use std::fmt;
use std::sync::Arc;

use blockdev_core::{BlockDevice, Error, ErrorKind, Result, Storage};

use crate::Rng;
use crate::counting::{Fault, FaultyStorage, Op};
use crate::crash::choice::Choices;
use crate::crash::record::start_content;
use crate::crash::verify::{View, guarded, verify};
use crate::crash::window::points;
use crate::crash::{
    CrashSubject, Driver, Expected, History, Image, RecordingStorage, Scenario, index,
};

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

/// Lets the host fail under a subject.
#[derive(Debug)]
pub struct FaultInjector<'a, S> {
    subject: &'a S,
    seed: u64,
    states: u64,
    from_then_on: bool,
    at_most: u64,
}

/// One failure to come.
#[derive(Debug, Clone, Copy)]
struct Plan {
    op: Op,
    nth: u64,
    fault: Fault,
    from_then_on: bool,
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
        content: &[u8],
        plan: Plan,
        report: &mut FaultReport,
    ) -> bool {
        let mut telling = Telling::new(self, scenario, plan);
        let verdict = guarded(|| telling.run(content, report));
        if !telling.hit && !telling.faulty.hit() {
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

struct Telling<'t, 'a, S: CrashSubject> {
    injector: &'t FaultInjector<'a, S>,
    scenario: &'t Scenario<'t, S>,
    image: Image,
    recording: Arc<RecordingStorage>,
    faulty: Arc<FaultyStorage>,
    plan: Plan,
    /// Whether it was met; healing the host forgets it.
    hit: bool,
}

impl<'t, 'a, S: CrashSubject> Telling<'t, 'a, S> {
    fn new(injector: &'t FaultInjector<'a, S>, scenario: &'t Scenario<'_, S>, plan: Plan) -> Self {
        let image = Image::from(&scenario.image[..]);
        let recording = RecordingStorage::new(image.clone());
        let witness = Arc::clone(&recording);
        let faulty = FaultyStorage::witnessed(recording.clone(), move |op| {
            if matches!(op, Op::SyncData | Op::SyncFull) {
                witness.sync_failed();
            }
        });
        if plan.from_then_on {
            faulty.fail_from(plan.op, plan.nth, plan.fault);
        } else {
            faulty.fail(plan.op, plan.nth, plan.fault);
        }
        Self {
            injector,
            scenario,
            image,
            recording,
            faulty,
            plan,
            hit: false,
        }
    }

    fn run(&mut self, content: &[u8], report: &mut FaultReport) -> Result<(), String> {
        let storage: Arc<dyn Storage> = self.faulty.clone();
        let subject = self.injector.subject;
        let recording = Arc::clone(&self.recording);
        let driver = Driver::new(subject, recording, storage, content.to_vec());
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                self.hit = self.faulty.hit();
                self.typed(&error)?;
                return self.files(&History::new(content.to_vec()), report);
            }
        };
        let told = (self.scenario.script)(&mut driver).and_then(|()| driver.close());
        self.hit = self.faulty.hit();
        match &told {
            Ok(()) if self.hit => self.silence()?,
            Ok(()) => return Ok(()),
            Err(error) if self.hit => self.typed(error)?,
            Err(error) => return Err(format!("the scenario itself fails: {error}")),
        }
        self.handle(&driver, report)?;
        let history = driver.history();
        drop(driver);
        self.files(&history, report)
    }

    /// Nobody was told. That is well where the failure was overcome, which the files bear out; but
    /// nothing overcomes a failed sync.
    fn silence(&self) -> Result<(), String> {
        if self.is_sync() {
            return Err("a failed sync that nobody is told of".into());
        }
        Ok(())
    }

    fn is_sync(&self) -> bool {
        matches!(self.plan.op, Op::SyncData | Op::SyncFull)
    }

    fn typed(&self, error: &Error) -> Result<(), String> {
        let right = match error.kind() {
            ErrorKind::Poisoned => true,
            ErrorKind::NoSpace => self.plan.fault == Fault::NoSpace,
            ErrorKind::Io => self.plan.fault != Fault::NoSpace,
            _ => false,
        };
        if right {
            Ok(())
        } else {
            Err(format!("an error of kind {:?}: {error}", error.kind()))
        }
    }

    /// The handle after the failure, the host being well again.
    fn handle(&self, driver: &Driver<'_, S>, report: &mut FaultReport) -> Result<(), String> {
        let Some(device) = driver.open_device() else {
            return Ok(());
        };
        self.faulty.heal();
        let expected = Expected::live(&driver.history(), self.recording.now());
        let size = device.size();
        let mut bytes = vec![0xEE; index(size)];
        match device.read_at(&mut bytes, 0) {
            Ok(()) => {
                let judged = expected.judge(size, &[(0, &bytes)]);
                judged.map_err(|wrong| format!("the handle after the failure: {wrong}"))?;
            }
            Err(error) => return Err(format!("the handle no longer reads: {error}")),
        }
        let refused = |kind| kind == ErrorKind::Poisoned;
        let flushed = device.flush();
        let poisoned = flushed.is_err_and(|error| refused(error.kind()));
        if !poisoned {
            return if self.is_sync() {
                Err("a handle that goes on after a failed sync".into())
            } else {
                Ok(())
            };
        }
        report.poisoned += 1;
        let mut sector = [0; 512];
        let again = device.read_at(&mut sector, 0);
        again.map_err(|error| format!("a poisoned handle no longer reads: {error}"))?;
        for _ in 0..2 {
            match device.write_at(&sector, 0) {
                Err(error) if refused(error.kind()) => {}
                other => return Err(format!("a poisoned handle answers a write by {other:?}")),
            }
        }
        Ok(())
    }

    /// The file as it is, and as a crash would leave it.
    fn files(&self, history: &History, report: &mut FaultReport) -> Result<(), String> {
        let log = self.recording.log();
        let expected = Expected::at(history, log.len(), self.scenario.allowed);
        let view = View {
            touched: history.touched(),
        };
        let points = points(&self.image, &log);
        let point = points.last().expect("there is a start");
        let choices = Choices::new(point, &log, self.injector.seed, 10);
        let mut rng = Rng::new(self.injector.seed ^ self.plan.nth);
        let subject = self.injector.subject;
        for number in 0..=self.injector.states {
            // First everything and nothing, then anything.
            let number = if number < 2 {
                number
            } else {
                rng.below(choices.planned() + 64)
            };
            let choice = choices.choice(number);
            let image = choice.image(point, &log);
            report.states += 1;
            verify(subject, &image, &expected, &view, &mut rng)
                .map_err(|wrong| format!("{wrong}\n    {}", choice.describe(point, &log)))?;
        }
        Ok(())
    }
}
