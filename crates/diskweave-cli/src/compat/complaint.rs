//! What is said on standard error in QEMU's place.

use std::fmt::Display;

use crate::failure::Failure;
use crate::output::plain::complain;

/// Messages, as they are shown, and the exit code that comes with them.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) code: u8,
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    /// Begins with the name of the program.
    Spoken(String),
    /// Is shown as it is.
    Plain(String),
}

impl Complaint {
    /// `PROGRAM: MESSAGE`. Further lines of the message are shown as they are.
    pub(crate) fn new(message: impl Display) -> Self {
        let message = message.to_string();
        let mut lines = message.lines();
        let first = lines.next().unwrap_or_default().to_string();
        let first = std::iter::once(Line::Spoken(first));
        Self {
            code: 1,
            lines: first
                .chain(lines.map(|line| Line::Plain(line.to_string())))
                .collect(),
        }
    }

    /// `SPEAKER: MESSAGE` and where to find help; `speaker` is the program with its verb.
    pub(crate) fn usage_of(speaker: &str, message: impl Display) -> Self {
        Self {
            code: 1,
            lines: vec![Line::Plain(format!("{speaker}: {message}")), help(speaker)],
        }
    }

    /// `PROGRAM: MESSAGE` and where to find help of `speaker`.
    pub(crate) fn try_help(speaker: &str, message: impl Display) -> Self {
        let mut complaint = Self::new(message);
        complaint.lines.push(help(speaker));
        complaint
    }

    /// The same, said of `name`.
    pub(crate) fn about(mut self, name: &str) -> Self {
        if let Some(Line::Spoken(text)) = self.lines.first_mut() {
            *text = format!("{name}: {text}");
        }
        self
    }

    /// The same with `line` in place of where it says that help is to be found.
    pub(crate) fn helped_by(mut self, line: impl Display) -> Self {
        self.lines.pop();
        self.lines.push(Line::Plain(line.to_string()));
        self
    }

    /// The same with `line` after it, as it is.
    pub(crate) fn and_plain(mut self, line: impl Display) -> Self {
        self.lines.push(Line::Plain(line.to_string()));
        self
    }

    /// The same, but what begins with `with` begins with `instead`.
    pub(crate) fn begun_by(mut self, with: &str, instead: &str) -> Self {
        if let Some(Line::Spoken(first)) = self.lines.first_mut()
            && let Some(rest) = first.strip_prefix(with)
        {
            *first = format!("{instead}{rest}");
        }
        self
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The same with another message after it.
    pub(crate) fn and(mut self, message: impl Display) -> Self {
        self.lines.push(Line::Spoken(message.to_string()));
        self
    }

    /// Shows it, spoken by `program`.
    pub(crate) fn show(&self, program: &str) {
        for line in &self.lines {
            match line {
                Line::Spoken(line) => complain(&format!("{program}: {line}")),
                Line::Plain(line) => complain(line),
            }
        }
    }

    /// Every line without the program's name, for tests.
    #[cfg(test)]
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| match line {
            Line::Spoken(line) | Line::Plain(line) => &**line,
        })
    }
}

fn help(speaker: &str) -> Line {
    Line::Plain(format!("Try '{speaker} --help' for more info"))
}

impl From<Failure> for Complaint {
    /// A failure that QEMU has no words of its own for.
    fn from(failure: Failure) -> Self {
        let code = failure.code;
        match failure.into_message() {
            Some(message) => Self::new(message).with_code(code),
            None => Self {
                code,
                lines: Vec::new(),
            },
        }
    }
}
