//! `relink`: a parent that has moved.

use std::path::{Path, PathBuf};

use blockdev_nbd::NbdOpener;
use diskweave::chain::Chain;
use diskweave::core::FileRole;
use diskweave::relink;

use super::{exports, shown};
use crate::args::Relink;
use crate::failure::Failure;
use crate::output::plain::print;

pub(crate) fn run(args: &Relink) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let directory = args.file.parent().unwrap_or(Path::new(""));
    let child = args.open.disk(&args.file, args.format.as_ref());
    // The parent that is named may not be there: what counts is what the child says of it.
    let (chain, missing) = child.open_partial(&args.file).map_err(about)?;
    let mut refs = chain.top().file_refs().iter();
    let reference = refs.find(|reference| reference.role == FileRole::Parent);
    let Some(reference) = reference else {
        return Err(Failure::new("the image refers to no parent"));
    };
    let format = args.backing_format.clone().or(reference.format.clone());
    let name = match (
        &args.parent,
        chain.links().nth(1).and_then(|link| link.path),
        missing,
    ) {
        (Some(name), ..) => PathBuf::from(name),
        (None, Some(path), _) if NbdOpener::is_export(&args.file) => path.to_path_buf(),
        (None, Some(path), _) => path.strip_prefix(directory).unwrap_or(path).to_path_buf(),
        (None, None, Some(error)) => return Err(about(error)),
        (None, None, None) => return Err(Failure::new("the parent was not looked for")),
    };
    drop(chain);
    let path = exports::beside(&args.file, &name)?;
    let parent = parent(args, &path, format.as_ref())?;
    relink(&args.file, &child, &parent, &name).map_err(about)?;
    if !args.quiet {
        print(&format!("Image refers to {}.\n", shown(&path)))?;
    }
    Ok(0)
}

fn parent(args: &Relink, path: &Path, format: Option<&String>) -> Result<Chain, Failure> {
    let Some(format) = format else {
        let text = "the child does not declare its parent's format; say it (-F)";
        return Err(Failure::new(text));
    };
    let disk = args.open.disk(path, Some(format));
    disk.open(path).map_err(|e| Failure::about(shown(path), e))
}
