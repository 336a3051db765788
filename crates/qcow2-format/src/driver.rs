//! qcow2 for whoever handles images of any format.

use std::sync::Arc;

use blockdev_core::{CheckReport, FormatDriver, Layer, OpenOptions, ProbeInput, Result, Storage};

use crate::Qcow2Image;
use crate::ondisk::header::MAGIC;

/// The qcow2 format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Qcow2Driver;

impl FormatDriver for Qcow2Driver {
    fn name(&self) -> &'static str {
        crate::FORMAT_NAME
    }

    fn probe(&self, input: &ProbeInput<'_>) -> bool {
        input.head.starts_with(&MAGIC)
    }

    fn open(&self, storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Box<dyn Layer>> {
        Ok(Box::new(Qcow2Image::open(storage, options)?))
    }

    fn check(
        &self,
        storage: Arc<dyn Storage>,
        options: &OpenOptions,
    ) -> Result<Option<CheckReport>> {
        crate::check(storage, options).map(Some)
    }
}
