//! qcow2 for whoever handles images of any format.

use std::sync::Arc;

use blockdev_core::{
    CheckReport, Error, ErrorKind, FormatDriver, Layer, OpenOptions, ProbeInput, Result, Storage,
    StorageExt,
};

/// `QFI\xfb`, the first bytes of every version.
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The qcow2 format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Qcow2Driver;

impl Qcow2Driver {
    /// Why the file in `storage` is not opened.
    fn refusal(self, storage: &dyn Storage) -> Result<Error> {
        let mut magic = [0; MAGIC.len()];
        storage.read_zero_padded(&mut magic, 0)?;
        Ok(if magic == MAGIC {
            Error::new(ErrorKind::Unsupported, "qcow2 images are not read yet").at("header", 0)
        } else {
            let message = "not a qcow2 image: it does not begin with \"QFI\\xfb\"";
            Error::new(ErrorKind::NotRecognised, message).at("header", 0)
        })
    }
}

impl FormatDriver for Qcow2Driver {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn probe(&self, input: &ProbeInput<'_>) -> bool {
        input.head.starts_with(&MAGIC)
    }

    fn open(&self, storage: Arc<dyn Storage>, _: &OpenOptions) -> Result<Box<dyn Layer>> {
        Err(self.refusal(&*storage)?)
    }

    fn check(&self, storage: Arc<dyn Storage>, _: &OpenOptions) -> Result<Option<CheckReport>> {
        Err(self.refusal(&*storage)?)
    }
}

#[cfg(test)]
mod tests {
    use blockdev_core::{MemoryStorage, probe};

    use super::*;

    #[test]
    fn a_qcow2_image_is_refused_and_never_read_as_a_raw_disk() {
        let image: Arc<dyn Storage> = Arc::new(MemoryStorage::from(b"QFI\xfb\0\0\0\x03".to_vec()));
        let drivers: [&dyn FormatDriver; 1] = [&Qcow2Driver];
        assert_eq!(probe(&*image, &drivers).unwrap().unwrap().name(), "qcow2");
        let refused = Qcow2Driver
            .open(image, &OpenOptions::read_only())
            .err()
            .unwrap();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let other: Arc<dyn Storage> = Arc::new(MemoryStorage::from(vec![0; 512]));
        let refused = Qcow2Driver
            .check(other, &OpenOptions::read_only())
            .err()
            .unwrap();
        assert_eq!(refused.kind(), ErrorKind::NotRecognised);
    }
}
