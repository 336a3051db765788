//! A small disk in several files that exists for these tests only, right in one variety and wrong in
//! many.
//!
//! ```text
//!   file 0      header (512 bytes) … at 4096 a table: 8 bytes for each block of the disk
//!   file 1, 2   blocks of 4 KiB; the header says which of the two files is in use
//! ```
//!
//! A table entry is the place of a block in the file in use, from 1, or 0: zeros. Order of a write to a
//! new block: data, sync of the data file, entry. Order of a move to the other file: all blocks, sync of
//! that file, header, sync of file 0, the old file cut to nothing.

mod device;

use std::collections::BTreeSet;
use std::sync::Arc;

use blockdev_core::{CheckReport, Error, ErrorKind, Finding, Result, Severity, Storage};
use testkit::crash::{Control, CrashSubject};

pub(crate) use device::PairDevice;

pub(crate) const BLOCK: u64 = 4096;

/// Blocks of every disk.
pub(crate) const BLOCKS: u64 = 16;

/// The move into the other file, by the control that asks for it.
pub(crate) const TO_SECOND: Control = Control::Other("into file 2");

/// What the engine does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// An entry is made stable before the block in the other file that it leads to.
    IndexBeforeData,
    /// Between data and entry it is the index that is synced.
    WrongFileSynced,
    /// A flush makes the index stable and not the data.
    FlushLeavesData,
    /// The header names the new file before that is stable.
    NamedBeforeStable,
    /// The old file is cut before the header that no longer names it is stable.
    OldCutEarly,
    /// A move that is carried out again takes what is in the new file for moved already.
    RemainsTaken,
    /// A move that is carried out again when it was over empties the file in use.
    OverTakenForBegun,
    /// Opening for reading cuts the file that is not in use.
    ReaderTidies,
    /// A failed sync of a data file is passed over in silence.
    SyncErrorIgnored,
}

/// The engine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pair {
    /// What is wrong with it, if anything.
    pub(crate) bug: Option<Bug>,
}

impl Pair {
    /// An empty disk, with file 1 in use.
    pub(crate) fn index() -> Vec<u8> {
        let mut image = vec![0; 4096 + 8 * usize::try_from(BLOCKS).expect("few")];
        image[..512].copy_from_slice(&header(1));
        image
    }

    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

pub(crate) fn header(in_use: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[..8].copy_from_slice(b"PAIRDISK");
    bytes[8..16].copy_from_slice(&in_use.to_le_bytes());
    bytes
}

/// The file in use, and the table.
pub(crate) fn read_index(index: &dyn Storage) -> Result<(usize, Vec<u64>)> {
    let word = |at| -> Result<u64> {
        let mut bytes = [0; 8];
        index.read_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let in_use = word(8)?;
    if word(0)? != u64::from_le_bytes(*b"PAIRDISK") || !(1..=2).contains(&in_use) {
        return Err(Error::corrupt("header", 0, "not such a disk"));
    }
    let table: Result<Vec<u64>> = (0..BLOCKS).map(|n| word(4096 + n * 8)).collect();
    Ok((if in_use == 1 { 1 } else { 2 }, table?))
}

impl CrashSubject for Pair {
    type Device = PairDevice;

    fn format(&self) -> &str {
        "pair"
    }

    fn open(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<PairDevice> {
        PairDevice::open(*self, files, writable)
    }

    fn check(&self, files: &[Arc<dyn Storage>]) -> Result<CheckReport> {
        let (in_use, table) = read_index(&*files[0])?;
        let len = files[in_use].len()?;
        let mut report = CheckReport::default();
        let mut seen = BTreeSet::new();
        for entry in table.into_iter().filter(|entry| *entry > 0) {
            let message = if entry * BLOCK > len {
                "an entry leads outside the data file"
            } else if !seen.insert(entry) {
                "two entries lead to one block"
            } else {
                continue;
            };
            let finding = Finding {
                severity: Severity::Corruption,
                section: "table",
                code: "pair",
                message: message.into(),
                reference: "the drawing",
                offset: None,
                numbers: Vec::new(),
            };
            report.push(finding, 100);
        }
        Ok(report)
    }

    fn control(
        &self,
        device: PairDevice,
        files: &[Arc<dyn Storage>],
        control: Control,
    ) -> Result<PairDevice> {
        if control != TO_SECOND {
            return Err(ErrorKind::Unsupported.into());
        }
        device.move_to(2, false)?;
        drop(device);
        self.open(files, true)
    }

    fn resume(&self, files: &[Arc<dyn Storage>], control: Control) -> Result<Option<PairDevice>> {
        assert_eq!(control, TO_SECOND);
        let device = self.open(files, true)?;
        device.move_to(2, true)?;
        drop(device);
        self.open(files, true).map(Some)
    }
}
