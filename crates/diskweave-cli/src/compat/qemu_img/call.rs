//! What a verb was called with, and what several verbs make of it.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;

use diskweave::{NoProgress, Progress, SnapshotName};

use crate::args::Output;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::{Flag, Parsed};
use crate::compat::image::{Named, key_values};
use crate::compat::name_of;
use crate::snapshot_name;

/// Options that many verbs have.
pub(super) const QUIET: Flag = Flag::switch('q', "quiet");
pub(super) const PROGRESS: Flag = Flag::switch('p', "progress");
pub(super) const FORMAT: Flag = Flag::value('f', "format");
pub(super) const IMAGE_OPTS: Flag = Flag::switch(' ', "image-opts").long_only();
pub(super) const FORCE_SHARE: Flag = Flag::switch('U', "force-share");
pub(super) const OBJECT: Flag = Flag::value(' ', "object").long_only();
pub(super) const CACHE: Flag = Flag::value('T', "cache");
pub(super) const OPTIONS: Flag = Flag::value('o', "options");
pub(super) const SNAPSHOT: Flag = Flag::value('l', "snapshot");
pub(super) const OUTPUT: Flag = Flag::value(' ', "output").long_only();

/// The most that QEMU takes for a place in a disk.
pub(super) const MOST: u64 = i64::MAX as u64;

pub(super) const CACHE_MODES: [&str; 6] = [
    "none",
    "off",
    "directsync",
    "writeback",
    "unsafe",
    "writethrough",
];

/// A verb with what was said to it.
pub(super) struct Call {
    program: String,
    verb: &'static str,
    pub(super) said: Parsed,
}

impl Call {
    pub(super) fn new(program: &str, verb: &'static str, said: Parsed) -> Self {
        Self {
            program: program.into(),
            verb,
            said,
        }
    }

    /// The program's name.
    pub(super) fn program(&self) -> &str {
        name_of(&self.program)
    }

    /// A mistake in what was said, with the way to the verb's help.
    pub(super) fn usage(&self, text: impl Display) -> Complaint {
        Complaint::try_help(&format!("{} {}", self.program, self.verb), text)
    }

    /// The operands as text.
    pub(super) fn operands(&self) -> Vec<String> {
        let operands = self.said.operands.iter();
        operands
            .map(|text| text.to_string_lossy().into_owned())
            .collect()
    }

    /// The only image that a verb is about.
    pub(super) fn one_image(&self) -> Result<Named, Complaint> {
        match &self.said.operands[..] {
            [name] => self.image(name, "format"),
            _ => Err(self.usage("Expecting one image file name")),
        }
    }

    /// The image that the operand `name` means, of the format that the option called `format` says.
    pub(super) fn image(&self, name: &OsStr, format: &str) -> Result<Named, Complaint> {
        let name = name.to_string_lossy();
        let format = self.said.value(format);
        let shared = self.said.has("force-share");
        if !self.said.has("image-opts") {
            return Named::new(&name, format, shared);
        }
        if format.is_some() {
            let text = "--image-opts and --format are mutually exclusive";
            return Err(Complaint::new(text));
        }
        Named::of_options(&name, shared)
    }

    /// For people or for programs, as `--output` says.
    pub(super) fn output(&self) -> Result<Output, Complaint> {
        match self.said.value("output").as_deref() {
            None | Some("human") => Ok(Output::Human),
            Some("json") => Ok(Output::Json),
            Some(other) => {
                let text = format!("--output expects 'human' or 'json' not '{other}'");
                Err(self.usage(text))
            }
        }
    }

    /// Whether nothing is to be said of what went well.
    pub(super) fn quiet(&self) -> bool {
        self.said.has("quiet")
    }

    /// Refuses a cache mode that there is none of. All of them come to the same here: a page cache, and
    /// everything on stable storage at the end.
    pub(super) fn check_cache(&self, option: &str, what: &str) -> Result<(), Complaint> {
        match self.said.value(option) {
            Some(mode) if !CACHE_MODES.contains(&&*mode) => {
                Err(Complaint::new(format!("Invalid {what} option: {mode}")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses objects: what they are for is not done.
    pub(super) fn check_objects(&self) -> Result<(), Complaint> {
        let Some(said) = self.said.value("object") else {
            return Ok(());
        };
        let options = key_values(&said);
        let kind = options.iter().find(|(key, _)| key == "qom-type");
        let kind = match (kind, options.first()) {
            (Some((_, kind)), _) | (None, Some((kind, _))) => kind.as_str(),
            (None, None) => "",
        };
        Err(Complaint::new(match kind {
            "secret" => {
                "objects of type 'secret' are for encrypted images, which are not read".into()
            }
            "throttle-group" => {
                "objects of type 'throttle-group' are not known; convert and commit take a rate \
                                 (-r)"
                    .into()
            }
            "tls-creds-x509" | "tls-creds-psk" | "tls-creds-anon" | "iothread" | "authz-list" => {
                format!("objects of type '{kind}' are not known here")
            }
            kind => format!("Parameter 'qom-type' does not accept value '{kind}'"),
        }))
    }

    /// The value of `option`, a number of bytes from `least` to `most`, which is spoken of as `what`.
    pub(super) fn bytes(
        &self,
        option: &str,
        what: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, Complaint> {
        let text = self.said.value(option);
        text.map(|text| number(&text, what, least, most))
            .transpose()
    }

    /// The value of `option`, a plain number from `least` to `most`, which is spoken of as `what`.
    pub(super) fn count(
        &self,
        option: &str,
        what: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, Complaint> {
        let text = self.said.value(option);
        text.map(|text| plain_number(&text, what, least, most))
            .transpose()
    }

    /// The internal snapshot that is meant, if one is.
    pub(super) fn snapshot(&self) -> Result<Option<SnapshotName>, Complaint> {
        let text = self.said.value("snapshot");
        text.map(|text| snapshot_name::parse(&text).map_err(Complaint::new))
            .transpose()
    }

    /// Shows how far it is on standard output, if that was asked for.
    pub(super) fn progress(&self) -> Box<dyn Progress> {
        self.progress_by(1.0, PercentEnd::Whole)
    }

    /// The same each time it has become `step` hundredths more, ending as `end` says.
    pub(super) fn progress_by(&self, step: f64, end: PercentEnd) -> Box<dyn Progress> {
        match self.said.has("progress") && !self.quiet() {
            true => Box::new(Percent {
                step,
                end,
                shown: Mutex::default(),
            }),
            false => Box::new(NoProgress),
        }
    }
}

/// `text` as a number of bytes from `least` to `most`, which is spoken of as `what`.
pub(super) fn number(text: &str, what: &str, least: u64, most: u64) -> Result<u64, Complaint> {
    match parse_size(text) {
        Size::Bytes(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        Size::Malformed => {
            let text = format!("Invalid {what} specified: '{text}'.");
            Err(Complaint::new(text))
        }
        Size::Bytes(_) | Size::OutOfRange => {
            let text = format!("Invalid {what} specified. Must be between {least} and {most}.");
            Err(Complaint::new(text))
        }
    }
}

/// `text` as a number from `least` to `most`, without a unit, which is spoken of as `what`.
pub(super) fn plain_number(
    text: &str,
    what: &str,
    least: u64,
    most: u64,
) -> Result<u64, Complaint> {
    let hexadecimal = text.trim_start().to_ascii_lowercase().starts_with("0x");
    if text.ends_with(|c: char| c.is_ascii_alphabetic()) && !hexadecimal {
        let text = format!("Invalid {what} specified: '{text}'.");
        return Err(Complaint::new(text));
    }
    number(text, what, least, most)
}

/// What a size that somebody wrote comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Bytes(u64),
    Malformed,
    /// Negative, or more than 64 bits hold.
    OutOfRange,
}

/// Sizes as QEMU reads them: `4096`, `0x1000`, `1.5G`, `512b`, `2e`.
pub(crate) fn parse_size(text: &str) -> Size {
    let text = text.trim_start();
    if let Some(positive) = text.strip_prefix('-') {
        return match parse_size(positive) {
            Size::Malformed => Size::Malformed,
            _ => Size::OutOfRange,
        };
    }
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return match (digits, u64::from_str_radix(digits, 16)) {
            ("", _) => Size::Malformed,
            (_, Ok(bytes)) => Size::Bytes(bytes),
            (digits, Err(_)) if digits.chars().all(|c| c.is_ascii_hexdigit()) => Size::OutOfRange,
            _ => Size::Malformed,
        };
    }
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "p" | "P" => 50,
        "e" | "E" => 60,
        _ => return Size::Malformed,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || (shift == 0 && !fraction.is_empty())
    {
        return Size::Malformed;
    }
    let Some(bytes) = whole
        .parse()
        .ok()
        .and_then(|n: u64| n.checked_mul(1 << shift))
    else {
        return Size::OutOfRange;
    };
    // A part of a unit, to the nearest byte.
    let part: f64 = format!("0.{fraction}0").parse().unwrap_or(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let part = (part * (1_u64 << shift) as f64).round() as u64;
    match bytes.checked_add(part) {
        Some(bytes) => Size::Bytes(bytes),
        None => Size::OutOfRange,
    }
}

/// How progress comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PercentEnd {
    /// All of it is done.
    Whole,
    /// The line ends as it is.
    Line,
}

/// `    (12.34/100%)` and back to the line's beginning, each time it has become so much more.
struct Percent {
    /// In hundredths.
    step: f64,
    end: PercentEnd,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    total: u64,
    done: u64,
    percent: Option<f64>,
}

impl Percent {
    fn show(&self, change: impl FnOnce(&mut Shown)) {
        let mut shown = self
            .shown
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut shown);
        let percent = match shown.total {
            0 => 0.0,
            // To two decimals no more precision is needed.
            #[allow(clippy::cast_precision_loss)]
            total => shown.done as f64 * 100.0 / total as f64,
        };
        let whole = shown.total > 0 && shown.done >= shown.total;
        if let Some(last) = shown.percent
            && (percent - last < self.step && !(whole && last < percent))
        {
            return;
        }
        shown.percent = Some(percent);
        // Whoever closed the output is not to be told.
        let mut out = io::stdout().lock();
        let _ = write!(out, "    ({percent:.2}/100%)\r");
        let _ = out.flush();
    }
}

impl Progress for Percent {
    fn start(&self, total: u64) {
        self.show(|shown| {
            shown.total = total;
            shown.done = 0;
        });
    }

    fn advance(&self, bytes: u64) {
        self.show(|shown| shown.done = (shown.done + bytes).min(shown.total));
    }
}

impl Drop for Percent {
    fn drop(&mut self) {
        let shown = self
            .shown
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let whole = shown.percent.is_some_and(|percent| percent >= 100.0);
        let mut out = io::stdout().lock();
        let _ = match self.end {
            PercentEnd::Whole if whole => writeln!(out),
            PercentEnd::Whole => write!(out, "    (100.00/100%)\r\n"),
            PercentEnd::Line => writeln!(out),
        };
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        for (text, size) in [
            ("4096", Size::Bytes(4096)),
            ("1.5G", Size::Bytes(3 << 29)),
            ("0x1000", Size::Bytes(4096)),
            ("512b", Size::Bytes(512)),
            ("1E", Size::Bytes(1 << 60)),
            ("", Size::Malformed),
            ("1x", Size::Malformed),
            ("1.5", Size::Malformed),
            ("-1", Size::OutOfRange),
            ("-x", Size::Malformed),
            ("99999999999999999999", Size::OutOfRange),
            ("16E", Size::OutOfRange),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
