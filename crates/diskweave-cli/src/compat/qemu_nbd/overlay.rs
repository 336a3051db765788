//! `-s`: what clients write goes to a file that nobody sees and that is gone in the end.

use std::path::PathBuf;
use std::{env, fs, process};

use diskweave::chain::Chain;
use diskweave::core::locate::ChainPolicy;
use diskweave::{ChildImage, CloneOptions, Naming, OpenDisk, clone_disk};

use crate::compat::complaint::Complaint;
use crate::compat::image::Named;

/// A file that is removed when this is dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone where all went well.
        let _ = fs::remove_file(&self.0);
    }
}

/// An empty qcow2 over the image, open for writing; the image itself is only read.
pub(super) fn open(named: &Named) -> Result<Chain, Complaint> {
    // Also tells what is wrong with it in the words for that.
    drop(named.open()?);
    let failed = |error| Complaint::new(format!("Could not create temporary overlay: {error}"));
    let file = Temporary(env::temp_dir().join(format!(".diskweave-{}.qcow2", process::id())));
    let mut options = CloneOptions::new();
    options.image = ChildImage::Format("qcow2".into());
    options.naming = Naming::Absolute;
    options.volatile = true;
    let base = fs::canonicalize(&named.path).map_err(|error| failed(error.into()))?;
    clone_disk(&base, &file.0, &named.disk()?, &options).map_err(failed)?;
    let overlay = OpenDisk::new()
        .format("qcow2")
        .policy(ChainPolicy::Any)
        .writable();
    overlay.open(&file.0).map_err(failed)
    // Here the name goes; what is open stays until it is closed.
}
