//! What a new image is to be like.

use crate::CompressionType;

/// How to make a qcow2 image.
///
/// # Example
///
/// ```
/// let mut options = qcow2_format::CreateOptions::new(64 << 30);
/// options.cluster_bits = 21;
/// options.refcount_order = 0;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Size of the virtual disk in bytes: a multiple of 512.
    pub size: u64,
    /// 2 or 3. Default 3.
    pub version: u32,
    /// Binary logarithm of the cluster size: 9 to 21; at least 14 with extended L2 entries.
    /// Default 16.
    pub cluster_bits: u32,
    /// Binary logarithm of the width of a refcount in bits: 0 to 6; 4 in version 2. Default 4.
    pub refcount_order: u32,
    /// Give clusters 32 subclusters each; not in version 2. Default no.
    pub extended_l2: bool,
    /// Let whoever writes to the image bring refcounts up to date late; not in version 2. Default no.
    pub lazy_refcounts: bool,
    /// How clusters are packed, here or by whoever writes to the image later; zlib in version 2.
    /// Default zlib.
    pub compression_type: CompressionType,
    /// Pack every cluster that gets shorter by it. Default no.
    pub compressed: bool,
    /// The image that is read where this one holds nothing. Default none.
    pub backing: Option<Backing>,
    /// The file that is to hold the guest's data; not in version 2 and for compressed images. Default
    /// none: the image itself.
    pub data_file: Option<DataFile>,
    /// What is set aside from the start; nothing in compressed images and those over a backing
    /// file. Default nothing.
    pub preallocation: Preallocation,
}

impl CreateOptions {
    /// The defaults, those of `qemu-img create`, for a disk of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            version: 3,
            cluster_bits: 16,
            refcount_order: 4,
            extended_l2: false,
            lazy_refcounts: false,
            compression_type: CompressionType::Zlib,
            compressed: false,
            backing: None,
            data_file: None,
            preallocation: Preallocation::Off,
        }
    }
}

/// The backing file of a new image, as the image names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backing {
    /// Its name, 1 to 1023 bytes long; a relative one starts from the image's own directory.
    pub name: String,
    /// Its format's name: `raw`, `qcow2` …
    pub format: String,
}

/// The external data file of a new image, as the image names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFile {
    /// Its name, 1 to 1023 bytes long; a relative one starts from the image's own directory (QEMU
    /// 10.0.2 looks for it from its working directory).
    pub name: String,
    /// It is to be a raw image of the disk by itself: every cluster has its place from the start.
    /// Not over a backing file.
    pub raw: bool,
}

/// What of a new image is set aside before it is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// A place in the file for every cluster; the host stores nothing for them.
    Metadata,
    /// The host's space as well.
    Falloc,
    /// Zeros are written to it.
    Full,
}
