//! `imago`, built synchronous, so that it pays for no runtime.

use std::path::Path;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};

use super::{Disk, text};
use crate::Outcome;

pub(crate) fn open(path: &Path) -> Outcome<impl Disk + Sync + use<>> {
    let builder = Qcow2::<File>::builder_path(path).write(true);
    let image = builder.open(PermissiveImplicitOpenGate::default());
    Ok(Imago(FormatAccess::new(image.map_err(text)?)))
}

struct Imago(FormatAccess<File>);

impl Disk for Imago {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        self.0.read(buf, offset).map_err(text)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        self.0.write(buf, offset).map_err(text)
    }

    /// Its `flush` hands its caches to the host, its `sync` makes stable what the host has.
    fn flush(&self) -> Outcome {
        self.0.flush().and_then(|()| self.0.sync()).map_err(text)
    }
}
