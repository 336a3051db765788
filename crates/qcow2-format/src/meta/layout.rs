//! Where everything lies in a new image, and the bytes of its header.
//!
//! ```text
//!   cluster 0   1                1+t              2+t
//!   ┌─────────┬────────────────┬────────────────┬──────────┬────┬──────┬──────┬─ ─┬─────────────────┐
//!   │ header  │ refcount table │ refcount block │ L1 table │ L2 │ data │ data │ … │ refcount block, │
//!   │         │ t clusters     │                │          │    │      │      │   │ data …          │
//!   └─────────┴────────────────┴────────────────┴──────────┴────┴──────┴──────┴─ ─┴─────────────────┘
//! ```
//!
//! As `qemu-img create` lays an empty image; the refcount table is long enough for the disk when it
//! is full, so that it never moves.

use zerocopy::IntoBytes;

use super::geometry::Geometry;
use super::header::{CompressionType, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES};
use crate::ondisk::extension::{
    BACKING_FORMAT, END, EXTERNAL_DATA_FILE, FEATURE_NAMES, RawFeatureName, extension,
};
use crate::ondisk::features;
use crate::ondisk::header::{MAGIC, RawHeader, RawHeaderV3, V2_BYTES};
use crate::{CreateOptions, Preallocation, Qcow2Error};

/// Names of feature bits, as QEMU spells them: type of the feature, bit, name.
const NAMES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// Longest name of a backing file, in bytes.
const MAX_BACKING_NAME_BYTES: usize = 1023;

/// Smallest cluster in which names of feature bits are written, in bytes.
const LEAST_CLUSTER_WITH_FEATURE_NAMES: u64 = 8 << 10;

/// Length of the header that is written in version 3, in bytes.
const V3_HEADER_BYTES: u32 = 112;

/// Where the fixed structures of a new image lie, in clusters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    /// Clusters that one refcount block counts.
    pub(crate) clusters_per_block: u64,
    pub(crate) refcount_table_clusters: u64,
    pub(crate) l1_clusters: u64,
}

impl Layout {
    /// Checks the options and places the fixed structures.
    ///
    /// # Errors
    /// [`Qcow2Error`] with the first option that the format does not allow.
    pub(crate) fn new(options: &CreateOptions) -> Result<Self, Qcow2Error> {
        let field = |field, found: String, expected: &'static str| Qcow2Error::Field {
            structure: "new image",
            offset: 0,
            field,
            found,
            expected: expected.into(),
        };
        let bits = options.cluster_bits;
        let v2 = match options.version {
            2 => true,
            3 => false,
            found => return Err(Qcow2Error::Version { found }),
        };
        let least = if options.extended_l2 { 14 } else { 9 };
        if !(least..=21).contains(&bits) {
            let expected = "9 to 21, or 14 to 21 with extended L2 entries";
            return Err(field("cluster_bits", bits.to_string(), expected));
        }
        if options.refcount_order > 6 || (v2 && options.refcount_order != 4) {
            let found = options.refcount_order.to_string();
            return Err(field(
                "refcount_order",
                found,
                "at most 6, and 4 in version 2",
            ));
        }
        let zstd = options.compression_type == CompressionType::Zstd;
        if v2 && (options.extended_l2 || options.lazy_refcounts || zstd) {
            let expected = "no features in version 2";
            return Err(field("incompatible_features", "in use".into(), expected));
        }
        if !options.size.is_multiple_of(512) || i64::try_from(options.size).is_err() {
            let expected = "a multiple of 512 below 2^63";
            return Err(field("size", options.size.to_string(), expected));
        }
        let preallocated = options.preallocation != Preallocation::Off;
        if preallocated && (options.compressed || options.backing.is_some()) {
            let found = format!("{:?}", options.preallocation);
            let expected = "Off for compressed images and over a backing file";
            return Err(field("preallocation", found, expected));
        }
        if let Some(data_file) = &options.data_file {
            if v2 || options.compressed || (data_file.raw && options.backing.is_some()) {
                let expected = "none in version 2 and in compressed images; none that is raw over a backing file";
                return Err(field("data file", "one".into(), expected));
            }
            let fits = Self::name_offset(options, false) <= 1 << bits;
            if !fits || !(1..=MAX_BACKING_NAME_BYTES).contains(&data_file.name.len()) {
                let found = format!("{} bytes long", data_file.name.len());
                let expected = "1 to 1023 bytes that fit into the first cluster";
                return Err(field("data file name", found, expected));
            }
        }
        if let Some(backing) = &options.backing {
            let room = (1usize << bits).saturating_sub(Self::name_offset(options, false));
            let longest = room.min(MAX_BACKING_NAME_BYTES);
            if !(1..=longest).contains(&backing.name.len()) {
                let found = format!("{} bytes long", backing.name.len());
                let expected = "1 to 1023 bytes that fit into the first cluster";
                return Err(field("backing_file_name", found, expected));
            }
        }
        let geometry = Geometry::new(options.size, bits, options.extended_l2);
        let cluster = geometry.cluster_size();
        let l1_bytes = geometry.l1_entries() * 8;
        let limit = |field, found, limit| {
            let (structure, offset) = ("new image", 0);
            Qcow2Error::Limit {
                structure,
                offset,
                field,
                found,
                limit,
            }
        };
        if l1_bytes > MAX_L1_BYTES {
            return Err(limit("l1_size", l1_bytes, MAX_L1_BYTES));
        }
        let mut layout = Self {
            geometry,
            clusters_per_block: (cluster * 8) >> options.refcount_order,
            refcount_table_clusters: 1,
            l1_clusters: l1_bytes.div_ceil(cluster),
        };
        let clusters = geometry.l1_entries() + options.size.div_ceil(cluster);
        layout.make_room_for(clusters);
        let table = layout.refcount_table_clusters * cluster;
        if table > MAX_REFCOUNT_TABLE_BYTES.max(cluster) {
            return Err(limit(
                "refcount_table_clusters",
                table,
                MAX_REFCOUNT_TABLE_BYTES,
            ));
        }
        Ok(layout)
    }

    /// The same for an image to which nothing is added before it is used: its refcount table has room
    /// for what is there, and grows when more comes, as that of any image does.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of_empty(options: &CreateOptions) -> Result<Self, Qcow2Error> {
        let mut layout = Self::new(options)?;
        layout.refcount_table_clusters = 1;
        layout.make_room_for(0);
        Ok(layout)
    }

    /// Makes the refcount table long enough for so many clusters behind the fixed structures.
    fn make_room_for(&mut self, clusters: u64) {
        let cluster = self.geometry.cluster_size();
        let used = self.first_free() + clusters;
        // The table is counted by the blocks it names: grow it until it names enough.
        loop {
            let blocks = self.blocks_for(used + self.refcount_table_clusters);
            let needed = (blocks * 8).div_ceil(cluster).max(1);
            if needed <= self.refcount_table_clusters {
                break;
            }
            self.refcount_table_clusters = needed;
        }
    }

    /// Where the L1 table ends, in bytes from the start of the file.
    pub(crate) fn l1_end(&self) -> u64 {
        self.l1_table() * self.geometry.cluster_size() + self.geometry.l1_entries() * 8
    }

    /// The cluster of the first refcount block.
    pub(crate) fn first_block(&self) -> u64 {
        1 + self.refcount_table_clusters
    }

    /// The first cluster of the L1 table.
    pub(crate) fn l1_table(&self) -> u64 {
        self.first_block() + 1
    }

    /// The first cluster after the fixed structures.
    pub(crate) fn first_free(&self) -> u64 {
        self.l1_table() + self.l1_clusters
    }

    /// How many refcount blocks count `used` clusters, the first block among them, and all the
    /// blocks after it themselves.
    pub(crate) fn blocks_for(&self, used: u64) -> u64 {
        let mut blocks = 1;
        while blocks * self.clusters_per_block < used + (blocks - 1) {
            blocks += (used + (blocks - 1)).div_ceil(self.clusters_per_block) - blocks;
        }
        blocks
    }

    /// Clusters of the file once every cluster of the disk has its own.
    pub(crate) fn clusters_of_full_disk(&self) -> u64 {
        let data = self.geometry.size().div_ceil(self.geometry.cluster_size());
        let used = self.first_free() + self.geometry.l1_entries() + data;
        used + self.blocks_for(used) - 1
    }

    /// The header and its extensions.
    pub(crate) fn header(&self, options: &CreateOptions) -> Vec<u8> {
        let cluster = self.geometry.cluster_size();
        let small = |number: u64| u32::try_from(number).expect("within the limits");
        let l1_table = if self.l1_clusters == 0 {
            0
        } else {
            self.l1_table() * cluster
        };
        let backing = options.backing.as_ref();
        let name = backing.map_or("", |backing| backing.name.as_str());
        // Of a small cluster they would take too much: other extensions and the backing file's name
        // are to have room, also later. QEMU draws the line there, too.
        let named = cluster >= LEAST_CLUSTER_WITH_FEATURE_NAMES;
        let name_offset = Self::name_offset(options, named);
        let name_at = if name.is_empty() {
            0
        } else {
            name_offset as u64
        };
        let mut bytes = RawHeader {
            magic: MAGIC,
            version: options.version.into(),
            backing_file_offset: name_at.into(),
            backing_file_size: small(name.len() as u64).into(),
            cluster_bits: options.cluster_bits.into(),
            size: options.size.into(),
            crypt_method: 0.into(),
            l1_size: small(self.geometry.l1_entries()).into(),
            l1_table_offset: l1_table.into(),
            refcount_table_offset: cluster.into(),
            refcount_table_clusters: small(self.refcount_table_clusters).into(),
            nb_snapshots: 0.into(),
            snapshots_offset: 0.into(),
        }
        .as_bytes()
        .to_vec();
        if options.version == 3 {
            bytes.extend_from_slice(&header_v3(options));
        }
        bytes.extend_from_slice(&extensions(options, named));
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }

    /// Where the backing file's name goes: after the header and its extensions, of which the table
    /// of feature names may be left out.
    fn name_offset(options: &CreateOptions, feature_names: bool) -> usize {
        let header = match options.version {
            2 => V2_BYTES,
            _ => V3_HEADER_BYTES as usize,
        };
        header + extensions(options, feature_names).len()
    }
}

/// What version 3 adds to the header.
fn header_v3(options: &CreateOptions) -> Vec<u8> {
    let zstd = options.compression_type == CompressionType::Zstd;
    let raw_data = options.data_file.as_ref().is_some_and(|file| file.raw);
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    let fields = RawHeaderV3 {
        incompatible_features: (bit(options.extended_l2, features::EXTENDED_L2)
            | bit(zstd, features::COMPRESSION_TYPE)
            | bit(options.data_file.is_some(), features::EXTERNAL_DATA_FILE))
        .into(),
        compatible_features: bit(options.lazy_refcounts, features::LAZY_REFCOUNTS).into(),
        autoclear_features: bit(raw_data, features::RAW_EXTERNAL_DATA).into(),
        refcount_order: options.refcount_order.into(),
        header_length: V3_HEADER_BYTES.into(),
    };
    let mut bytes = fields.as_bytes().to_vec();
    bytes.push(u8::from(zstd));
    bytes.resize(V3_HEADER_BYTES as usize - V2_BYTES, 0);
    bytes
}

/// The header's extensions in QEMU's order, with the table of feature names or without.
fn extensions(options: &CreateOptions, feature_names: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(backing) = &options.backing {
        bytes.extend(extension(BACKING_FORMAT, backing.format.as_bytes()));
    }
    if let Some(data_file) = &options.data_file {
        bytes.extend(extension(EXTERNAL_DATA_FILE, data_file.name.as_bytes()));
    }
    if feature_names && options.version == 3 {
        let names = NAMES.iter().flat_map(|(kind, bit, text)| {
            let mut name = [0; 46];
            name[..text.len()].copy_from_slice(text.as_bytes());
            let (kind, bit) = (*kind, *bit);
            RawFeatureName { kind, bit, name }.as_bytes().to_vec()
        });
        bytes.extend(extension(FEATURE_NAMES, &names.collect::<Vec<u8>>()));
    }
    bytes.extend(extension(END, &[]));
    bytes
}
