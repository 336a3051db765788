//! The images, and where they lie.
//!
//! ```text
//!   full     the whole disk, all stored                          read
//!   part     less of it                                          overwritten; below children
//!   fresh    nothing                                             made anew for each run
//!   child    nothing, over `part`                                made anew for each run
//! ```
//!
//! Beside each lies a raw file of the same content for the plain engine.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::engine::{Engine, text, vhdx_rs};
use crate::job::{LARGE, Start};
use crate::suite::Suite;

/// Bytes of the disk that is overwritten: as much as the host does not begin to write out meanwhile,
/// which would measure the disk below.
pub(crate) const OVERWRITTEN: u64 = 128 << 20;

/// Bytes of the disks whose content is checked.
pub(crate) const CHECKED: u64 = 32 << 20;

#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    size: u64,
    pub(crate) suite: &'static Suite,
    /// Who is compared: all of the suite, unless it is fewer.
    pub(crate) engines: &'static [Engine],
}

/// An image to be opened, and the one below it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) parent: Option<PathBuf>,
}

impl Place {
    /// Makes in `dir` the images that hold something.
    pub(crate) fn prepare(dir: &Path, suite: &'static Suite, size: u64) -> Outcome<Self> {
        let place = Self {
            dir: dir.to_owned(),
            size,
            suite,
            engines: suite.engines,
        };
        for (kind, size) in [
            ("full", size),
            ("part", OVERWRITTEN),
            ("below", OVERWRITTEN),
            ("small", CHECKED),
        ] {
            let raw = place.path(kind, true);
            let mut file = File::create(&raw).map_err(text)?;
            for at in (0..size).step_by(1 << 20) {
                file.write_all(&stored(at)).map_err(text)?;
            }
            let image = place.path(kind, false);
            (suite.fill)(&image, &raw)?;
            rewrite(&image)?;
        }
        Ok(place)
    }

    /// The same for some engines alone.
    pub(crate) fn only(mut self, engines: &'static [Engine]) -> Self {
        self.engines = engines;
        self
    }

    /// Bytes of the disk that requests go to.
    pub(crate) fn size_of(&self, start: Start) -> u64 {
        match start {
            Start::Full | Start::Fresh => self.size,
            Start::Part | Start::Child | Start::WrittenChild => OVERWRITTEN,
        }
    }

    fn path(&self, kind: &str, is_plain: bool) -> PathBuf {
        let extension = if is_plain {
            "raw"
        } else {
            self.suite.format.name()
        };
        self.dir.join(kind).with_extension(extension)
    }

    /// The image that `engine` begins with at `start`, with nothing in it left to be written by the
    /// host: whoever comes now would pay for that. None where the engine or the format has no such.
    pub(crate) fn ready(&self, engine: Engine, start: Start) -> Outcome<Option<Image>> {
        let is_plain = engine == Engine::Plain;
        let image = match start {
            Start::Full => Image::alone(self.path("full", is_plain)),
            Start::Part => Image::alone(self.path("part", is_plain)),
            Start::Fresh => self.fresh(engine, self.size)?,
            Start::Child | Start::WrittenChild => match self.child(engine, "below")? {
                Some(child) => child,
                None => return Ok(None),
            },
        };
        let file = OpenOptions::new().write(true).open(&image.path);
        file.and_then(|file| file.sync_all()).map_err(text)?;
        Ok(Some(image))
    }

    /// A new image of `size` bytes.
    pub(crate) fn fresh(&self, engine: Engine, size: u64) -> Outcome<Image> {
        let path = self.path("fresh", engine == Engine::Plain);
        // Its space is not given to the new one.
        let _ = fs::remove_file(&path);
        if engine == Engine::Plain {
            let file = File::create(&path).map_err(text)?;
            file.set_len(size).map_err(text)?;
        } else {
            (self.suite.create)(&path, size)?;
        }
        Ok(Image::alone(path))
    }

    /// A new image over `parent`.
    pub(crate) fn child(&self, engine: Engine, parent: &str) -> Outcome<Option<Image>> {
        let below = self.path(parent, engine == Engine::Plain);
        let path = self.path("child", engine == Engine::Plain);
        let Some(derive) = self.suite.derive else {
            return Ok(None);
        };
        let _ = fs::remove_file(&path);
        match engine {
            Engine::QemuImg => return Ok(None),
            Engine::Plain => {
                let file = File::create(&path).map_err(text)?;
                file.set_len(fs::metadata(&below).map_err(text)?.len())
                    .map_err(text)?;
            }
            // It takes the bytes of a GUID in another order than the format has them, and would not
            // take the parent for the child's.
            Engine::VhdxRs => vhdx_rs::derive(&path, &below)?,
            _ => derive(&path, &below)?,
        }
        Ok(Some(Image {
            path,
            parent: Some(below),
        }))
    }

    /// What `kind` holds, raw.
    pub(crate) fn raw(&self, kind: &str) -> PathBuf {
        self.path(kind, true)
    }
}

impl Image {
    fn alone(path: PathBuf) -> Self {
        Self { path, parent: None }
    }
}

/// Writes the file anew as the raw ones are written. How the host keeps a file in memory, and how fast
/// it is there, depends on how it came to be written.
pub(crate) fn rewrite(path: &Path) -> Outcome {
    let fresh = path.with_extension("rewritten");
    let mut from = File::open(path).map_err(text)?;
    let to = File::create(&fresh).map_err(text)?;
    let len = from.metadata().map_err(text)?.len();
    to.set_len(len).map_err(text)?;
    let mut piece = Vec::new();
    for at in (0..len).step_by(1 << 20) {
        piece.clear();
        (&mut from)
            .take(LARGE)
            .read_to_end(&mut piece)
            .map_err(text)?;
        // Holes stay holes.
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all_at(&piece, at).map_err(text)?;
        }
    }
    fs::rename(fresh, path).map_err(text)
}

/// The mebibyte at `at` of every image that holds something: no sector like another, none of zeros.
pub(crate) fn stored(at: u64) -> Vec<u8> {
    let numbers =
        (0..LARGE / 8).map(|number| (at / 8 + number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    numbers.flat_map(u64::to_le_bytes).collect()
}
