//! `virtdisk` through its public API.

use std::path::PathBuf;

use virtdisk::{ImageFormat, ImageWriter, ReadAt, WriteAt};

use super::{Disk, Format, text};
use crate::Outcome;
use crate::place::Image;

/// The image read-only: what it offers for reading from several threads.
pub(super) fn reader(format: Format, image: &Image) -> Outcome<impl Disk + Sync + use<>> {
    let parents: Vec<PathBuf> = image.parent.iter().cloned().collect();
    let opened = virtdisk::Image::open_chain(&image.path, Some(kind(format)), &parents);
    opened.map(Reader).map_err(text)
}

pub(super) fn writer(format: Format, image: &Image) -> Outcome<impl Disk + Sync + use<>> {
    let opened = match &image.parent {
        None => ImageWriter::open(&image.path, kind(format)),
        Some(parent) => {
            ImageWriter::open_chain(&image.path, kind(format), std::slice::from_ref(parent))
        }
    };
    opened.map(Writer).map_err(text)
}

fn kind(format: Format) -> ImageFormat {
    match format {
        Format::Qcow2 => ImageFormat::Qcow2,
        Format::Vhdx => ImageFormat::Vhdx,
    }
}

struct Reader(virtdisk::Image);

impl Disk for Reader {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        self.0.read_exact_at(offset, buf).map_err(text)
    }

    fn write(&self, _: &[u8], _: u64) -> Outcome {
        Err("opened for reading".into())
    }

    fn flush(&self) -> Outcome {
        Ok(())
    }
}

struct Writer(ImageWriter);

impl Disk for Writer {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        self.0.read_exact_at(offset, buf).map_err(text)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        self.0.write_all_at(offset, buf).map_err(text)
    }

    fn flush(&self) -> Outcome {
        self.0.flush().map_err(text)
    }
}
