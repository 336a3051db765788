//! `bitmap`, which is refused: bitmaps are listed and measured, and not changed.

use super::call::{Call, FORMAT, IMAGE_OPTS, OBJECT};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;

pub(super) const FLAGS: &[Flag] = &[
    FORMAT,
    IMAGE_OPTS,
    OBJECT,
    Flag::value('b', "source-file"),
    Flag::value('F', "source-format"),
    Flag::value('g', "granularity"),
    Flag::switch(' ', "add").long_only(),
    Flag::switch(' ', "remove").long_only(),
    Flag::switch(' ', "clear").long_only(),
    Flag::switch(' ', "enable").long_only(),
    Flag::switch(' ', "disable").long_only(),
    Flag::value(' ', "merge").long_only(),
];

const CHANGES: [&str; 6] = ["add", "remove", "clear", "enable", "disable", "merge"];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let said = &call.said;
    call.bytes("granularity", "granularity", 1, 1 << 31)?;
    let operands = call.operands();
    let [name, bitmap] = &operands[..] else {
        return Err(match CHANGES.iter().any(|change| said.has(change)) {
            true => Complaint::new("Expecting filename and bitmap name"),
            false => needs_change(),
        });
    };
    let Some(change) = CHANGES.iter().find(|change| said.has(change)) else {
        return Err(needs_change());
    };
    let wrong = [
        (
            said.has("granularity") && !said.has("add"),
            "granularity only supported with --add",
        ),
        (
            said.has("source-format") && !said.has("source-file"),
            "-F only supported with -b",
        ),
        (
            said.has("source-file") && !said.has("merge"),
            "Merge bitmap source file only supported with --merge",
        ),
    ];
    if let Some((_, text)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
        return Err(Complaint::new(text));
    }
    let image = call.image(name.as_ref(), "format")?;
    let chain = image.open_writable()?;
    chain.close().map_err(|error| image.cannot_open(&error))?;
    let text = format!(
        "Operation {change} on bitmap {bitmap} failed: bitmaps of images are listed (diskweave bitmap \
         FILE), and not changed"
    );
    Err(Complaint::new(text))
}

fn needs_change() -> Complaint {
    let text = "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    Complaint::new(text)
}
