//! `apply`: differences written into a disk.

use diskweave::apply;

use super::shown;
use crate::args::Apply;
use crate::failure::Failure;
use crate::interrupt::watched;

pub(crate) fn run(args: &Apply) -> Result<u8, Failure> {
    let difference = args.open.disk(&args.diff, args.format.as_ref());
    let disk = args.open.disk(&args.file, args.disk_format.as_ref());
    let both = format!("{} to {}", shown(&args.diff), shown(&args.file));
    watched(&args.watch, None, both, |watcher| {
        apply(&args.diff, &difference, &args.file, &disk, watcher)
    })?;
    Ok(0)
}
