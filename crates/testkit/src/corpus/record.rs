//! One image of the manifest.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{copy_sparse, sha256_file};

/// What the manifest says of one image.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// Name of the image.
    pub id: String,
    /// Path of the file to open, below the unpacked corpus; see [`path`](Self::path).
    pub file: PathBuf,
    /// `vhdx`, `raw`, `qcow2` …
    pub format: String,
    /// Size of the virtual disk in bytes; `None` where the image must be refused.
    pub virtual_size: Option<u64>,
    /// SHA-256 of the whole virtual content, in hex, read through the chain; see
    /// [`sha256_virtual`](super::sha256_virtual).
    pub sha256_virtual: Option<String>,
    /// The same content hashed without its zero units; see [`sha256_sparse`](super::sha256_sparse).
    pub sha256_sparse: Option<String>,
    /// [`sha256_virtual`](Self::sha256_virtual) with the bad ranges as zeros.
    pub sha256_bad_zeroed: Option<String>,
    /// [`sha256_sparse`](Self::sha256_sparse) with the bad ranges as zeros.
    pub sparse_bad_zeroed: Option<String>,
    /// What must happen.
    pub expect: Expect,
    /// What the image exercises.
    #[serde(default)]
    pub features: Vec<String>,
    /// True for a VHDX whose log is not empty; hashes are of the content after replay.
    #[serde(default)]
    pub log_replay: bool,
    /// All files, parents included.
    pub files: Vec<RecordFile>,
    /// Terms under which it may be passed on.
    pub licence: String,
    /// Who read exactly this content.
    #[serde(default)]
    pub readers: Vec<String>,
    /// QEMU's answer to a malformed image.
    pub qemu_says: Option<String>,
    #[serde(skip)]
    root: PathBuf,
}

/// What must happen when the image is opened and read.
#[derive(Debug, Clone, Deserialize)]
pub struct Expect {
    /// The verdict.
    pub result: Verdict,
    /// What is wrong with the image, as a short word.
    pub kind: Option<String>,
    /// What is wrong with the image, in words.
    pub description: Option<String>,
    /// Ranges of the disk that must fail to read.
    #[serde(default)]
    pub bad_ranges: Vec<BadRange>,
}

/// A range of the disk: offset and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "(u64, u64)")]
pub struct BadRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl From<(u64, u64)> for BadRange {
    fn from((offset, len): (u64, u64)) -> Self {
        Self { offset, len }
    }
}

/// How an open and a whole read must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The content is right.
    Ok,
    /// The image is refused.
    OpenError,
    /// It opens; the bad ranges fail; the rest is right.
    ReadError,
    /// A clear error, or exactly the given content.
    OkOrError,
}

/// A file of an image.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordFile {
    /// Path below the unpacked corpus.
    pub path: PathBuf,
    /// `main`, `parent`, `backing`, `data` …
    pub role: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl Record {
    /// The file to open. Never open it for writing.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.file)
    }

    /// The folder that holds the image and all files it needs.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    /// True when the image exercises `feature`.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|of| of == feature)
    }

    /// Apparent length of all files together, in bytes.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Copies the image and all files it needs below `dir`, holes kept, and returns where the file
    /// to open is now. The copies may be written.
    ///
    /// # Panics
    /// When a file cannot be copied.
    #[must_use]
    pub fn copy_to(&self, dir: &Path) -> PathBuf {
        for file in &self.files {
            let to = dir.join(&file.path);
            std::fs::create_dir_all(to.parent().expect("below a folder"))
                .expect("the target folder can be made");
            copy_sparse(&self.root.join(&file.path), &to);
        }
        dir.join(&self.file)
    }

    /// Checks that the unpacked files are what the manifest says: that no test wrote to them.
    ///
    /// # Panics
    /// When one is not.
    pub fn assert_unharmed(&self) {
        for file in &self.files {
            let found = sha256_file(&self.root.join(&file.path));
            assert_eq!(found, file.sha256, "{} was changed", file.path.display());
        }
    }
}

/// The manifest's records, with their files below `root`.
pub(super) fn parse(text: &[u8], root: &Path) -> Vec<Record> {
    #[derive(Deserialize)]
    struct Manifest {
        schema: u32,
        images: Vec<Record>,
    }
    let mut manifest: Manifest =
        serde_json::from_slice(text).unwrap_or_else(|error| panic!("manifest.json: {error}"));
    assert_eq!(manifest.schema, 1, "a manifest of another schema");
    for record in &mut manifest.images {
        record.root = root.to_path_buf();
    }
    manifest.images
}
