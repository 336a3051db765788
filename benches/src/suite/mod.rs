//! What is compared for one format: who, at what, on which images.

mod qcow2;
pub(crate) mod vhdx;

use std::path::Path;

use crate::Outcome;
use crate::engine::{Engine, Format};
use crate::job::Job;

#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) format: Format,
    /// Ours first, the plain file last.
    pub(crate) engines: &'static [Engine],
    /// The jobs, for a disk of so many bytes.
    pub(crate) jobs: fn(u64) -> Vec<Job>,
    /// Makes an image in which nothing is, of so many bytes.
    pub(crate) create: fn(&Path, u64) -> Outcome,
    /// Makes an image that holds what the raw file does, all of it stored.
    pub(crate) fill: fn(&Path, &Path) -> Outcome,
    /// Makes an image in which nothing is, over a parent beside it; none where there are no such jobs.
    pub(crate) derive: Option<fn(&Path, &Path) -> Outcome>,
    /// What the table leaves to be said.
    pub(crate) notes: &'static str,
}

impl Suite {
    pub(crate) fn of(format: &str) -> Option<&'static Self> {
        [&qcow2::SUITE, &vhdx::SUITE]
            .into_iter()
            .find(|suite| suite.format.name() == format)
    }
}
