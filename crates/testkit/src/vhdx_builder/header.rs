//! File type identifier and headers ([MS-VHDX] §2.2.1, §2.2.2).

use uuid::Uuid;

use super::bytes::{put, seal, utf16_le};
use super::damage::Damage;

const HEADER_LEN: usize = 4 << 10;
const CREATOR_LEN: usize = 512;

/// Where one header copy differs from what the builder's settings give.
///
/// `None` takes the builder's value. Raw numbers are stored as they are, valid or not.
#[derive(Clone, Debug, Default)]
pub struct HeaderCopy {
    /// SequenceNumber; 1 in the first and 2 in the second slot by default.
    pub sequence: Option<u64>,
    /// FileWriteGuid.
    pub file_write_guid: Option<Uuid>,
    /// DataWriteGuid.
    pub data_write_guid: Option<Uuid>,
    /// LogGuid.
    pub log_guid: Option<Uuid>,
    /// LogVersion.
    pub log_version: Option<u16>,
    /// Version.
    pub version: Option<u16>,
    /// LogLength in bytes. The log itself stays where the builder puts it.
    pub log_length: Option<u32>,
    /// LogOffset in bytes. The log itself stays where the builder puts it.
    pub log_offset: Option<u64>,
    /// What happened to this copy after it was made.
    pub damage: Option<Damage>,
}

/// A header with nothing left open.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderFields {
    pub(super) sequence: u64,
    pub(super) file_write_guid: Uuid,
    pub(super) data_write_guid: Uuid,
    pub(super) log_guid: Uuid,
    pub(super) log_version: u16,
    pub(super) version: u16,
    pub(super) log_length: u32,
    pub(super) log_offset: u64,
}

impl HeaderCopy {
    /// The 4 KiB of this copy, over the builder's `base`.
    pub(super) fn encode(&self, base: &HeaderFields) -> Vec<u8> {
        let mut out = vec![0; HEADER_LEN];
        let file_write = self.file_write_guid.unwrap_or(base.file_write_guid);
        let data_write = self.data_write_guid.unwrap_or(base.data_write_guid);
        let log = self.log_guid.unwrap_or(base.log_guid);
        put(&mut out, 0, b"head");
        put(
            &mut out,
            8,
            &self.sequence.unwrap_or(base.sequence).to_le_bytes(),
        );
        put(&mut out, 16, &file_write.to_bytes_le());
        put(&mut out, 32, &data_write.to_bytes_le());
        put(&mut out, 48, &log.to_bytes_le());
        put(
            &mut out,
            64,
            &self.log_version.unwrap_or(base.log_version).to_le_bytes(),
        );
        put(
            &mut out,
            66,
            &self.version.unwrap_or(base.version).to_le_bytes(),
        );
        put(
            &mut out,
            68,
            &self.log_length.unwrap_or(base.log_length).to_le_bytes(),
        );
        put(
            &mut out,
            72,
            &self.log_offset.unwrap_or(base.log_offset).to_le_bytes(),
        );
        seal(&mut out);
        if let Some(damage) = self.damage {
            damage.apply(&mut out);
        }
        out
    }
}

/// Signature and creator; a creator beyond 256 UTF-16 units is cut.
pub(super) fn encode_file_identifier(creator: &str) -> Vec<u8> {
    let mut out = b"vhdxfile".to_vec();
    let units: Vec<u16> = creator.encode_utf16().take(CREATOR_LEN / 2).collect();
    out.extend(utf16_le(&units));
    out.resize(8 + CREATOR_LEN, 0);
    out
}
