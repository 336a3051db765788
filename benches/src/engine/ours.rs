//! `qcow2-format` of this project.

use std::path::Path;
use std::sync::Arc;

use blockdev_core::{BlockDevice, FileOptions, FileStorage, LoneLayer, OpenOptions};
use qcow2_format::Qcow2Image;

use super::{Disk, text};
use crate::Outcome;

pub(super) fn open(path: &Path) -> Outcome<impl Disk + Sync + use<>> {
    let file = FileStorage::open(path, FileOptions::read_write()).map_err(text)?;
    let image = Qcow2Image::open(Arc::new(file), &OpenOptions::read_write()).map_err(text)?;
    Ok(Ours(LoneLayer::new(Box::new(image))))
}

struct Ours(LoneLayer);

impl Disk for Ours {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        self.0.read_at(buf, offset).map_err(text)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        self.0.write_at(buf, offset).map_err(text)
    }

    fn flush(&self) -> Outcome {
        self.0.flush().map_err(text)
    }
}
