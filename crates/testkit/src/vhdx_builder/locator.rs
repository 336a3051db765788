//! Parent locator item ([MS-VHDX] §2.6.2.6).

use uuid::Uuid;

use super::bytes::{put, to_u32, utf16_le};
use super::ids::VHDX_LOCATOR_TYPE;

const HEADER_LEN: usize = 20;
const ENTRY_LEN: usize = 12;

/// Key-value pairs that name a parent, in the order in which they were added.
///
/// Nothing is checked: keys may repeat, be empty or be missing.
#[derive(Clone, Debug)]
pub struct ParentLocator {
    locator_type: Uuid,
    pairs: Vec<(Vec<u16>, Vec<u16>)>,
    raw: Option<Vec<u8>>,
}

impl Default for ParentLocator {
    fn default() -> Self {
        Self::new()
    }
}

impl ParentLocator {
    /// A locator of the VHDX type without pairs.
    pub fn new() -> Self {
        Self {
            locator_type: VHDX_LOCATOR_TYPE,
            pairs: Vec::new(),
            raw: None,
        }
    }

    /// The usual locator: `parent_linkage` and `relative_path`.
    pub fn relative(parent_data_write_guid: Uuid, path: &str) -> Self {
        Self::new()
            .linkage(parent_data_write_guid)
            .relative_path(path)
    }

    /// An item of exactly these bytes.
    pub fn from_raw(bytes: Vec<u8>) -> Self {
        Self {
            raw: Some(bytes),
            ..Self::new()
        }
    }

    /// LocatorType.
    pub fn locator_type(mut self, guid: Uuid) -> Self {
        self.locator_type = guid;
        self
    }

    /// Appends a pair.
    pub fn pair(self, key: &str, value: &str) -> Self {
        self.pair_utf16(key.encode_utf16().collect(), value.encode_utf16().collect())
    }

    /// Appends a pair of raw UTF-16 units, which may be no text at all.
    pub fn pair_utf16(mut self, key: Vec<u16>, value: Vec<u16>) -> Self {
        self.pairs.push((key, value));
        self
    }

    /// Appends `parent_linkage`, in braces and lower case (§2.6.2.6.3).
    pub fn linkage(self, guid: Uuid) -> Self {
        self.pair("parent_linkage", &guid.braced().to_string())
    }

    /// Appends `parent_linkage2`, in braces and lower case (§2.6.2.6.3).
    pub fn linkage2(self, guid: Uuid) -> Self {
        self.pair("parent_linkage2", &guid.braced().to_string())
    }

    /// Appends `relative_path`.
    pub fn relative_path(self, path: &str) -> Self {
        self.pair("relative_path", path)
    }

    /// Appends `volume_path`.
    pub fn volume_path(self, path: &str) -> Self {
        self.pair("volume_path", path)
    }

    /// Appends `absolute_win32_path`.
    pub fn absolute_win32_path(self, path: &str) -> Self {
        self.pair("absolute_win32_path", path)
    }

    /// The bytes of the item: header, entry table, then each key followed by its value.
    pub fn encode(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let count = u16::try_from(self.pairs.len()).expect("KeyValueCount has 16 bits");
        let mut out = vec![0; HEADER_LEN + ENTRY_LEN * self.pairs.len()];
        put(&mut out, 0, &self.locator_type.to_bytes_le());
        put(&mut out, 18, &count.to_le_bytes());
        for (i, (key, value)) in self.pairs.iter().enumerate() {
            let entry = HEADER_LEN + ENTRY_LEN * i;
            for (units, offset_at, length_at) in [(key, 0, 8), (value, 4, 10)] {
                let bytes = utf16_le(units);
                let length = u16::try_from(bytes.len()).expect("KeyLength has 16 bits");
                let offset = to_u32(out.len() as u64);
                put(&mut out, entry + offset_at, &offset.to_le_bytes());
                put(&mut out, entry + length_at, &length.to_le_bytes());
                out.extend(bytes);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_utf16_without_terminator() {
        let guid = Uuid::from_u128(0x83ED0EC3_24C8_49A6_A959_5E4BF1288BFB);
        let item = ParentLocator::relative(guid, r"..\p.vhdx").encode();
        assert_eq!(item[..4], [0xB7, 0xEF, 0x4A, 0xB0]);
        assert_eq!(item[16..20], [0, 0, 2, 0]);
        // First entry: the key follows the two entries, the value follows the key.
        assert_eq!(item[20..32], [44, 0, 0, 0, 72, 0, 0, 0, 28, 0, 76, 0]);
        assert_eq!(item[44..48], *b"p\0a\0");
        assert_eq!(item[72..78], *b"{\x008\x003\0");
        assert_eq!(item[item.len() - 4..], *b"d\0x\0");
    }
}
