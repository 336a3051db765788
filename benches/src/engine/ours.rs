//! `qcow2-format` and `vhdx-format` of this project, alone or in a chain.

use std::path::PathBuf;
use std::sync::Arc;

use blockdev_chain::{ChainBuilder, Top};
use blockdev_core::locate::ChainPolicy;
use blockdev_core::{BlockDevice, FileOptions, FileStorage, FormatDriver, LoneLayer, OpenOptions};
use qcow2_format::Qcow2Driver;
use vhdx_format::VhdxDriver;

use super::{Disk, Format, text};
use crate::Outcome;
use crate::place::Image;

pub(crate) static DRIVERS: [&dyn FormatDriver; 2] = [&Qcow2Driver, &VhdxDriver];

pub(super) fn open(
    format: Format,
    image: &Image,
    only_reads: bool,
) -> Outcome<impl Disk + Sync + use<>> {
    let (file, options) = if only_reads {
        (FileOptions::read_only(), OpenOptions::read_only())
    } else {
        (FileOptions::read_write(), OpenOptions::read_write())
    };
    let file = Arc::new(FileStorage::open(&image.path, file).map_err(text)?);
    let disk: Box<dyn BlockDevice> = match &image.parent {
        None => {
            let driver = DRIVERS
                .into_iter()
                .find(|driver| driver.name() == format.name());
            let driver = driver.ok_or("no driver")?;
            Box::new(LoneLayer::new(driver.open(file, &options).map_err(text)?))
        }
        Some(parent) => {
            let beneath = parent.parent().map(PathBuf::from).unwrap_or_default();
            let chain = ChainBuilder::new(&DRIVERS)
                .policy(ChainPolicy::Beneath(beneath))
                .options(options)
                .build(Top::storage(file, format.name()).at(&image.path));
            Box::new(chain.map_err(text)?)
        }
    };
    Ok(Ours(disk))
}

struct Ours(Box<dyn BlockDevice>);

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
