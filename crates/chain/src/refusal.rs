//! Why each name of a reference led nowhere, and the one error made of it.

use std::borrow::Cow;
use std::fmt::Write;

use blockdev_core::{Error, ErrorKind, FileName};

use crate::link::{FoundBy, Link};

/// How far a candidate came. Of several refusals the furthest decides the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// No such file, or it could not be opened.
    Missing,
    /// The policy forbids to open it.
    Forbidden,
    /// A file is there that cannot be used.
    Found,
    /// An image is there, of another content.
    Mismatched,
}

/// One candidate refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) stage: Stage,
    pub(crate) error: Error,
}

impl Refusal {
    pub(crate) fn new(stage: Stage, error: Error) -> Self {
        Self { stage, error }
    }

    /// There is nothing to open.
    pub(crate) fn missing(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Stage::Missing, Error::new(ErrorKind::NeedsParent, why))
    }

    /// The policy or the opener said no.
    pub(crate) fn by_opener(error: Error) -> Self {
        let stage = match error.kind() {
            ErrorKind::Policy => Stage::Forbidden,
            _ => Stage::Missing,
        };
        Self::new(stage, error)
    }
}

/// All candidates refused.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Each name and its reason.
    list: String,
    /// The first of those that came furthest.
    furthest: Option<Refusal>,
}

impl Refusals {
    /// Notes one more.
    pub(crate) fn push(&mut self, name: &FileName, refusal: Refusal) {
        let separator = if self.list.is_empty() { "" } else { "; " };
        let tried = FoundBy::Name(name.clone());
        // Writing to a string cannot fail.
        let _ = write!(self.list, "{separator}{tried}: {}", refusal.error);
        let further = |old: &Refusal| old.stage < refusal.stage;
        if self.furthest.as_ref().is_none_or(further) {
            self.furthest = Some(refusal);
        }
    }

    /// The error of the whole search for what is `wanted` (a parent, a data file) by `child`.
    pub(crate) fn into_error(self, wanted: &str, child: &Link) -> Error {
        let Some(furthest) = self.furthest else {
            return Error::new(
                ErrorKind::NeedsParent,
                format!("{child} has a {wanted}, but names no file for it"),
            );
        };
        let kind = match furthest.stage {
            Stage::Missing => ErrorKind::NeedsParent,
            Stage::Forbidden => ErrorKind::Policy,
            Stage::Found => furthest.error.kind(),
            Stage::Mismatched => ErrorKind::ParentMismatch,
        };
        Error::new(kind, format!("no {wanted} for {child}: {}", self.list))
            .caused_by(furthest.error)
    }
}
