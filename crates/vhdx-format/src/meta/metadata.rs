//! The metadata table and the items that describe the disk ([MS-VHDX] §2.6).

use blockdev_core::ByteRange;
use uuid::Uuid;

use super::problem::{Effect, Problem};
use crate::VhdxError;
use crate::known;
use crate::ondisk::metadata_items::{HAS_PARENT, LEAVE_BLOCK_ALLOCATED, RawFileParameters};
use crate::ondisk::metadata_table::{
    BYTES, IS_REQUIRED, IS_USER, IS_VIRTUAL_DISK, MAX_ENTRIES, MAX_ITEM_BYTES, MAX_USER_ENTRIES,
    RawMetadataEntry, RawMetadataTableHeader, SIGNATURE,
};
use crate::ondisk::read;

const SECTION: &str = "metadata";
const TABLE: &str = "metadata table";
const ENTRY: &str = "metadata table entry";
const REFERENCE: &str = "[MS-VHDX] 2.6.1.2";

/// One entry of the metadata table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadataEntry {
    /// Where the entry itself lies in the file.
    pub entry_offset: u64,
    /// What the item is.
    pub item_id: Uuid,
    /// Where the item lies, from the start of the metadata region; 0 for an empty item.
    pub offset: u32,
    /// Its length in bytes, at most 1 MiB.
    pub length: u32,
    /// The item is the user's, not the system's.
    pub is_user: bool,
    /// The item describes the virtual disk and goes along when a child is made.
    pub is_virtual_disk: bool,
    /// A reader that does not know the item must refuse the file.
    pub is_required: bool,
}

impl MetadataEntry {
    pub(crate) fn field(
        &self,
        field: &'static str,
        found: impl std::fmt::Display,
        expected: &'static str,
    ) -> VhdxError {
        let found = found.to_string();
        let (structure, offset) = (ENTRY, self.entry_offset);
        VhdxError::Field {
            structure,
            offset,
            field,
            found,
            expected: expected.into(),
        }
    }

    fn name(&self) -> String {
        known::item_name(self.item_id)
            .map_or_else(|| format!("item {{{}}}", self.item_id), Into::into)
    }

    /// The item's place in the region; `None` for an empty one.
    fn range(&self) -> Option<ByteRange> {
        (self.length > 0).then(|| {
            ByteRange::new(u64::from(self.offset), u64::from(self.length)).expect("32-bit numbers")
        })
    }

    /// Checks the item's length against that of its structure.
    pub(crate) fn expect_length(&self, length: usize) -> Result<(), VhdxError> {
        if self.length as usize == length {
            return Ok(());
        }
        Err(self.field("Length", self.length, "the length of the item's structure"))
    }
}

/// The metadata table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadataTable {
    /// Where the table, and so the metadata region, begins.
    pub offset: u64,
    /// `metadata` in a valid table.
    pub signature: [u8; 8],
    /// Entries that the table counts; at most 2,047.
    pub entry_count: u16,
    /// The entries; none when the count is out of bounds.
    pub entries: Vec<MetadataEntry>,
}

impl MetadataTable {
    /// Decodes the 64 KiB `bytes` that lie at `offset`.
    pub(crate) fn decode(bytes: &[u8], offset: u64) -> Self {
        let header: RawMetadataTableHeader = read(bytes, 0).expect("64 KiB hold the header");
        let entry_count = header.entry_count.get();
        let counted = if entry_count <= MAX_ENTRIES {
            usize::from(entry_count)
        } else {
            0
        };
        let entries = (0..counted)
            .filter_map(|i| {
                let at = size_of::<RawMetadataTableHeader>() + i * size_of::<RawMetadataEntry>();
                let raw: RawMetadataEntry = read(bytes, at)?;
                let flags = raw.flags.get();
                Some(MetadataEntry {
                    entry_offset: offset + at as u64,
                    item_id: raw.item_id.get(),
                    offset: raw.offset.get(),
                    length: raw.length.get(),
                    is_user: flags & IS_USER != 0,
                    is_virtual_disk: flags & IS_VIRTUAL_DISK != 0,
                    is_required: flags & IS_REQUIRED != 0,
                })
            })
            .collect();
        Self {
            offset,
            signature: header.signature,
            entry_count,
            entries,
        }
    }

    /// The system item `id`.
    #[must_use]
    pub fn find(&self, id: Uuid) -> Option<&MetadataEntry> {
        self.entries
            .iter()
            .find(|entry| entry.item_id == id && !entry.is_user)
    }

    /// A system item that the file must have.
    pub(crate) fn require(&self, id: Uuid) -> Result<&MetadataEntry, VhdxError> {
        self.find(id).ok_or_else(|| VhdxError::Missing {
            structure: TABLE,
            offset: self.offset,
            what: known::item_name(id).unwrap_or("a required item").into(),
        })
    }

    /// What is wrong with the table of a region `region_len` bytes long.
    pub(crate) fn problems(&self, region_len: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.signature != SIGNATURE {
            let found = self.signature.to_vec();
            let error = VhdxError::Signature {
                structure: TABLE,
                offset: self.offset,
                found,
            };
            let code = "metadata-signature";
            problems.push(Problem::refused(SECTION, code, "[MS-VHDX] 2.6.1.1", error));
            return problems;
        }
        if self.entry_count > MAX_ENTRIES {
            let error = VhdxError::Field {
                structure: TABLE,
                offset: self.offset,
                field: "EntryCount",
                found: self.entry_count.to_string(),
                expected: "at most 2047".into(),
            };
            let code = "metadata-entry-count";
            problems.push(Problem::refused(SECTION, code, "[MS-VHDX] 2.6.1.1", error));
        }
        if self.entries.iter().filter(|entry| entry.is_user).count() > MAX_USER_ENTRIES {
            let error = VhdxError::Field {
                structure: TABLE,
                offset: self.offset,
                field: "IsUser",
                found: "set in more than 1024 entries".into(),
                expected: "at most 1024".into(),
            };
            problems.push(Problem::refused(
                SECTION,
                "metadata-user-count",
                REFERENCE,
                error,
            ));
        }
        for entry in &self.entries {
            entry_problems(entry, region_len, &mut problems);
        }
        self.overlaps(&mut problems);
        self.duplicates(&mut problems);
        problems
    }

    fn overlaps(&self, problems: &mut Vec<Problem>) {
        let mut placed: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| Some((entry.range()?, entry)))
            .collect();
        placed.sort_by_key(|(range, _)| *range);
        for pair in placed.windows(2) {
            let [(a, first), (b, second)] = pair else {
                continue;
            };
            if a.overlaps(*b) {
                let (what, other) = (second.name(), first.name());
                let (structure, offset) = (ENTRY, second.entry_offset);
                let error = VhdxError::Overlap {
                    structure,
                    offset,
                    what,
                    other,
                };
                problems.push(Problem::refused(
                    SECTION,
                    "metadata-overlap",
                    REFERENCE,
                    error,
                ));
            }
        }
    }

    fn duplicates(&self, problems: &mut Vec<Problem>) {
        let mut ids: Vec<_> = self
            .entries
            .iter()
            .map(|e| (e.item_id, e.is_user, e.entry_offset))
            .collect();
        ids.sort_unstable();
        for pair in ids.windows(2) {
            if (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1) {
                let error = VhdxError::Field {
                    structure: ENTRY,
                    offset: pair[1].2,
                    field: "ItemID",
                    found: format!("{{{}}}", pair[1].0),
                    expected: "unique among the user's or the system's items".into(),
                };
                problems.push(Problem::refused(
                    SECTION,
                    "metadata-duplicate",
                    REFERENCE,
                    error,
                ));
            }
        }
    }
}

fn entry_problems(entry: &MetadataEntry, region_len: u64, problems: &mut Vec<Problem>) {
    let known = !entry.is_user && known::item_name(entry.item_id).is_some();
    let (offset, guid) = (entry.entry_offset, entry.item_id);
    if !known && entry.is_required {
        let error = VhdxError::UnknownRequired {
            structure: ENTRY,
            offset,
            guid,
        };
        problems.push(Problem::refused(
            SECTION,
            "metadata-required-unknown",
            REFERENCE,
            error,
        ));
    } else if !known && !entry.is_user {
        let error = VhdxError::Strict {
            structure: ENTRY,
            offset,
            what: entry.name(),
        };
        let note = Problem::note(SECTION, "metadata-optional-unknown", REFERENCE, error);
        problems.push(note.with_effect(Effect::RefusedIfStrict));
    }
    if known && !entry.is_required {
        let error = entry.field("IsRequired", "clear", "set for this item");
        problems.push(Problem::warning(
            SECTION,
            "metadata-flags",
            "[MS-VHDX] 2.6.2",
            error,
        ));
    }
    if entry.length > MAX_ITEM_BYTES {
        let error = entry.field("Length", entry.length, "at most 1 MiB");
        problems.push(Problem::refused(
            SECTION,
            "metadata-item-length",
            REFERENCE,
            error,
        ));
    }
    match entry.range() {
        None if entry.offset != 0 => {
            let error = entry.field("Offset", entry.offset, "0 for an empty item");
            problems.push(Problem::warning(
                SECTION,
                "metadata-empty-offset",
                REFERENCE,
                error,
            ));
        }
        Some(range) if range.start() < BYTES as u64 || range.end() > region_len => {
            let found = format!("{:#x}, {} bytes long", entry.offset, entry.length);
            let expected = "an item between the table and the end of the region";
            let error = entry.field("Offset", found, expected);
            problems.push(Problem::refused(
                SECTION,
                "metadata-item-offset",
                REFERENCE,
                error,
            ));
        }
        _ => {}
    }
}

/// File parameters (§2.6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileParameters {
    /// Bytes in a payload block.
    pub block_size: u32,
    /// Blocks keep their space: a fixed disk. Means nothing when there is a parent.
    pub leave_block_allocated: bool,
    /// The disk is differencing.
    pub has_parent: bool,
}

impl FileParameters {
    pub(crate) const BYTES: usize = size_of::<RawFileParameters>();

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let raw: RawFileParameters = read(bytes, 0).expect("as long as the structure");
        let flags = raw.flags.get();
        Self {
            block_size: raw.block_size.get(),
            leave_block_allocated: flags & LEAVE_BLOCK_ALLOCATED != 0,
            has_parent: flags & HAS_PARENT != 0,
        }
    }
}
