//! Tells a scenario once and keeps what happened.

use std::sync::Arc;

use blockdev_core::Result;

use super::recording::Line;
use super::verify::{View, content, guarded};
use super::{Control, CrashSubject, Driver, History, Image, Recording, Scenario};

/// One telling of a scenario.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) images: Vec<Image>,
    pub(crate) log: Vec<Line>,
    pub(crate) history: History,
    /// What is to be read of its disk.
    pub(crate) view: View,
}

/// Tells `scenario` from its start to a clean close.
pub(crate) fn record<S: CrashSubject>(
    subject: &S,
    scenario: &Scenario<'_, S>,
) -> Result<Recorded, String> {
    let images = scenario.images.clone();
    let start = start_content(subject, scenario)?;
    let recording = Recording::new(images.clone());
    let files = recording.storages();
    let history = guarded(|| {
        let told = || -> Result<History> {
            let mut driver = Driver::new(subject, Arc::clone(&recording), files, start)?;
            (scenario.script)(&mut driver)?;
            driver.close()?;
            Ok(driver.history())
        };
        told().map_err(|error| format!("the scenario itself fails: {error}"))
    })?;
    Ok(Recorded {
        view: View::of(&history),
        images,
        log: recording.log(),
        history,
    })
}

/// What a story does to its files.
#[derive(Debug)]
pub struct Told {
    /// The files at the start.
    pub images: Vec<Image>,
    /// Everything that changed them, with the driver's marks.
    pub log: Vec<Line>,
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
        images: recorded.images,
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
        None => guarded(|| content(subject, &scenario.images)),
    }
}

/// What a writable open and a close do to the files, and then what the operation `interrupted` does
/// when it is carried out again: recovery is a write path too.
pub(crate) fn record_recovery<S: CrashSubject>(
    subject: &S,
    images: &[Image],
    interrupted: Option<Control>,
) -> Result<Vec<Line>, String> {
    let recording = Recording::new(images.to_vec());
    let files = recording.storages();
    guarded(|| {
        let recover = || -> Result<()> {
            subject.close(subject.open(&files, true)?)?;
            let resumed = interrupted.map(|control| subject.resume(&files, control));
            match resumed.transpose()?.flatten() {
                Some(device) => subject.close(device),
                None => Ok(()),
            }
        };
        recover().map_err(|error| format!("recovery: {error}"))
    })?;
    Ok(recording.log())
}
