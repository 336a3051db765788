//! A raw file, with the system's own calls.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Disk, text};
use crate::Outcome;

pub(super) fn open(path: &Path) -> Outcome<impl Disk + Sync + use<>> {
    let options = OpenOptions::new().read(true).write(true).open(path);
    Ok(Plain(options.map_err(text)?))
}

struct Plain(File);

impl Disk for Plain {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        self.0.read_exact_at(buf, offset).map_err(text)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        self.0.write_all_at(buf, offset).map_err(text)
    }

    fn flush(&self) -> Outcome {
        self.0.sync_data().map_err(text)
    }
}
