//! The parent locator: who the parent is, and where it may be ([MS-VHDX] §2.6.2.6).

use blockdev_core::{ContentId, FileName, FileRef, FileRole, NameKind};
use uuid::Uuid;

use super::parent_path::host_path;
use super::problem::Problem;
use crate::VhdxError;
use crate::known::VHDX_PARENT_LOCATOR;
use crate::ondisk::metadata_table::MAX_ITEM_BYTES;
use crate::ondisk::parent_locator::{RawLocatorEntry, RawLocatorHeader};
use crate::ondisk::read;

const SECTION: &str = "parent-locator";
const STRUCTURE: &str = "parent locator";
const ENTRIES: &str = "[MS-VHDX] 2.6.2.6.2";
const KEYS: &str = "[MS-VHDX] 2.6.2.6.3";

/// The path keys with the order in which they are tried.
const PATHS: [(&str, NameKind); 3] = [
    ("relative_path", NameKind::Relative),
    ("volume_path", NameKind::Volume),
    ("absolute_win32_path", NameKind::Absolute),
];

/// The parent locator, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentLocator {
    /// Where the item lies in the file.
    pub offset: u64,
    /// What sort of parent it is; see [`known`](crate::known).
    pub locator_type: Uuid,
    /// Keys and values in the order of the file. Keys are case-sensitive.
    pub entries: Vec<(String, String)>,
}

impl ParentLocator {
    /// Decodes the item `bytes` that lies at `offset` of the file.
    ///
    /// # Errors
    /// [`VhdxError::Field`] for places outside the item, for strings that are not UTF-16, and for
    /// more text than an item can hold.
    pub(crate) fn decode(bytes: &[u8], offset: u64) -> Result<Self, VhdxError> {
        let field = |field, found: String, expected: &'static str| VhdxError::Field {
            structure: STRUCTURE,
            offset,
            field,
            found,
            expected: expected.into(),
        };
        let header: RawLocatorHeader = read(bytes, 0).ok_or_else(|| {
            field(
                "Length",
                bytes.len().to_string(),
                "at least the 20 bytes of the header",
            )
        })?;
        let count = usize::from(header.key_value_count.get());
        let mut entries = Vec::new();
        // Entries may point at the same bytes: without a bound a forged item of 1 MiB would make
        // gigabytes of strings.
        let mut text_bytes = 0;
        for i in 0..count {
            let at = size_of::<RawLocatorHeader>() + i * size_of::<RawLocatorEntry>();
            let raw: RawLocatorEntry = read(bytes, at).ok_or_else(|| {
                field(
                    "KeyValueCount",
                    count.to_string(),
                    "no more entries than the item holds",
                )
            })?;
            text_bytes += usize::from(raw.key_length.get()) + usize::from(raw.value_length.get());
            if text_bytes > MAX_ITEM_BYTES as usize {
                let found = format!("of {text_bytes} bytes together");
                return Err(field(
                    "ValueLength",
                    found,
                    "no more text than an item holds",
                ));
            }
            let text = |name, start: u32, len: u16| {
                let start = start as usize;
                let len = usize::from(len);
                let part = start.checked_add(len).and_then(|end| bytes.get(start..end));
                let part = part
                    .filter(|_| start > 0 && len > 0 && len % 2 == 0)
                    .ok_or_else(|| {
                        let found = format!("at {start}, {len} bytes long");
                        field(name, found, "an even number of bytes inside the item")
                    })?;
                let units = part
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|unit| u16::from_le_bytes(*unit));
                char::decode_utf16(units)
                    .collect::<Result<String, _>>()
                    .map_err(|_| field(name, "not UTF-16".into(), "UTF-16LE text"))
            };
            let key = text("Key", raw.key_offset.get(), raw.key_length.get())?;
            let value = text("Value", raw.value_offset.get(), raw.value_length.get())?;
            entries.push((key, value));
        }
        Ok(Self {
            offset,
            locator_type: header.locator_type.get(),
            entries,
        })
    }

    /// The value of `key`, which is case-sensitive.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// The data-write GUIDs that the parent may have: parent_linkage, and parent_linkage2 where it
    /// is in use (a merge was under way). Letter case and braces do not matter.
    #[must_use]
    pub fn linkages(&self) -> Vec<Uuid> {
        let guid = |key| self.get(key).and_then(|value| Uuid::try_parse(value).ok());
        // Windows writes a nil linkage2 when there is none. A nil parent_linkage stays: without it
        // there would be nothing to compare, and any parent would do.
        let second = guid("parent_linkage2").filter(|guid| !guid.is_nil());
        guid("parent_linkage").into_iter().chain(second).collect()
    }

    /// The locator as a reference for whoever finds the parent.
    pub(crate) fn file_ref(&self, logical_sector_size: u32) -> FileRef {
        let names = PATHS
            .iter()
            .filter_map(|(key, kind)| {
                let stored = self.get(key)?;
                Some(FileName {
                    kind: *kind,
                    stored: stored.into(),
                    path: host_path(*kind, stored),
                })
            })
            .collect();
        FileRef {
            role: FileRole::Parent,
            names,
            format: Some("vhdx".into()),
            expected: self
                .linkages()
                .iter()
                .map(|guid| ContentId(*guid.as_bytes()))
                .collect(),
            logical_sector_size: Some(logical_sector_size),
        }
    }

    fn field(&self, field: &'static str, found: String, expected: &'static str) -> VhdxError {
        let (structure, offset) = (STRUCTURE, self.offset);
        VhdxError::Field {
            structure,
            offset,
            field,
            found,
            expected: expected.into(),
        }
    }

    /// What is wrong with the locator.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.locator_type != VHDX_PARENT_LOCATOR {
            let error = VhdxError::UnknownRequired {
                structure: STRUCTURE,
                offset: self.offset,
                guid: self.locator_type,
            };
            problems.push(Problem::refused(SECTION, "locator-type", KEYS, error));
            return problems;
        }
        let mut keys: Vec<_> = self.entries.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        for pair in keys.windows(2).filter(|pair| pair[0] == pair[1]) {
            let error = self.field("Key", format!("{:?} twice", pair[0]), "unique keys");
            problems.push(Problem::refused(
                SECTION,
                "locator-duplicate-key",
                ENTRIES,
                error,
            ));
        }
        for (key, value) in &self.entries {
            if key.contains('\0') || value.contains('\0') {
                let error = self.field("Value", format!("{value:?}"), "text without NUL");
                problems.push(Problem::warning(SECTION, "locator-nul", ENTRIES, error));
            }
        }
        match self.get("parent_linkage") {
            Some(linkage) if Uuid::try_parse(linkage).is_ok() => {}
            Some(linkage) => {
                let error = self.field("parent_linkage", format!("{linkage:?}"), "a GUID");
                problems.push(Problem::refused(SECTION, "locator-linkage", KEYS, error));
            }
            None => {
                let what = "parent_linkage".into();
                let error = VhdxError::Missing {
                    structure: STRUCTURE,
                    offset: self.offset,
                    what,
                };
                problems.push(Problem::refused(SECTION, "locator-linkage", KEYS, error));
            }
        }
        if PATHS.iter().all(|(key, _)| self.get(key).is_none()) {
            let what = "every path to the parent".into();
            let error = VhdxError::Missing {
                structure: STRUCTURE,
                offset: self.offset,
                what,
            };
            // The parent can still be handed over by the caller.
            problems.push(Problem::warning(SECTION, "locator-no-path", KEYS, error));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(entries: &[(&str, &str)]) -> ParentLocator {
        ParentLocator {
            offset: 0,
            locator_type: VHDX_PARENT_LOCATOR,
            entries: entries
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        }
    }

    const LINKAGE: &str = "{5E9B69E7-d1a9-4d4c-9893-977956436a04}";

    #[test]
    fn linkage_compares_by_value_and_a_nil_second_one_matches_nobody() {
        let nil = "{00000000-0000-0000-0000-000000000000}";
        let locator = locator(&[("parent_linkage", LINKAGE), ("parent_linkage2", nil)]);
        let reference = locator.file_ref(512);
        assert_eq!(reference.expected.len(), 1);
        assert_eq!(
            reference.expected[0].to_string(),
            "5e9b69e7-d1a9-4d4c-9893-977956436a04"
        );
    }

    #[test]
    fn paths_are_tried_relative_then_volume_then_absolute_whatever_their_order_in_the_file() {
        let reference = locator(&[
            ("absolute_win32_path", r"\\?\C:\base.vhdx"),
            ("parent_linkage", LINKAGE),
            ("relative_path", r".\base.vhdx"),
            (
                "volume_path",
                r"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx",
            ),
        ])
        .file_ref(512);
        let kinds: Vec<_> = reference.names.iter().map(|name| name.kind).collect();
        assert_eq!(
            kinds,
            [NameKind::Relative, NameKind::Volume, NameKind::Absolute]
        );
    }

    #[test]
    fn keys_are_case_sensitive_and_unique() {
        let upper = locator(&[("PARENT_LINKAGE", LINKAGE), ("relative_path", "x")]);
        assert!(upper.problems().iter().any(|p| p.code == "locator-linkage"));
        let twice = locator(&[("parent_linkage", LINKAGE), ("a", "1"), ("a", "2")]);
        assert!(
            twice
                .problems()
                .iter()
                .any(|p| p.code == "locator-duplicate-key")
        );
        let good = locator(&[("parent_linkage", LINKAGE), ("relative_path", "x")]);
        assert!(good.problems().is_empty());
    }

    #[test]
    fn places_outside_the_item_are_refused() {
        let mut item = vec![0u8; 40];
        item[18] = 1;
        for (key, value, key_len, value_len) in [
            (0, 34, 2, 2),
            (32, 40, 2, 2),
            (u32::MAX, 34, 2, 2),
            (32, 34, 0, 2),
            (32, 34, 2, 3),
        ] {
            item[20..24].copy_from_slice(&u32::to_le_bytes(key));
            item[24..28].copy_from_slice(&u32::to_le_bytes(value));
            item[28..30].copy_from_slice(&u16::to_le_bytes(key_len));
            item[30..32].copy_from_slice(&u16::to_le_bytes(value_len));
            assert!(ParentLocator::decode(&item, 0).is_err(), "{key} {value}");
        }
        item[18] = 2;
        assert!(
            ParentLocator::decode(&item, 0).is_err(),
            "two entries do not fit"
        );
        assert!(
            ParentLocator::decode(&item[..19], 0).is_err(),
            "no whole header"
        );
    }
}
