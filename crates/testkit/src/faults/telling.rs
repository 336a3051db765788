//! One telling of a scenario in which one thing fails, and its judgement.

use std::sync::Arc;

use blockdev_core::{BlockDevice, Error, ErrorKind, Result, Storage};

use super::{FaultInjector, FaultReport};
use crate::Rng;
use crate::counting::{Fault, FaultyStorage, Op};
use crate::crash::choice::Choices;
use crate::crash::verify::{AfterCrash, View};
use crate::crash::window::points;
use crate::crash::{CrashSubject, Driver, Expected, History, Image, Recording, Scenario, index};

/// Disks up to this size are read whole after a failure, others where they were written to.
const READ_WHOLE: u64 = 8 << 20;

/// One failure to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) op: Op,
    pub(super) nth: u64,
    pub(super) fault: Fault,
    pub(super) from_then_on: bool,
}

/// A scenario under one failure.
pub(super) struct Telling<'t, 'a, S: CrashSubject> {
    injector: &'t FaultInjector<'a, S>,
    scenario: &'t Scenario<'t, S>,
    recording: Arc<Recording>,
    /// The files, on one host.
    faulty: Vec<Arc<FaultyStorage>>,
    plan: Plan,
    /// Whether it was met; healing the host forgets it.
    hit: bool,
}

impl<'t, 'a, S: CrashSubject> Telling<'t, 'a, S> {
    pub(super) fn new(
        injector: &'t FaultInjector<'a, S>,
        scenario: &'t Scenario<'_, S>,
        plan: Plan,
    ) -> Self {
        let recording = Recording::new(scenario.images.clone());
        let mut faulty: Vec<Arc<FaultyStorage>> = Vec::new();
        for (file, storage) in recording.storages().into_iter().enumerate() {
            let recording = Arc::clone(&recording);
            let witness = move |op| {
                if matches!(op, Op::SyncData | Op::SyncFull) {
                    recording.sync_failed(file);
                }
            };
            faulty.push(match faulty.first() {
                None => FaultyStorage::witnessed(storage, witness),
                Some(first) => first.beside(storage, witness),
            });
        }
        let telling = Self {
            injector,
            scenario,
            recording,
            faulty,
            plan,
            hit: false,
        };
        if plan.from_then_on {
            telling.host().fail_from(plan.op, plan.nth, plan.fault);
        } else {
            telling.host().fail(plan.op, plan.nth, plan.fault);
        }
        telling
    }

    /// Any of the files: they fail as one.
    fn host(&self) -> &FaultyStorage {
        &self.faulty[0]
    }

    /// True when the failure was met at all.
    pub(super) fn was_hit(&self) -> bool {
        self.hit || self.host().hit()
    }

    /// Tells the scenario and judges what is left.
    pub(super) fn run(&mut self, content: &Image, report: &mut FaultReport) -> Result<(), String> {
        let file = |faulty: &Arc<FaultyStorage>| -> Arc<dyn Storage> { faulty.clone() };
        let files = self.faulty.iter().map(file).collect();
        let subject = self.injector.subject;
        let recording = Arc::clone(&self.recording);
        let driver = Driver::new(subject, recording, files, content.clone());
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                self.hit = self.host().hit();
                self.typed(&error)?;
                return self.files(&History::new(content.clone()), report);
            }
        };
        let told = (self.scenario.script)(&mut driver).and_then(|()| driver.close());
        self.hit = self.host().hit();
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
        self.host().heal();
        let expected = Expected::live(&driver.history(), self.recording.now());
        let size = device.size();
        let ranges = if size <= READ_WHOLE {
            std::iter::once(0..size).collect()
        } else {
            driver.history().touched()
        };
        for range in ranges {
            let range = range.start.min(size)..range.end.min(size);
            let mut bytes = vec![0xEE; index(range.end - range.start)];
            let read = device.read_at(&mut bytes, range.start);
            read.map_err(|error| format!("the handle no longer reads: {error}"))?;
            let judged = expected.judge(size, &[(range.start, &bytes)]);
            judged.map_err(|wrong| format!("the handle after the failure: {wrong}"))?;
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

    /// The files as they are, and as a crash would leave them.
    fn files(&self, history: &History, report: &mut FaultReport) -> Result<(), String> {
        let log = self.recording.log();
        let expected = Expected::at(history, log.len(), self.scenario.allowed);
        let view = View::of(history);
        let points = points(&self.scenario.images, &log);
        let point = points.last().expect("there is a start");
        let choices = Choices::new(point, &log, self.injector.seed, 10);
        let mut rng = Rng::new(self.injector.seed ^ self.plan.nth);
        let after = AfterCrash {
            subject: self.injector.subject,
            expected: &expected,
            view: &view,
            interrupted: history.interrupted(log.len()),
        };
        for number in 0..=self.injector.states {
            // First everything and nothing, then anything.
            let number = if number < 2 {
                number
            } else {
                rng.below(choices.planned() + 64)
            };
            let choice = choices.choice(number);
            let images = choice.images(point, &log);
            report.states += 1;
            after
                .verify(&images, &mut rng)
                .map_err(|wrong| format!("{wrong}\n    {}", choice.describe(point, &log)))?;
        }
        Ok(())
    }
}
