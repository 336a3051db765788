//! The formats that are written to: one table for all tasks that prove it.

use crate::sh::{self, Outcome};
use std::process::Command;

/// A format whose proofs are the test `write` of a package.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Parts of that test which find mistakes in the order of writes, the quick ones first, for
    /// `planted`.
    pub(crate) finders: &'static [&'static str],
}

/// In the order in which tasks take them.
pub(crate) const FORMATS: &[Format] = &[
    Format {
        name: "qcow2",
        package: "qcow2-format",
        finders: &["crash::", "faults::"],
    },
    Format {
        name: "vhdx",
        package: "vhdx-format",
        finders: &["rules::", "crash::", "faults::"],
    },
    // No format, but written to all the same.
    Format {
        name: "chain",
        package: "diskweave",
        finders: &["crash::", "model::", "faults::"],
    },
];

/// For a task's usage line.
pub(crate) const OPTION: &str = "[--format qcow2|vhdx|chain]";

impl Format {
    /// The command that runs its test `write`, up to the test's own arguments.
    pub(crate) fn write_test(&self, release: bool) -> Command {
        let mut command = sh::cargo(&["test", "--locked"]);
        if release {
            command.arg("--release");
        }
        command.args(["--package", self.package, "--test", "write"]);
        command
    }
}

/// Takes `--format NAME` out of `arguments`: that format, or all of them where there is none.
pub(crate) fn take(arguments: &mut Vec<String>) -> Outcome<Vec<&'static Format>> {
    let Some(at) = arguments.iter().position(|name| name == "--format") else {
        return Ok(FORMATS.iter().collect());
    };
    let wanted = arguments.get(at + 1).cloned().unwrap_or_default();
    let found = FORMATS.iter().find(|format| format.name == wanted);
    let found = found.ok_or_else(|| format!("no format {wanted:?}: {OPTION}"))?;
    arguments.drain(at..at + 2);
    Ok(vec![found])
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn a_format_is_taken_out_wherever_it_stands_and_none_means_all() {
        let of = |text: &str| {
            let mut arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let formats = take(&mut arguments)?;
            let names: Vec<_> = formats.iter().map(|format| format.name).collect();
            Ok::<_, String>((names, arguments.join(" ")))
        };
        assert_eq!(of("5 --format vhdx x"), Ok((vec!["vhdx"], "5 x".into())));
        assert_eq!(of("5"), Ok((vec!["qcow2", "vhdx", "chain"], "5".into())));
        assert!(of("--format raw").is_err() && of("--format").is_err());
    }
}
