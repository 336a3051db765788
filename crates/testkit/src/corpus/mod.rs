//! The images whose content is known from somewhere else than this library.
//!
//! The corpus is a folder beside the workspace (`../shared/corpus`), or wherever
//! `DISKWEAVE_CORPUS` says. It is unpacked once per machine, below the system's temporary directory
//! or where `DISKWEAVE_CORPUS_UNPACKED` says, and never opened for writing: tests that write take
//! [`Record::copy_to`].

mod copy;
mod hash;
mod record;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use copy::copy_sparse;
pub use hash::{
    sha256_bytes, sha256_file, sha256_sparse, sha256_sparse_without, sha256_virtual,
    sha256_virtual_without,
};
pub use record::{BadRange, Expect, Record, RecordFile, Verdict};

/// The corpus of this machine.
#[derive(Debug)]
pub struct Corpus {
    source: PathBuf,
    unpacked: PathBuf,
    records: Vec<Record>,
}

/// The corpus, or `None` (and a loud line) where this machine has none.
///
/// # Panics
/// When it is missing and `CI` is `true`, or when it is there and cannot be used.
#[must_use]
pub fn corpus() -> Option<&'static Corpus> {
    static CORPUS: OnceLock<Option<Corpus>> = OnceLock::new();
    CORPUS.get_or_init(Corpus::find).as_ref()
}

impl Corpus {
    fn find() -> Option<Self> {
        let source = match std::env::var_os("DISKWEAVE_CORPUS") {
            Some(path) => PathBuf::from(path),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        };
        let manifest = source.join("manifest.json");
        let Ok(text) = std::fs::read(&manifest) else {
            crate::env::missing(&format!(
                "no corpus: {} cannot be read; DISKWEAVE_CORPUS says where the corpus is",
                manifest.display()
            ));
            return None;
        };
        // Another manifest, another folder: an older corpus is never mistaken for this one.
        let mark = &sha256_bytes(&text)[..12];
        let unpacked = match std::env::var_os("DISKWEAVE_CORPUS_UNPACKED") {
            Some(path) => PathBuf::from(path),
            None => std::env::temp_dir().join(format!("diskweave-corpus-{mark}")),
        };
        let records = record::parse(&text, &unpacked);
        Some(Self {
            source,
            unpacked,
            records,
        })
    }

    /// The images of one format (`vhdx`, `raw`, `qcow2` …), unpacked, in the manifest's order.
    ///
    /// # Panics
    /// When they cannot be unpacked.
    #[must_use]
    pub fn of_format(&self, format: &str) -> Vec<&Record> {
        unpack::unpack(&self.source, &self.unpacked, format);
        self.records
            .iter()
            .filter(|record| record.format == format)
            .collect()
    }

    /// One image, unpacked.
    ///
    /// # Panics
    /// When there is none of that name, or it cannot be unpacked.
    #[must_use]
    pub fn get(&self, id: &str) -> &Record {
        let record = self.records.iter().find(|record| record.id == id);
        let record = record.unwrap_or_else(|| panic!("no image {id:?} in the corpus"));
        unpack::unpack(&self.source, &self.unpacked, &record.format);
        record
    }

    /// Every record, whether it is unpacked or not.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

#[cfg(test)]
mod tests;
