//! `compare`.

use std::ffi::OsStr;

use super::call::{CACHE, Call, FORCE_SHARE, IMAGE_OPTS, OBJECT, PROGRESS, PercentEnd, QUIET};
use crate::commands::compare::{FAILED, show};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::wording;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    PROGRESS,
    Flag::value('f', "a-format"),
    Flag::value('F', "b-format"),
    IMAGE_OPTS,
    Flag::switch('s', "strict"),
    CACHE,
    FORCE_SHARE,
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let [first, second] = &call.said.operands[..] else {
        return Err(call.usage("Expecting two image file names"));
    };
    // To whoever compares, 1 says that there is a difference.
    compare(call, first, second).map_err(|complaint| complaint.with_code(FAILED))
}

fn compare(call: &Call, first: &OsStr, second: &OsStr) -> Result<u8, Complaint> {
    let first = call.image(first, "a-format")?;
    let second = call.image(second, "b-format")?;
    call.check_cache("cache", "source cache")?;
    let (a, b) = (first.open()?, second.open()?);
    let strict = call.said.has("strict");
    // Every two hundredths, and the line's end is behind the answer.
    let progress = call.progress_by(2.0, PercentEnd::Line);
    let compared = show(&a, &b, strict, call.quiet(), &*progress);
    drop(progress);
    let code = compared.map_err(|error| {
        let reason = wording::errno(&error);
        Complaint::new(format!(
            "Error while comparing {} with {}: {reason}",
            first.name(),
            second.name()
        ))
    })?;
    Ok(code?)
}
