//! Tells a scenario once and keeps what happened.

use std::sync::Arc;

use blockdev_core::{Result, Storage};

use super::recording::Entry;
use super::verify::{View, content, guarded};
use super::{CrashSubject, Driver, History, Image, RecordingStorage, Scenario};

/// One telling of a scenario.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) image: Image,
    pub(crate) log: Vec<Entry>,
    pub(crate) history: History,
    /// What is to be read of its disk.
    pub(crate) view: View,
}

/// Tells `scenario` from its start to a clean close.
pub(crate) fn record<S: CrashSubject>(
    subject: &S,
    scenario: &Scenario<'_, S>,
) -> Result<Recorded, String> {
    let image = scenario.image.clone();
    let start = start_content(subject, scenario)?;
    let recording = RecordingStorage::new(image.clone());
    let storage: Arc<dyn Storage> = recording.clone();
    let history = guarded(|| {
        let told = || -> Result<History> {
            let mut driver = Driver::new(subject, Arc::clone(&recording), storage, start)?;
            (scenario.script)(&mut driver)?;
            driver.close()?;
            Ok(driver.history())
        };
        told().map_err(|error| format!("the scenario itself fails: {error}"))
    })?;
    Ok(Recorded {
        view: View::of(&history),
        image,
        log: recording.log(),
        history,
    })
}

/// What a story does to its file.
#[derive(Debug)]
pub struct Told {
    /// The file at the start.
    pub image: Image,
    /// Everything that changed it, with the driver's marks.
    pub log: Vec<Entry>,
    /// What each operation was, by its number in the marks.
    pub names: Vec<String>,
}

/// Tells `scenario` once, to a clean close, for a test that looks at the order of what it does.
///
/// # Panics
/// When the scenario itself fails.
pub fn tell<S: CrashSubject>(subject: &S, scenario: &Scenario<'_, S>) -> Told {
    let recorded = record(subject, scenario);
    let recorded = recorded.unwrap_or_else(|wrong| panic!("{}: {wrong}", scenario.name));
    Told {
        image: recorded.image,
        log: recorded.log,
        names: recorded.history.names,
    }
}

/// What the disk reads before the story begins.
pub(crate) fn start_content<S: CrashSubject>(
    subject: &S,
    scenario: &Scenario<'_, S>,
) -> Result<Image, String> {
    match &scenario.content {
        Some(content) => Ok(content.clone()),
        None => guarded(|| content(subject, &scenario.image)),
    }
}

/// The file after a writable open and a close, and what was done to it: recovery is a write path
/// too.
pub(crate) fn record_recovery<S: CrashSubject>(
    subject: &S,
    image: &Image,
) -> Result<Vec<Entry>, String> {
    let recording = RecordingStorage::new(image.clone());
    guarded(|| {
        let device = subject.open(recording.clone(), true);
        let closed = device.and_then(|device| subject.close(device));
        closed.map_err(|error| format!("recovery: {error}"))
    })?;
    Ok(recording.log())
}
