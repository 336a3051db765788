//! Text out of images and of the host, shown as it is but for what would steer the terminal.

use std::io::{self, Write};

use crate::failure::Failure;

/// `text` with control characters, and others that are not seen, spelled out; quotes and
/// backslashes are left alone, so that paths can be copied.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '"' | '\'' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to standard error. Whoever closed it does not want to know.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_spelled_out_and_names_stay_readable() {
        for (text, shown) in [
            (r".\it's base.vhdx", r".\it's base.vhdx"),
            ("größe \"x\"", "größe \"x\""),
            ("a\u{1b}[2Jb\r\nc\t", "a\\u{1b}[2Jb\\r\\nc\\t"),
            ("a\u{9b}2J", "a\\u{9b}2J"),
            ("exe.\u{202e}xdhv", "exe.\\u{202e}xdhv"),
            ("\u{200b}", "\\u{200b}"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
