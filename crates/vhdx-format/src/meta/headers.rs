//! Which of the two headers holds ([MS-VHDX] §2.2.2).

use blockdev_core::ByteRange;
use uuid::Uuid;

use super::problem::Problem;
use crate::VhdxError;
use crate::ondisk::crc::checksum;
use crate::ondisk::header::{BYTES, CHECKSUM_FIELD, OFFSETS, RawHeader, SIGNATURE};
use crate::ondisk::{HEADER_SECTION_BYTES, MIB, read};

/// Version of the format this library follows.
const VERSION: u16 = 1;
/// Version of the log this library follows.
const LOG_VERSION: u16 = 0;

/// One copy of the header, as it lies in the file: valid or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderCopy {
    /// Where the copy lies.
    pub offset: u64,
    /// `head` in a valid copy.
    pub signature: [u8; 4],
    /// CRC-32C that the copy claims.
    pub checksum: u32,
    /// CRC-32C that the copy has.
    pub computed_checksum: u32,
    /// The greater one of two valid copies is current.
    pub sequence_number: u64,
    /// Changes with the first modification after each open.
    pub file_write_guid: Uuid,
    /// Changes with the first modification of guest data after each open; children link to it.
    pub data_write_guid: Uuid,
    /// Identifies the log's entries; nil when there are none to replay.
    pub log_guid: Uuid,
    /// Version of the log format: 0.
    pub log_version: u16,
    /// Version of the format: 1.
    pub version: u16,
    /// Length of the log in bytes.
    pub log_length: u32,
    /// Where the log lies.
    pub log_offset: u64,
}

impl HeaderCopy {
    /// Decodes the 4 KiB `bytes` that lie at `offset`.
    pub(crate) fn decode(bytes: &[u8; BYTES], offset: u64) -> Self {
        let raw: RawHeader = read(bytes, 0).expect("as long as the structure");
        Self {
            offset,
            signature: raw.signature,
            checksum: raw.checksum.get(),
            computed_checksum: checksum(bytes, CHECKSUM_FIELD),
            sequence_number: raw.sequence_number.get(),
            file_write_guid: raw.file_write_guid.get(),
            data_write_guid: raw.data_write_guid.get(),
            log_guid: raw.log_guid.get(),
            log_version: raw.log_version.get(),
            version: raw.version.get(),
            log_length: raw.log_length.get(),
            log_offset: raw.log_offset.get(),
        }
    }

    /// True when signature and checksum are right.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.signature == SIGNATURE && self.checksum == self.computed_checksum
    }

    /// The log's place; `None` where its end does not fit 64 bits.
    pub(crate) fn log_range(&self) -> Option<ByteRange> {
        ByteRange::new(self.log_offset, u64::from(self.log_length))
    }

    fn field(
        &self,
        field: &'static str,
        found: impl std::fmt::Display,
        expected: &'static str,
    ) -> VhdxError {
        let found = found.to_string();
        VhdxError::Field {
            structure: "header",
            offset: self.offset,
            field,
            found,
            expected: expected.into(),
        }
    }

    /// What is wrong with this copy as the current header of a file `file_len` bytes long.
    pub(crate) fn problems(&self, file_len: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refused = |code, error| {
            problems.push(Problem::refused("header", code, "[MS-VHDX] 2.2.2", error));
        };
        if self.version != VERSION {
            let (offset, found) = (self.offset, self.version);
            let field = "Version";
            refused(
                "header-version",
                VhdxError::Version {
                    offset,
                    field,
                    found,
                    known: VERSION,
                },
            );
        }
        if self.log_version != LOG_VERSION && !self.log_guid.is_nil() {
            let (offset, found) = (self.offset, self.log_version);
            let (field, known) = ("LogVersion", LOG_VERSION);
            refused(
                "header-log-version",
                VhdxError::Version {
                    offset,
                    field,
                    found,
                    known,
                },
            );
        }
        if u64::from(self.log_length) % MIB != 0 {
            let error = self.field("LogLength", self.log_length, "a multiple of 1 MiB");
            refused("header-log-length", error);
        }
        if !self.log_offset.is_multiple_of(MIB) || self.log_offset < HEADER_SECTION_BYTES {
            let found = format!("{:#x}", self.log_offset);
            let error = self.field("LogOffset", found, "a multiple of 1 MiB, at least 1 MiB");
            refused("header-log-offset", error);
        }
        if self.log_range().is_none_or(|log| log.end() > file_len) {
            let found = format!("{:#x}, {} bytes long", self.log_offset, self.log_length);
            let error = self.field("LogOffset", found, "a log that ends inside the file");
            refused("header-log-outside-file", error);
        }
        if self.log_length == 0 && !self.log_guid.is_nil() {
            let error = self.field("LogLength", 0, "a log where LogGuid names one");
            refused("header-log-empty", error);
        }
        problems
    }
}

/// Both copies of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Headers {
    /// The copies at 64 KiB and at 128 KiB.
    pub copies: [HeaderCopy; 2],
    /// Which of them is current; `None` when neither is valid.
    pub current: Option<usize>,
}

impl Headers {
    /// Chooses between the two: the only valid one, or the one with the greater sequence number.
    /// Equal numbers do not occur in one history; either copy is then as good.
    pub(crate) fn choose(copies: [HeaderCopy; 2]) -> Self {
        let current = match copies.map(|copy| copy.is_valid()) {
            [true, true] => Some(usize::from(
                copies[1].sequence_number > copies[0].sequence_number,
            )),
            [true, false] => Some(0),
            [false, true] => Some(1),
            [false, false] => None,
        };
        Self { copies, current }
    }

    /// The current header.
    ///
    /// # Errors
    /// [`VhdxError::NoValidCopy`] when neither copy is valid.
    pub fn current(&self) -> Result<&HeaderCopy, VhdxError> {
        self.current
            .map(|at| &self.copies[at])
            .ok_or(VhdxError::NoValidCopy {
                structure: "header",
                offset: OFFSETS[0],
            })
    }

    /// What is wrong with the pair, apart from the fields of the current one.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Ok(current) = self.current() else {
            let structure = "header";
            let error = VhdxError::NoValidCopy {
                structure,
                offset: OFFSETS[0],
            };
            problems.push(Problem::refused(
                "header",
                "header-none-valid",
                "[MS-VHDX] 2.2.2",
                error,
            ));
            return problems;
        };
        for copy in self.copies.iter().filter(|copy| !copy.is_valid()) {
            let found = if copy.signature == SIGNATURE {
                format!("{:#010x}", copy.checksum)
            } else {
                format!("under signature \"{}\"", copy.signature.escape_ascii())
            };
            let error = copy.field("Checksum", found, "the CRC-32C of the copy");
            // One torn copy is what a crash in the middle of an update leaves.
            problems.push(Problem::note(
                "header",
                "header-copy-invalid",
                "[MS-VHDX] 2.2.2.1",
                error,
            ));
        }
        let [a, b] = &self.copies;
        if a.is_valid()
            && b.is_valid()
            && a.sequence_number == b.sequence_number
            && (
                a.file_write_guid,
                a.data_write_guid,
                a.log_guid,
                a.log_offset,
                a.log_length,
            ) != (
                b.file_write_guid,
                b.data_write_guid,
                b.log_guid,
                b.log_offset,
                b.log_length,
            )
        {
            let error = current.field(
                "SequenceNumber",
                format!("{} in both copies, which differ", a.sequence_number),
                "different numbers",
            );
            problems.push(Problem::warning(
                "header",
                "header-equal-sequence",
                "[MS-VHDX] 2.2.2",
                error,
            ));
        }
        problems
    }
}

/// The fields of a header to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderFields {
    pub(crate) sequence_number: u64,
    pub(crate) file_write_guid: Uuid,
    pub(crate) data_write_guid: Uuid,
    pub(crate) log_guid: Uuid,
    pub(crate) log_version: u16,
    pub(crate) version: u16,
    pub(crate) log_length: u32,
    pub(crate) log_offset: u64,
}

/// The bytes of a header, with its checksum.
pub(crate) fn encode(fields: &HeaderFields) -> [u8; BYTES] {
    use zerocopy::IntoBytes;
    let raw = RawHeader {
        signature: SIGNATURE,
        checksum: 0.into(),
        sequence_number: fields.sequence_number.into(),
        file_write_guid: fields.file_write_guid.into(),
        data_write_guid: fields.data_write_guid.into(),
        log_guid: fields.log_guid.into(),
        log_version: fields.log_version.into(),
        version: fields.version.into(),
        log_length: fields.log_length.into(),
        log_offset: fields.log_offset.into(),
        reserved: [0; 4016],
    };
    let mut bytes = [0; BYTES];
    bytes.copy_from_slice(raw.as_bytes());
    let sum = checksum(&bytes, CHECKSUM_FIELD);
    bytes[CHECKSUM_FIELD..CHECKSUM_FIELD + 4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The bytes of a header that follows `current` and says the same but for its sequence number, which
/// is `ahead` of it.
pub(crate) fn successor(current: &HeaderCopy, ahead: u64) -> [u8; BYTES] {
    encode(&HeaderFields {
        // 2^64 updates do not happen; a file that claims them starts over behind its own back.
        sequence_number: current.sequence_number.wrapping_add(ahead),
        file_write_guid: current.file_write_guid,
        data_write_guid: current.data_write_guid,
        log_guid: current.log_guid,
        log_version: current.log_version,
        version: current.version,
        log_length: current.log_length,
        log_offset: current.log_offset,
    })
}
