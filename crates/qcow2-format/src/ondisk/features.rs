//! Feature bits of version 3 (qcow2 specification, "Header").

/// Refcounts may be out of date.
pub(crate) const DIRTY: u64 = 1 << 0;
/// Something in the metadata is damaged; not to be written to.
pub(crate) const CORRUPT: u64 = 1 << 1;
/// Guest data is in another file.
pub(crate) const EXTERNAL_DATA_FILE: u64 = 1 << 2;
/// The header has a compression type other than deflate.
pub(crate) const COMPRESSION_TYPE: u64 = 1 << 3;
/// L2 entries are 16 bytes, with 32 subclusters each.
pub(crate) const EXTENDED_L2: u64 = 1 << 4;

/// Incompatible bits that this library knows.
pub(crate) const KNOWN_INCOMPATIBLE: u64 =
    DIRTY | CORRUPT | EXTERNAL_DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;

/// Compatible: refcounts are brought up to date late.
pub(crate) const LAZY_REFCOUNTS: u64 = 1 << 0;

/// Autoclear: the bitmaps extension is up to date.
pub(crate) const BITMAPS: u64 = 1 << 0;

/// Autoclear: the external data file can be read as a raw image.
pub(crate) const RAW_EXTERNAL_DATA: u64 = 1 << 1;
