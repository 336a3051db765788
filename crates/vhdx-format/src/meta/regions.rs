//! Which of the two region tables holds, and where the regions are ([MS-VHDX] §2.2.3).

use blockdev_core::ByteRange;
use uuid::Uuid;
use zerocopy::FromBytes;

use super::problem::{Effect, Problem};
use crate::VhdxError;
use crate::known::{BAT_REGION, METADATA_REGION, region_name};
use crate::ondisk::crc::checksum;
use crate::ondisk::guid::GuidBytes;
use crate::ondisk::region_table::{
    BYTES, CHECKSUM_FIELD, MAX_ENTRIES, OFFSETS, RawRegionEntry, RawRegionTableHeader, SIGNATURE,
};
use crate::ondisk::{HEADER_SECTION_BYTES, MIB, read};

const SECTION: &str = "region";
const TABLE: &str = "region table";
const ENTRY: &str = "region table entry";
const REFERENCE: &str = "[MS-VHDX] 2.2.3.2";

/// One entry of a region table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionEntry {
    /// Where the entry itself lies in the file.
    pub entry_offset: u64,
    /// What the region is.
    pub guid: Uuid,
    /// Where the region lies.
    pub file_offset: u64,
    /// Its length in bytes.
    pub length: u32,
    /// True when a reader that does not know the region must refuse the file.
    pub required: bool,
}

impl RegionEntry {
    /// The region's place; `None` where its end does not fit 64 bits.
    #[must_use]
    pub fn range(&self) -> Option<ByteRange> {
        ByteRange::new(self.file_offset, u64::from(self.length))
    }

    fn field(&self, field: &'static str, found: String, expected: &'static str) -> VhdxError {
        let (structure, offset) = (ENTRY, self.entry_offset);
        VhdxError::Field {
            structure,
            offset,
            field,
            found,
            expected: expected.into(),
        }
    }

    pub(crate) fn name(&self) -> String {
        match region_name(self.guid) {
            Some(name) => format!("{name} region"),
            None => format!("region {{{}}}", self.guid),
        }
    }
}

/// One copy of the region table, as it lies in the file: valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionTable {
    /// Where the copy lies.
    pub offset: u64,
    /// `regi` in a valid copy.
    pub signature: [u8; 4],
    /// CRC-32C that the copy claims.
    pub checksum: u32,
    /// CRC-32C that the copy has.
    pub computed_checksum: u32,
    /// Entries that the copy counts; at most 2,047.
    pub entry_count: u32,
    /// The entries; none when the count is out of bounds.
    pub entries: Vec<RegionEntry>,
}

impl RegionTable {
    /// Decodes the 64 KiB `bytes` that lie at `offset`.
    pub(crate) fn decode(bytes: &[u8], offset: u64) -> Self {
        let header: RawRegionTableHeader = read(bytes, 0).expect("64 KiB hold the header");
        let entry_count = header.entry_count.get();
        let counted = if entry_count <= MAX_ENTRIES {
            entry_count as usize
        } else {
            0
        };
        let entries = (0..counted)
            .filter_map(|i| {
                let at = size_of::<RawRegionTableHeader>() + i * size_of::<RawRegionEntry>();
                let raw: RawRegionEntry = read(bytes, at)?;
                Some(RegionEntry {
                    entry_offset: offset + at as u64,
                    guid: raw.guid.get(),
                    file_offset: raw.file_offset.get(),
                    length: raw.length.get(),
                    // One bit is defined; a writer that sets another means the same by it.
                    required: raw.required.get() & 1 != 0,
                })
            })
            .collect();
        Self {
            offset,
            signature: header.signature,
            checksum: header.checksum.get(),
            computed_checksum: checksum(bytes, CHECKSUM_FIELD),
            entry_count,
            entries,
        }
    }

    /// True when signature, checksum and entry count are right.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.signature == SIGNATURE
            && self.checksum == self.computed_checksum
            && self.entry_count <= MAX_ENTRIES
    }

    /// True when both name the same regions in the same places.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let strip = |table: &Self| {
            let entries = table.entries.iter();
            entries
                .map(|e| (e.guid, e.file_offset, e.length))
                .collect::<Vec<_>>()
        };
        strip(self) == strip(other)
    }

    /// The entry for region `guid`.
    #[must_use]
    pub fn find(&self, guid: Uuid) -> Option<&RegionEntry> {
        self.entries.iter().find(|entry| entry.guid == guid)
    }

    /// The entry for a region that every file has.
    pub(crate) fn require(&self, guid: Uuid) -> Result<&RegionEntry, VhdxError> {
        self.find(guid).ok_or_else(|| VhdxError::Missing {
            structure: TABLE,
            offset: self.offset,
            what: format!("the {} region", region_name(guid).unwrap_or("named")).into(),
        })
    }

    /// What is wrong with this copy as the table of a file `file_len` bytes long whose log is at
    /// `log`.
    pub(crate) fn problems(&self, log: ByteRange, file_len: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        for guid in [BAT_REGION, METADATA_REGION] {
            if let Err(error) = self.require(guid) {
                problems.push(Problem::refused(
                    SECTION,
                    "region-missing",
                    REFERENCE,
                    error,
                ));
            }
        }
        for entry in &self.entries {
            self.entry_problems(entry, file_len, &mut problems);
        }
        self.overlaps(log, &mut problems);
        problems
    }

    fn entry_problems(&self, entry: &RegionEntry, file_len: u64, problems: &mut Vec<Problem>) {
        let known = region_name(entry.guid).is_some();
        let (offset, guid) = (entry.entry_offset, entry.guid);
        if !known && entry.required {
            let error = VhdxError::UnknownRequired {
                structure: ENTRY,
                offset,
                guid,
            };
            problems.push(Problem::refused(
                SECTION,
                "region-required-unknown",
                REFERENCE,
                error,
            ));
        } else if !known {
            let what = entry.name();
            let error = VhdxError::Strict {
                structure: ENTRY,
                offset,
                what,
            };
            let note = Problem::note(SECTION, "region-optional-unknown", REFERENCE, error);
            problems.push(note.with_effect(Effect::RefusedIfStrict));
        }
        if !entry.file_offset.is_multiple_of(MIB) || entry.file_offset < HEADER_SECTION_BYTES {
            let found = format!("{:#x}", entry.file_offset);
            let error = entry.field("FileOffset", found, "a multiple of 1 MiB, at least 1 MiB");
            problems.push(Problem::refused(SECTION, "region-offset", REFERENCE, error));
        }
        if u64::from(entry.length) % MIB != 0 {
            let error = entry.field("Length", entry.length.to_string(), "a multiple of 1 MiB");
            problems.push(Problem::refused(SECTION, "region-length", REFERENCE, error));
        }
        if entry.range().is_none_or(|range| range.end() > file_len) {
            let found = format!("{:#x}, {} bytes long", entry.file_offset, entry.length);
            let error = entry.field("FileOffset", found, "a region that ends inside the file");
            let mut problem = Problem::refused(SECTION, "region-outside-file", REFERENCE, error);
            if !known {
                // Nothing that is needed is lost.
                problem = problem.with_effect(Effect::RefusedIfStrict);
            }
            problems.push(problem);
        }
        if self
            .find(guid)
            .is_some_and(|first| first.entry_offset != offset)
        {
            let error = entry.field("Guid", format!("{{{guid}}}"), "unique in the table");
            problems.push(Problem::refused(
                SECTION,
                "region-duplicate",
                REFERENCE,
                error,
            ));
        }
    }

    /// Regions lie apart from each other and from the log.
    fn overlaps(&self, log: ByteRange, problems: &mut Vec<Problem>) {
        let mut placed: Vec<(ByteRange, String, u64)> = self
            .entries
            .iter()
            .filter_map(|entry| Some((entry.range()?, entry.name(), entry.entry_offset)))
            .chain([(log, "log".into(), self.offset)])
            .filter(|(range, ..)| !range.is_empty())
            .collect();
        placed.sort_by_key(|(range, ..)| *range);
        // Sorted by start, something that reaches over others overlaps its next neighbour too.
        for pair in placed.windows(2) {
            let [(a, a_name, _), (b, b_name, offset)] = pair else {
                continue;
            };
            if a.overlaps(*b) {
                let (what, other, offset) = (b_name.clone(), a_name.clone(), *offset);
                let error = VhdxError::Overlap {
                    structure: ENTRY,
                    offset,
                    what,
                    other,
                };
                problems.push(Problem::refused(
                    SECTION,
                    "region-overlap",
                    REFERENCE,
                    error,
                ));
            }
        }
    }
}

/// Both copies of the region table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionTables {
    /// The copies at 192 KiB and at 256 KiB.
    pub copies: [RegionTable; 2],
    /// Which of them is used: the first that is valid; `None` when neither is.
    pub current: Option<usize>,
}

impl RegionTables {
    pub(crate) fn choose(copies: [RegionTable; 2]) -> Self {
        let current = copies.iter().position(RegionTable::is_valid);
        Self { copies, current }
    }

    /// The table in use.
    ///
    /// # Errors
    /// [`VhdxError::NoValidCopy`] when neither copy is valid.
    pub fn current(&self) -> Result<&RegionTable, VhdxError> {
        self.current
            .map(|at| &self.copies[at])
            .ok_or(VhdxError::NoValidCopy {
                structure: TABLE,
                offset: OFFSETS[0],
            })
    }

    /// What is wrong with the pair, apart from the entries of the one in use.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let reference = "[MS-VHDX] 2.2.3";
        if self.current.is_none() {
            let error = VhdxError::NoValidCopy {
                structure: TABLE,
                offset: OFFSETS[0],
            };
            return vec![Problem::refused(
                SECTION,
                "region-none-valid",
                reference,
                error,
            )];
        }
        let mut problems = Vec::new();
        for copy in self.copies.iter().filter(|copy| !copy.is_valid()) {
            let error = VhdxError::Field {
                structure: TABLE,
                offset: copy.offset,
                field: "Checksum",
                found: format!("{:#010x}", copy.checksum),
                expected: "the CRC-32C of the copy".into(),
            };
            let warning = Problem::warning(SECTION, "region-copy-invalid", reference, error);
            problems.push(warning.with_effect(Effect::Harmless));
        }
        if self.copies.iter().all(RegionTable::is_valid)
            && !self.copies[0].says_the_same(&self.copies[1])
        {
            let error = VhdxError::Field {
                structure: TABLE,
                offset: self.copies[1].offset,
                field: "Entries",
                found: "different in the two copies".into(),
                expected: "the same".into(),
            };
            problems.push(Problem::warning(
                SECTION,
                "region-copies-differ",
                reference,
                error,
            ));
        }
        problems
    }
}

/// Makes the valid region table `bytes` say that region `guid` is at `file_offset`, `length` bytes
/// long.
pub(crate) fn repoint(bytes: &mut [u8], guid: Uuid, file_offset: u64, length: u32) {
    let wanted = GuidBytes::from(guid);
    let (header, entries) = bytes.split_at_mut(size_of::<RawRegionTableHeader>());
    let count: RawRegionTableHeader = read(header, 0).expect("as long as the structure");
    let entries = entries.chunks_exact_mut(size_of::<RawRegionEntry>());
    for entry in entries.take(count.entry_count.get() as usize) {
        let raw = RawRegionEntry::mut_from_bytes(entry).expect("as long as the structure");
        if raw.guid == wanted {
            raw.file_offset = file_offset.into();
            raw.length = length.into();
        }
    }
    let sum = checksum(bytes, CHECKSUM_FIELD);
    bytes[CHECKSUM_FIELD..CHECKSUM_FIELD + 4].copy_from_slice(&sum.to_le_bytes());
}

const _: () =
    assert!(BYTES >= size_of::<RawRegionTableHeader>() + 2047 * size_of::<RawRegionEntry>());
