//! `map`.

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, MOST, OBJECT, OUTPUT};
use crate::commands::info::Facts;
use crate::commands::map::show;
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;

pub(super) const FLAGS: &[Flag] = &[
    FORMAT,
    IMAGE_OPTS,
    OUTPUT,
    Flag::value('s', "start-offset"),
    Flag::value('l', "max-length"),
    FORCE_SHARE,
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let output = call.output()?;
    let start = call.bytes("start-offset", "start offset", 0, MOST)?;
    let length = call.bytes("max-length", "max length", 0, MOST)?;
    let image = call.one_image()?;
    let chain = image.open()?;
    let part = (start.unwrap_or(0), length.unwrap_or(u64::MAX));
    show(&chain, part, output, Facts::OfQemu)
        .map_err(|_| Complaint::new("Could not read file metadata: Input/output error"))??;
    Ok(0)
}
