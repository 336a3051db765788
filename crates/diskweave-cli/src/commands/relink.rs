//! `relink`: a parent that has moved.

use std::path::{Path, PathBuf};

use diskweave::chain::Chain;
use diskweave::relink;

use super::shown;
use crate::args::Relink;
use crate::failure::Failure;
use crate::output::plain::print;

pub(crate) fn run(args: &Relink) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let directory = args.file.parent().unwrap_or(Path::new(""));
    let name = match &args.parent {
        Some(name) => PathBuf::from(name),
        None => found(args, directory)?,
    };
    let path = directory.join(&name);
    let parent = parent(args, &path)?;
    let child = args.open.disk(&args.file, Some(&"vhdx".into()));
    relink(&args.file, &child, &parent, &name).map_err(about)?;
    if !args.quiet {
        print(&format!("Image refers to {}.\n", shown(&path)))?;
    }
    Ok(0)
}

fn parent(args: &Relink, path: &Path) -> Result<Chain, Failure> {
    let disk = args.open.disk(path, Some(&args.backing_format));
    disk.open(path).map_err(|e| Failure::about(shown(path), e))
}

/// The parent as the child finds it now, by whichever of its names.
fn found(args: &Relink, directory: &Path) -> Result<PathBuf, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let child = args.open.disk(&args.file, Some(&"vhdx".into()));
    let chain = child.open(&args.file).map_err(about)?;
    let path = chain.links().nth(1).and_then(|link| link.path);
    let path = path.ok_or_else(|| Failure::new("the image refers to no parent"))?;
    Ok(path.strip_prefix(directory).unwrap_or(path).to_path_buf())
}
