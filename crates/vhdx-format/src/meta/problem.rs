//! One breach of one rule, and what it means for opening the file.

use blockdev_core::{Finding, Severity};

use crate::VhdxError;

/// Whether a file with the problem can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It opens.
    Harmless,
    /// It opens unless the caller asked to be strict.
    RefusedIfStrict,
    /// It does not open.
    Refused,
}

/// A breach of a rule.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) effect: Effect,
    pub(crate) severity: Severity,
    pub(crate) section: &'static str,
    pub(crate) code: &'static str,
    /// Section of [MS-VHDX].
    pub(crate) reference: &'static str,
    pub(crate) error: VhdxError,
}

impl Problem {
    /// Content or structure is damaged so that the file cannot be used.
    pub(crate) fn refused(
        section: &'static str,
        code: &'static str,
        reference: &'static str,
        error: VhdxError,
    ) -> Self {
        let effect = Effect::Refused;
        Self {
            effect,
            severity: Severity::Corruption,
            section,
            code,
            reference,
            error,
        }
    }

    /// Against the specification, but what is meant is plain.
    pub(crate) fn warning(
        section: &'static str,
        code: &'static str,
        reference: &'static str,
        error: VhdxError,
    ) -> Self {
        let effect = Effect::RefusedIfStrict;
        Self {
            effect,
            severity: Severity::Warning,
            section,
            code,
            reference,
            error,
        }
    }

    /// As the specification foresees, and worth knowing.
    pub(crate) fn note(
        section: &'static str,
        code: &'static str,
        reference: &'static str,
        error: VhdxError,
    ) -> Self {
        let effect = Effect::Harmless;
        Self {
            effect,
            severity: Severity::Note,
            section,
            code,
            reference,
            error,
        }
    }

    /// The same with another effect.
    pub(crate) fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    pub(crate) fn into_finding(self) -> Finding {
        let (structure, offset) = self.error.place();
        let message = if structure == self.section {
            // The section says it already.
            self.error.to_string()
        } else {
            format!("{structure}: {}", self.error)
        };
        Finding {
            severity: self.severity,
            section: self.section,
            code: self.code,
            message: message.into(),
            reference: self.reference,
            offset: Some(offset),
            numbers: Vec::new(),
        }
    }
}

/// The first problem that keeps the file from being opened, as an error.
pub(crate) fn refuse(problems: Vec<Problem>, strict: bool) -> Result<(), VhdxError> {
    let bar = |effect| match effect {
        Effect::Harmless => false,
        Effect::RefusedIfStrict => strict,
        Effect::Refused => true,
    };
    match problems.into_iter().find(|problem| bar(problem.effect)) {
        Some(problem) => Err(problem.error),
        None => Ok(()),
    }
}
