//! VHDX for whoever handles images of any format.

use std::sync::Arc;

use blockdev_core::{CheckReport, FormatDriver, Layer, OpenOptions, ProbeInput, Result, Storage};

use crate::VhdxImage;
use crate::meta::file_identifier::is_vhdx;

/// The VHDX format.
#[derive(Debug, Clone, Copy, Default)]
pub struct VhdxDriver;

impl FormatDriver for VhdxDriver {
    fn name(&self) -> &'static str {
        crate::FORMAT_NAME
    }

    fn probe(&self, input: &ProbeInput<'_>) -> bool {
        is_vhdx(input.head)
    }

    fn open(&self, storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Box<dyn Layer>> {
        Ok(Box::new(VhdxImage::open(storage, options)?))
    }

    fn check(
        &self,
        storage: Arc<dyn Storage>,
        options: &OpenOptions,
    ) -> Result<Option<CheckReport>> {
        crate::check(storage, options).map(Some)
    }
}
