//! `vhdx-rs`: one handle for one thread.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use vhdx::{IO, Medium};

use super::{Disk, text};
use crate::Outcome;
use crate::place::Image;
use crate::suite::vhdx::BLOCK;

/// The disks here have sectors of so many bytes.
const SECTOR: u64 = 512;

pub(super) fn with<T>(
    image: &Image,
    only_reads: bool,
    work: impl FnOnce(&dyn Disk) -> Outcome<T>,
) -> Outcome<T> {
    let file = OpenOptions::new()
        .read(true)
        .write(!only_reads)
        .open(&image.path)
        .map_err(text)?;
    // Its flush does nothing.
    let beside = file.try_clone().map_err(text)?;
    let mut options = Medium::open(file);
    if let Some(parent) = image.parent.clone() {
        options = options.with_parent_resolver(move |_: vhdx::ParentRequest<'_>| {
            Medium::open(File::open(&parent)?).finish()
        });
    }
    let opened = if only_reads {
        options.finish()
    } else {
        options.write().finish()
    };
    let mut medium = opened.map_err(text)?;
    let io = medium.io().map_err(text)?;
    work(&VhdxRs {
        io: RefCell::new(io),
        file: beside,
    })
}

/// Makes an image in which nothing is over `parent`.
pub(crate) fn derive(path: &Path, parent: &Path) -> Outcome {
    let mut parent_medium = Medium::open(File::open(parent).map_err(text)?)
        .finish()
        .map_err(text)?;
    let size = parent_medium
        .sections()
        .and_then(|sections| sections.metadata()?.items().virtual_disk_size());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(text)?;
    let name = parent.file_name().ok_or("a parent has a name")?;
    let made = Medium::create(file)
        .size(size.map_err(text)?)
        .block_size(BLOCK)
        .logical_sector_size(512)
        .parent(&mut parent_medium, name)
        .and_then(|options| options.finish());
    made.map(drop).map_err(text)
}

struct VhdxRs<'a> {
    io: RefCell<IO<'a>>,
    file: File,
}

impl Disk for VhdxRs<'_> {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        let mut io = self.io.borrow_mut();
        let sectors = io.sector(offset / SECTOR, buf.len() as u64 / SECTOR);
        sectors.map_err(text)?.read_exact(buf).map_err(text)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        let mut io = self.io.borrow_mut();
        let sectors = io.sector(offset / SECTOR, buf.len() as u64 / SECTOR);
        sectors.map_err(text)?.write_all(buf).map_err(text)
    }

    fn flush(&self) -> Outcome {
        self.file.sync_data().map_err(text)
    }
}
