//! `rebase` and `stream`: another disk below an image.

use std::path::PathBuf;

use diskweave::chain::Chain;
use diskweave::{forget_parent, rebase, relink, stream};

use super::{exports, shown};
use crate::args::{Rebase, Stream};
use crate::failure::Failure;
use crate::interrupt::watched;

pub(crate) fn run(args: &Rebase) -> Result<u8, Failure> {
    let file = &args.image.file;
    let open = args.image.disk();
    let about = |e| Failure::about(shown(file), e);
    if args.backing.is_none() && !args.unchecked {
        let text = "the new parent is not said (-b), \"\" for none";
        return Err(Failure::new(text));
    }
    let name = args.backing.as_deref().filter(|name| !name.is_empty());
    let parent = match name {
        Some(name) => Some((parent(args, name)?, PathBuf::from(name))),
        None => None,
    };
    match &parent {
        Some((parent, name)) if args.unchecked => {
            let open = open.verify_linkage(false);
            relink(file, &open, parent, name).map_err(about)?;
        }
        None if args.unchecked => forget_parent(file, &open).map_err(about)?,
        _ => {
            let parent = parent.as_ref().map(|(chain, name)| (chain, &**name));
            watched(&args.watch, None, shown(file), |watcher| {
                rebase(file, &open, parent, watcher)
            })?;
        }
    }
    Ok(0)
}

fn parent(args: &Rebase, name: &str) -> Result<Chain, Failure> {
    let Some(format) = &args.backing_format else {
        let text = "the new parent's format is not said (-F), and it is never guessed";
        return Err(Failure::new(text));
    };
    let path = exports::beside(&args.image.file, name)?;
    let disk = args.image.open.disk(&path, Some(format));
    disk.open(&path)
        .map_err(|e| Failure::about(shown(&path), e))
}

pub(crate) fn run_stream(args: &Stream) -> Result<u8, Failure> {
    let file = &args.image.file;
    watched(&args.watch, None, shown(file), |watcher| {
        stream(file, &args.image.disk(), args.base.as_deref(), watcher)
    })?;
    Ok(0)
}
