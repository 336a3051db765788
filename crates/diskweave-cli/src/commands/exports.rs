//! Names of exports of NBD servers among those of files: what they are beside, and who takes files only.

use std::path::{Path, PathBuf};

use blockdev_nbd::NbdOpener;

use super::shown;
use crate::failure::Failure;

/// Refuses the name of an export where only a file will do, for what is said of it.
pub(super) fn refuse(path: &Path, why: &str) -> Result<(), Failure> {
    match NbdOpener::is_export(path) {
        true => Err(Failure::new(format!(
            "{} is an export of a server: {why}",
            shown(path)
        ))),
        false => Ok(()),
    }
}

/// The same for an image that is to be made.
pub(super) fn refuse_to_make(path: &Path) -> Result<(), Failure> {
    refuse(path, "it is there already; convert -n writes into it")
}

/// Where the image at `image` finds what it calls `name`.
pub(super) fn beside(image: &Path, name: impl AsRef<Path>) -> Result<PathBuf, Failure> {
    let name = name.as_ref();
    if NbdOpener::is_export(name) {
        return Ok(name.to_path_buf());
    }
    if !name.has_root() {
        refuse(image, "it has no directory from which a name could start")?;
    }
    Ok(image.parent().unwrap_or(Path::new("")).join(name))
}
