//! The header, judged before anything it points at is read (qcow2 specification, "Header").

use std::borrow::Cow;

use super::extensions::Extensions;
use super::geometry::Geometry;
use crate::Qcow2Error;
use crate::ondisk::header::{COMPRESSION_TYPE, MAGIC, RawHeader, RawHeaderV3, V2_BYTES, V3_BYTES};
use crate::ondisk::{features, read};

/// Longest L1 table, in bytes: what QEMU allows.
pub(crate) const MAX_L1_BYTES: u64 = 32 << 20;
/// Longest refcount table, in bytes: what QEMU allows.
pub(crate) const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Most snapshots.
pub(crate) const MAX_SNAPSHOTS: u32 = 65_536;
/// Longest backing file name, in bytes.
pub(crate) const MAX_BACKING_NAME_BYTES: u32 = 1023;

/// Refcount width exponent of version 2.
pub(crate) const V2_REFCOUNT_ORDER: u32 = 4;

/// How clusters are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompressionType {
    /// Raw deflate streams.
    Zlib,
    /// Zstandard frames.
    Zstd,
}

impl CompressionType {
    /// The type's name, as `qemu-img` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// The fields of a header, version 2 brought to the shape of version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Where the name of the backing file lies; 0 when there is none.
    pub backing_file_offset: u64,
    /// Length of that name in bytes.
    pub backing_file_size: u32,
    /// Binary logarithm of the cluster size, 9 to 21.
    pub cluster_bits: u32,
    /// Size of the virtual disk in bytes.
    pub size: u64,
    /// 0 for none.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_size: u32,
    /// Where the active L1 table lies.
    pub l1_table_offset: u64,
    /// Where the refcount table lies.
    pub refcount_table_offset: u64,
    /// Clusters that the refcount table takes.
    pub refcount_table_clusters: u32,
    /// Number of snapshots.
    pub nb_snapshots: u32,
    /// Where the snapshot table lies.
    pub snapshots_offset: u64,
    /// Features without which the image must not be opened.
    pub incompatible_features: u64,
    /// Features that may be ignored.
    pub compatible_features: u64,
    /// Features that whoever does not know them clears when writing.
    pub autoclear_features: u64,
    /// Binary logarithm of the width of a refcount in bits, 0 to 6.
    pub refcount_order: u32,
    /// Length of the header in bytes.
    pub header_length: u32,
    /// How clusters are packed.
    pub compression_type: CompressionType,
}

fn field(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: impl Into<Cow<'static, str>>,
) -> Qcow2Error {
    let (structure, offset) = ("header", 0);
    Qcow2Error::Field {
        structure,
        offset,
        field,
        found: found.to_string(),
        expected: expected.into(),
    }
}

impl Header {
    /// Decodes the header in `bytes`, the beginning of the file, and checks each field by itself.
    /// Unknown features are for [`check_features`](Self::check_features), which can name them.
    ///
    /// # Errors
    /// [`Qcow2Error`] with the first field that is out of bounds.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Qcow2Error> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Qcow2Error::NotQcow2);
        }
        let truncated = || field("length of the file", bytes.len(), "room for a whole header");
        let raw: RawHeader = read(bytes, 0).ok_or_else(truncated)?;
        let version = raw.version.get();
        let v3: Option<RawHeaderV3> = match version {
            2 => None,
            3 => Some(read(bytes, V2_BYTES).ok_or_else(truncated)?),
            found => return Err(Qcow2Error::Version { found }),
        };
        let cluster_bits = raw.cluster_bits.get();
        if !(9..=21).contains(&cluster_bits) {
            return Err(field("cluster_bits", cluster_bits, "9 to 21"));
        }
        let mut header = Self {
            version,
            backing_file_offset: raw.backing_file_offset.get(),
            backing_file_size: raw.backing_file_size.get(),
            cluster_bits,
            size: raw.size.get(),
            crypt_method: raw.crypt_method.get(),
            l1_size: raw.l1_size.get(),
            l1_table_offset: raw.l1_table_offset.get(),
            refcount_table_offset: raw.refcount_table_offset.get(),
            refcount_table_clusters: raw.refcount_table_clusters.get(),
            nb_snapshots: raw.nb_snapshots.get(),
            snapshots_offset: raw.snapshots_offset.get(),
            incompatible_features: 0,
            compatible_features: 0,
            autoclear_features: 0,
            refcount_order: V2_REFCOUNT_ORDER,
            header_length: u32::try_from(V2_BYTES).expect("small"),
            compression_type: CompressionType::Zlib,
        };
        if let Some(v3) = v3 {
            header.incompatible_features = v3.incompatible_features.get();
            header.compatible_features = v3.compatible_features.get();
            header.autoclear_features = v3.autoclear_features.get();
            header.refcount_order = v3.refcount_order.get();
            header.header_length = v3.header_length.get();
            header.check_length(bytes)?;
            header.compression_type = header.decode_compression_type(bytes)?;
        }
        header.check_places()?;
        Ok(header)
    }

    fn check_length(&self, bytes: &[u8]) -> Result<(), Qcow2Error> {
        let length = u64::from(self.header_length);
        if length < V3_BYTES as u64 || length % 8 != 0 {
            return Err(field(
                "header_length",
                length,
                "a multiple of 8, at least 104",
            ));
        }
        if length > self.cluster_size() || length > bytes.len() as u64 {
            return Err(field(
                "header_length",
                length,
                "a header inside the first cluster",
            ));
        }
        Ok(())
    }

    fn decode_compression_type(&self, bytes: &[u8]) -> Result<CompressionType, Qcow2Error> {
        let there = self.header_length as usize > COMPRESSION_TYPE;
        let found = if there { bytes[COMPRESSION_TYPE] } else { 0 };
        let flagged = self.has(features::COMPRESSION_TYPE);
        match (found, flagged) {
            (0, false) => Ok(CompressionType::Zlib),
            (1, true) => Ok(CompressionType::Zstd),
            (0, true) => Err(field(
                "compression_type",
                0,
                "another than the one without the bit",
            )),
            (1, false) => Err(field(
                "compression_type",
                1,
                "0 without the incompatible bit",
            )),
            (found, _) => Err(Qcow2Error::CompressionType { found }),
        }
    }

    /// Fields that say where things are and how long.
    fn check_places(&self) -> Result<(), Qcow2Error> {
        let cluster = self.cluster_size();
        for (name, offset) in [
            ("l1_table_offset", self.l1_table_offset),
            ("refcount_table_offset", self.refcount_table_offset),
            ("snapshots_offset", self.snapshots_offset),
        ] {
            if offset % cluster != 0 || i64::try_from(offset).is_err() {
                return Err(field(
                    name,
                    format!("{offset:#x}"),
                    "a multiple of the cluster size",
                ));
            }
        }
        if self.refcount_order > 6 {
            return Err(field("refcount_order", self.refcount_order, "at most 6"));
        }
        for (name, found, limit) in [
            ("l1_size", u64::from(self.l1_size) * 8, MAX_L1_BYTES),
            (
                "refcount_table_clusters",
                u64::from(self.refcount_table_clusters) * cluster,
                MAX_REFCOUNT_TABLE_BYTES,
            ),
            (
                "nb_snapshots",
                u64::from(self.nb_snapshots),
                u64::from(MAX_SNAPSHOTS),
            ),
        ] {
            if found > limit {
                let (structure, offset) = ("header", 0);
                return Err(Qcow2Error::Limit {
                    structure,
                    offset,
                    field: name,
                    found,
                    limit,
                });
            }
        }
        if self.backing_file_offset != 0 {
            if self.backing_file_size > MAX_BACKING_NAME_BYTES {
                let expected = "at most 1023";
                return Err(field("backing_file_size", self.backing_file_size, expected));
            }
            let end = self
                .backing_file_offset
                .checked_add(u64::from(self.backing_file_size));
            if end.is_none_or(|end| end > cluster) {
                let found = format!("{:#x}", self.backing_file_offset);
                return Err(field(
                    "backing_file_offset",
                    found,
                    "a name in the first cluster",
                ));
            }
        }
        let needed = self.geometry().l1_entries();
        if u64::from(self.l1_size) < needed {
            let expected = format!("at least {needed} for a disk of {} bytes", self.size);
            return Err(field("l1_size", self.l1_size, expected));
        }
        Ok(())
    }

    /// Refuses what must be understood and is not: unknown incompatible features, by the names that
    /// `extensions` give them, and encryption.
    pub(crate) fn check_features(&self, extensions: &Extensions) -> Result<(), Qcow2Error> {
        let unknown = self.incompatible_features & !features::KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            let names: Vec<String> = (0..64)
                .filter(|bit| unknown >> bit & 1 != 0)
                .map(|bit| match extensions.incompatible_name(bit) {
                    Some(name) => format!("{name:?} (bit {bit})"),
                    None => format!("bit {bit}"),
                })
                .collect();
            return Err(Qcow2Error::UnknownFeatures {
                names: names.join(", "),
            });
        }
        if self.has(features::EXTENDED_L2) && self.cluster_bits < 14 {
            let expected = "at least 14 with extended L2 entries";
            return Err(field("cluster_bits", self.cluster_bits, expected));
        }
        let method = match self.crypt_method {
            0 => return Ok(()),
            1 => "AES".into(),
            2 => "LUKS".into(),
            other => format!("unknown method {other}").into(),
        };
        Err(Qcow2Error::Encrypted { method })
    }

    /// Bytes in a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// True when the incompatible feature `bit` (a mask) is set.
    pub(crate) fn has(&self, bit: u64) -> bool {
        self.incompatible_features & bit != 0
    }

    /// Refcounts may be out of date: the image was not closed cleanly.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.has(features::DIRTY)
    }

    /// The metadata is known to be damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.has(features::CORRUPT)
    }

    /// Guest data is in another file.
    #[must_use]
    pub fn has_data_file(&self) -> bool {
        self.has(features::EXTERNAL_DATA_FILE)
    }

    /// Entries have subclusters.
    #[must_use]
    pub fn has_extended_l2(&self) -> bool {
        self.has(features::EXTENDED_L2)
    }

    /// The external data file is a raw image of the disk.
    #[must_use]
    pub fn is_data_file_raw(&self) -> bool {
        self.has_data_file() && self.autoclear_features & features::RAW_EXTERNAL_DATA != 0
    }

    /// Refcounts are brought up to date late.
    #[must_use]
    pub fn has_lazy_refcounts(&self) -> bool {
        self.compatible_features & features::LAZY_REFCOUNTS != 0
    }

    /// Width of a refcount in bits: 1 to 64.
    #[must_use]
    pub fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }

    /// The numbers that place everything on the active disk.
    pub(crate) fn geometry(&self) -> Geometry {
        Geometry::new(self.size, self.cluster_bits, self.has_extended_l2())
    }
}
