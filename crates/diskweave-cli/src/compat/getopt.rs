//! Options as QEMU's tools take them, which is as GNU's `getopt_long` does: short ones joined (`-qp`),
//! values joined or apart (`-fraw`, `-f raw`, `--format=raw`), long ones cut short where that leaves no
//! doubt, operands anywhere, and nothing but operands after `--`.

use std::ffi::OsString;

use super::complaint::Complaint;

/// One option that a program or a verb of it knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Its one letter, if it has one.
    pub(crate) short: Option<char>,
    /// Its long name, by which [`Parsed`] knows it.
    pub(crate) long: &'static str,
    /// Whether a value belongs to it.
    pub(crate) takes_value: bool,
}

impl Flag {
    /// An option that says all by being there.
    pub(crate) const fn switch(short: char, long: &'static str) -> Self {
        Self {
            short: Some(short),
            long,
            takes_value: false,
        }
    }

    /// An option with a value.
    pub(crate) const fn value(short: char, long: &'static str) -> Self {
        Self {
            short: Some(short),
            long,
            takes_value: true,
        }
    }

    /// The same without a letter.
    pub(crate) const fn long_only(mut self) -> Self {
        self.short = None;
        self
    }
}

/// What was said, in the order in which it was said.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    options: Vec<(&'static str, Option<OsString>)>,
    /// What is no option.
    pub(crate) operands: Vec<OsString>,
}

impl Parsed {
    /// Whether the option called `long` was said.
    pub(crate) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// How often the option called `long` was said.
    pub(crate) fn count(&self, long: &str) -> usize {
        let said = self.options.iter().filter(|(name, _)| *name == long);
        said.count()
    }

    /// The value of the option called `long`; of several the last one counts.
    pub(crate) fn value(&self, long: &str) -> Option<String> {
        self.values(long).pop()
    }

    /// Every value of the option called `long`.
    pub(crate) fn values(&self, long: &str) -> Vec<String> {
        let said = self.options.iter().filter(|(name, _)| *name == long);
        said.filter_map(|(_, value)| Some(value.as_ref()?.to_string_lossy().into_owned()))
            .collect()
    }
}

/// Takes `arguments` apart by `flags`. Messages begin with `speaker`: the program, and its verb if it has
/// any.
pub(crate) fn parse(
    speaker: &str,
    flags: &[Flag],
    arguments: &[OsString],
) -> Result<Parsed, Complaint> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            parsed.operands.extend(rest.cloned());
            break;
        }
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let flag = find(speaker, flags, name, &text)?;
            let value = match (flag.takes_value, value) {
                (true, Some(value)) => Some(value.into()),
                (true, None) => Some(rest.next().cloned().ok_or_else(|| {
                    let text = format!("option '--{}' requires an argument", flag.long);
                    Complaint::usage_of(speaker, text)
                })?),
                (false, None) => None,
                (false, Some(_)) => {
                    let text = format!("option '--{}' doesn't allow an argument", flag.long);
                    return Err(Complaint::usage_of(speaker, text));
                }
            };
            parsed.options.push((flag.long, value));
        } else if text.len() > 1 && text.starts_with('-') {
            letters(speaker, flags, &text[1..], &mut rest, &mut parsed)?;
        } else {
            parsed.operands.push(argument.clone());
        }
        // Whoever asks for help has no need to be right in what follows.
        if parsed.has("help") {
            break;
        }
    }
    Ok(parsed)
}

/// Options of one letter each, the last of which may have its value joined to it.
fn letters<'a>(
    speaker: &str,
    flags: &[Flag],
    letters: &str,
    rest: &mut impl Iterator<Item = &'a OsString>,
    parsed: &mut Parsed,
) -> Result<(), Complaint> {
    for (at, letter) in letters.char_indices() {
        let flag = flags.iter().find(|flag| flag.short == Some(letter));
        let flag = flag
            .ok_or_else(|| Complaint::usage_of(speaker, format!("invalid option -- '{letter}'")))?;
        if !flag.takes_value {
            parsed.options.push((flag.long, None));
            continue;
        }
        let joined = &letters[at + letter.len_utf8()..];
        let value = match joined {
            "" => rest.next().cloned().ok_or_else(|| {
                let text = format!("option requires an argument -- '{letter}'");
                Complaint::usage_of(speaker, text)
            })?,
            joined => joined.into(),
        };
        parsed.options.push((flag.long, Some(value)));
        break;
    }
    Ok(())
}

/// The flag called `name`, or the only one that begins so.
fn find<'a>(
    speaker: &str,
    flags: &'a [Flag],
    name: &str,
    said: &str,
) -> Result<&'a Flag, Complaint> {
    if let Some(flag) = flags.iter().find(|flag| flag.long == name) {
        return Ok(flag);
    }
    let begins: Vec<&Flag> = flags
        .iter()
        .filter(|flag| flag.long.starts_with(name))
        .collect();
    match begins[..] {
        [flag] => Ok(flag),
        [] => {
            let said = said.split('=').next().unwrap_or(said);
            let text = format!("unrecognized option '{said}'");
            Err(Complaint::usage_of(speaker, text))
        }
        _ => {
            let mut text = format!("option '{said}' is ambiguous; possibilities:");
            for flag in begins {
                text += &format!(" '--{}'", flag.long);
            }
            Err(Complaint::usage_of(speaker, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch('q', "quiet"),
        Flag::switch('p', "progress"),
        Flag::value('f', "format"),
        Flag::value('o', "output").long_only(),
        Flag::value('o', "object").long_only(),
    ];

    fn parsed(arguments: &[&str]) -> Result<Parsed, Complaint> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse("tool verb", FLAGS, &arguments)
    }

    #[test]
    fn options_are_joined_and_cut_short_as_getopt_has_it() {
        let spellings: [&[&str]; 6] = [
            &["-qpfraw", "a", "b"],
            &["a", "-q", "-p", "-f", "raw", "b"],
            &["--quiet", "--progress", "--format=raw", "a", "b"],
            &["--qui", "--p", "--for", "raw", "a", "b"],
            &["-f", "qcow2", "-qp", "-f", "raw", "a", "b"],
            &["-qpfraw", "a", "--", "b"],
        ];
        for spelling in spellings {
            let parsed = parsed(spelling).unwrap();
            assert!(
                parsed.has("quiet") && parsed.has("progress"),
                "{spelling:?}"
            );
            assert_eq!(parsed.value("format").as_deref(), Some("raw"));
            assert_eq!(parsed.operands, ["a", "b"], "{spelling:?}");
        }
    }

    #[test]
    fn a_dash_and_what_follows_two_are_operands() {
        let parsed = parsed(&["-", "--", "-q", "--format"]).unwrap();
        assert_eq!(parsed.operands, ["-", "-q", "--format"]);
        assert!(!parsed.has("quiet"));
    }

    #[test]
    fn mistakes_are_told_in_getopts_words() {
        for (arguments, message) in [
            (&["--foo=1"][..], "unrecognized option '--foo'"),
            (&["-Z"], "invalid option -- 'Z'"),
            (&["-f"], "option requires an argument -- 'f'"),
            (&["--format"], "option '--format' requires an argument"),
            (&["--quiet=1"], "option '--quiet' doesn't allow an argument"),
            (
                &["--o=json"],
                "option '--o=json' is ambiguous; possibilities: '--output' '--object'",
            ),
        ] {
            let complaint = parsed(arguments).unwrap_err();
            let first = format!("tool verb: {message}");
            assert_eq!(complaint.lines().next(), Some(&*first), "{arguments:?}");
        }
    }
}
