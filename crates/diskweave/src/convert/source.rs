//! What is written out: one disk, or several one after the other.

use std::sync::Mutex;

use blockdev_chain::Chain;
use blockdev_core::{
    BlockDevice, Concat, DiskWindow, Error, ErrorKind, HostFile, Layer, Lost, Result, Salvage,
    Storage,
};

/// A disk to be written out: made from a [`Chain`], or from several.
///
/// # Example
///
/// ```no_run
/// use diskweave::{ConvertOptions, NoProgress, OpenDisk, Source, convert_to_raw};
///
/// let parts = [OpenDisk::new().open("first.raw")?, OpenDisk::new().open("second.raw")?];
/// let whole = Source::concat(&parts)?;
/// convert_to_raw(whole, "whole.raw", &ConvertOptions::default(), &NoProgress)?;
/// # Ok::<(), diskweave::core::Error>(())
/// ```
#[derive(Debug)]
pub struct Source<'a> {
    chains: Vec<&'a Chain>,
    disk: Disk<'a>,
    salvage: Option<&'a Mutex<Lost>>,
}

#[derive(Debug)]
enum Disk<'a> {
    One(&'a Chain),
    Several(Concat<'a>),
    Part(DiskWindow<'a>),
}

impl<'a> From<&'a Chain> for Source<'a> {
    fn from(chain: &'a Chain) -> Self {
        Self {
            chains: vec![chain],
            disk: Disk::One(chain),
            salvage: None,
        }
    }
}

impl<'a> Source<'a> {
    /// `disks`, one after the other. Of several each begins on a multiple of 512 bytes, and so does
    /// the end: see [`Concat`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is none, or when they are too long together.
    pub fn concat(disks: impl IntoIterator<Item = &'a Chain>) -> Result<Self> {
        let chains: Vec<&Chain> = disks.into_iter().collect();
        if let [chain] = chains[..] {
            return Ok(chain.into());
        }
        let disk = Concat::new(chains.iter().map(|chain| *chain as &dyn BlockDevice))?;
        Ok(Self {
            chains,
            disk: Disk::Several(disk),
            salvage: None,
        })
    }

    /// `len` bytes of `disk` from byte `start`, with zeros for what is past its end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when they would be too long a disk: see [`DiskWindow`].
    pub fn part_of(disk: &'a Chain, start: u64, len: u64) -> Result<Self> {
        Ok(Self {
            chains: vec![disk],
            disk: Disk::Part(DiskWindow::new(disk, start, len)?),
            salvage: None,
        })
    }

    /// Takes zeros for what cannot be read, and tells in `lost` what that was, also where the whole
    /// fails for another reason: see [`Salvage`].
    #[must_use]
    pub fn salvaged(mut self, lost: &'a Mutex<Lost>) -> Self {
        self.salvage = Some(lost);
        self
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.plain().size()
    }

    fn plain(&self) -> &dyn BlockDevice {
        match &self.disk {
            Disk::One(chain) => *chain,
            Disk::Several(disks) => disks,
            Disk::Part(part) => part,
        }
    }

    /// Hands the disk to `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&dyn BlockDevice) -> T) -> T {
        let Some(lost) = self.salvage else {
            return work(self.plain());
        };
        let salvage = Salvage::new(self.plain());
        let done = work(&salvage);
        *lost
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = salvage.lost();
        done
    }

    /// The disks that it is made of.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &'a Chain> {
        self.chains.iter().copied()
    }
}

/// Refuses `destination` when one of the disks is read from it.
pub(super) fn refuse_own_file(read: &[&Chain], destination: &dyn Storage) -> Result<()> {
    let Some(identity) = destination.identity() else {
        return Ok(());
    };
    let own = read
        .iter()
        .flat_map(|disk| disk.layers())
        .flat_map(files)
        .any(|file| file.identity() == Some(identity));
    if own {
        let text = "the destination is one of the files that the source is read from";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// The files that `layer` is made of.
pub(super) fn files(layer: &dyn Layer) -> impl Iterator<Item = &dyn Storage> {
    let files = [HostFile::Image, HostFile::Data].map(|file| layer.host(file));
    files.into_iter().flatten()
}
