//! `info`.

use diskweave::core::ErrorKind;
use diskweave::core::locate::ChainPolicy;

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT};
use crate::commands::info::{Facts, show};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::wording;

pub(super) const FLAGS: &[Flag] = &[
    FORMAT,
    IMAGE_OPTS,
    Flag::switch('b', "backing-chain"),
    FORCE_SHARE,
    OUTPUT,
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let output = call.output()?;
    let image = call.one_image()?;
    let whole = call.said.has("backing-chain");
    let disk = image.disk()?;
    let disk = match whole {
        true => disk,
        false => disk.policy(ChainPolicy::Deny),
    };
    let (chain, problem) = disk
        .open_partial(&image.path)
        .map_err(|error| image.cannot_open(&error))?;
    if let Some(problem) = problem {
        let name = wording::missing_parent(&chain).unwrap_or_default();
        let text = match (problem.kind(), wording::host(&problem)) {
            (_, Some(reason)) => {
                format!("Could not open '{name}': Could not open '{name}': {reason}")
            }
            (ErrorKind::Corrupt, _) if problem.message().contains("loop") => {
                format!("Backing file '{name}' creates an infinite loop.")
            }
            _ => format!("Could not open '{name}': {problem}"),
        };
        return Err(Complaint::new(text));
    }
    show(&chain, output, whole, Facts::OfQemu).map_err(|error| image.cannot_open(&error))??;
    Ok(0)
}
