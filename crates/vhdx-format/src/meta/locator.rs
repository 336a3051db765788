//! The parent locator: who the parent is, and where it may be ([MS-VHDX] §2.6.2.6).

use blockdev_core::{ContentId, FileName, FileRef, FileRole, NameKind};
use uuid::Uuid;

use zerocopy::IntoBytes;

use super::parent_path::host_path;
use super::problem::{Effect, Problem};
use crate::known::{OTHER_PARENT_LOCATOR, VHDX_PARENT_LOCATOR};
use crate::ondisk::metadata_table::MAX_ITEM_BYTES;
use crate::ondisk::parent_locator::{RawLocatorEntry, RawLocatorHeader};
use crate::ondisk::read;
use crate::{FORMAT_NAME, Linkage, ParentFormat, ParentLink, VhdxError};

const SECTION: &str = "parent-locator";
const STRUCTURE: &str = "parent locator";
const ENTRIES: &str = "[MS-VHDX] 2.6.2.6.2";
const KEYS: &str = "[MS-VHDX] 2.6.2.6.3";

/// Code of the note that the parent is no VHDX.
const EXTENSION: &str = "locator-extension";

/// Most UTF-16 units of a value: its length in bytes has 16 bits (§2.6.2.6.2).
const MAX_VALUE_UNITS: usize = u16::MAX as usize / 2;

/// Key of the parent's identity.
const LINKAGE: &str = "parent_linkage";

/// Key of the identity that the parent has or is about to have, while it is merged into.
const LINKAGE2: &str = "parent_linkage2";

/// Key of the parent's format, where that is another one.
const FORMAT: &str = "parent_format";

/// Key that says, of a parent of another format, that its content is changing: what else is said of its
/// identity does not hold meanwhile.
const CHANGING: &str = "parent_changing";

/// Code of the note that it does.
const IS_CHANGING: &str = "locator-parent-changing";

/// Keys of paths, in the order in which they are tried.
type Paths = &'static [(&'static str, NameKind)];

/// Those of a VHDX (§2.6.2.6.3).
const VHDX_PATHS: Paths = &[
    ("relative_path", NameKind::Relative),
    ("volume_path", NameKind::Volume),
    ("absolute_win32_path", NameKind::Absolute),
];

/// Those of a file of another format.
const OTHER_PATHS: Paths = &[
    ("relative_path", NameKind::Relative),
    ("absolute_path", NameKind::Absolute),
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
    /// is in use (a merge was under way). Letter case and braces do not matter. None where the content
    /// of a parent of another format is said to be changing.
    #[must_use]
    pub fn linkages(&self) -> Vec<Uuid> {
        if self.is_parent_changing() {
            return Vec::new();
        }
        let guid = |key| self.get(key).and_then(|value| Uuid::try_parse(value).ok());
        // Windows writes a nil linkage2 when there is none. A nil parent_linkage stays: without it
        // there would be nothing to compare, and any parent would do.
        let second = guid(LINKAGE2).filter(|guid| !guid.is_nil());
        guid(LINKAGE).into_iter().chain(second).collect()
    }

    fn is_parent_changing(&self) -> bool {
        self.locator_type == OTHER_PARENT_LOCATOR && self.get(CHANGING).is_some()
    }

    /// The same locator with another word on the parent's identity.
    ///
    /// # Errors
    /// [`VhdxError::Field`] for what a locator of this type cannot say.
    pub(crate) fn linked(&self, linkage: Linkage) -> Result<Self, VhdxError> {
        let mut new = self.clone();
        new.entries
            .retain(|(key, _)| key != CHANGING && key != LINKAGE2);
        let is_other = self.locator_type == OTHER_PARENT_LOCATOR;
        let (first, more) = match linkage {
            Linkage::Is(guid) => (Some(guid), None),
            Linkage::Becomes { from, to } if !is_other => {
                (Some(from), Some((LINKAGE2, to.braced().to_string())))
            }
            Linkage::Changing if is_other => (None, Some((CHANGING, "merge".into()))),
            other => {
                let expected = "an identity that a parent of this format can have";
                return Err(self.field(LINKAGE, format!("{other:?}"), expected));
            }
        };
        if let Some(guid) = first {
            let place = new.entries.iter_mut().find(|(key, _)| key == LINKAGE);
            let (_, value) = place
                .ok_or_else(|| self.field(LINKAGE, "nothing".into(), "the parent's identity"))?;
            *value = guid.braced().to_string();
        }
        new.entries
            .extend(more.map(|(key, value)| (key.to_string(), value)));
        Ok(new)
    }

    /// The locator that tells of `link`, for a new image.
    ///
    /// # Errors
    /// [`VhdxError::Field`] and [`VhdxError::Missing`] for what a locator cannot say, or must not.
    pub(crate) fn of_link(link: &ParentLink) -> Result<Self, VhdxError> {
        let paths = &link.paths;
        let (locator_type, absolute) = match &link.format {
            ParentFormat::Vhdx => (VHDX_PARENT_LOCATOR, "absolute_win32_path"),
            ParentFormat::Other(_) => (OTHER_PARENT_LOCATOR, "absolute_path"),
        };
        let mut entries = vec![(LINKAGE.into(), link.linkage.braced().to_string())];
        if let ParentFormat::Other(name) = &link.format {
            entries.push((FORMAT.into(), name.clone()));
        }
        for (key, path) in [
            ("relative_path", &paths.relative),
            ("volume_path", &paths.volume),
            (absolute, &paths.absolute),
        ] {
            entries.extend(path.iter().map(|path| (key.to_string(), path.clone())));
        }
        let locator = Self {
            offset: 0,
            locator_type,
            entries,
        };
        for (key, value) in &locator.entries {
            let units = value.encode_utf16().count();
            let expected = "1 to 32767 UTF-16 units, none of them NUL";
            if units == 0 || units > MAX_VALUE_UNITS || value.contains('\0') {
                let found = format!("{key:?} of {units} units");
                return Err(locator.field("Value", found, expected));
            }
        }
        if paths.volume.is_some() && link.format != ParentFormat::Vhdx {
            let expected = "left out for a parent that is no VHDX";
            return Err(locator.field("volume_path", "given".into(), expected));
        }
        let refused = locator.problems().into_iter();
        match refused
            .filter(|problem| problem.code != EXTENSION)
            .map(|problem| problem.error)
            .next()
        {
            Some(error) => Err(error),
            None => Ok(locator),
        }
    }

    /// Takes over the keys of `old` that mean nothing to this library.
    pub(crate) fn keep_unknown_of(&mut self, old: &Self) {
        let known = [LINKAGE, LINKAGE2, FORMAT, CHANGING].into_iter();
        let paths = VHDX_PATHS.iter().chain(OTHER_PATHS).map(|(key, _)| *key);
        let known: Vec<&str> = known.chain(paths).collect();
        let unknown = old
            .entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()));
        self.entries.extend(unknown.cloned());
    }

    /// The item's bytes: header, entries, then each key followed by its value. Keys and values are
    /// not longer than an entry can say.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.entries.len()).expect("a handful of keys");
        let mut table = RawLocatorHeader {
            locator_type: self.locator_type.into(),
            reserved: 0.into(),
            key_value_count: count.into(),
        }
        .as_bytes()
        .to_vec();
        let start = table.len() + self.entries.len() * size_of::<RawLocatorEntry>();
        let mut texts: Vec<u8> = Vec::new();
        for (key, value) in &self.entries {
            let mut text = |text: &str| {
                let at = u32::try_from(start + texts.len()).expect("a few texts of 64 KiB");
                let before = texts.len();
                texts.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                let len = u16::try_from(texts.len() - before).expect("as long as may be");
                (at, len)
            };
            let (key_offset, key_length) = text(key);
            let (value_offset, value_length) = text(value);
            let entry = RawLocatorEntry {
                key_offset: key_offset.into(),
                value_offset: value_offset.into(),
                key_length: key_length.into(),
                value_length: value_length.into(),
            };
            table.extend_from_slice(entry.as_bytes());
        }
        table.extend(texts);
        table
    }

    /// The parent's format as the locator declares it.
    fn format(&self) -> Option<&str> {
        if self.locator_type == OTHER_PARENT_LOCATOR {
            self.get(FORMAT)
        } else {
            Some(FORMAT_NAME)
        }
    }

    fn paths(&self) -> Paths {
        if self.locator_type == OTHER_PARENT_LOCATOR {
            OTHER_PATHS
        } else {
            VHDX_PATHS
        }
    }

    /// The locator as a reference for whoever finds the parent.
    pub(crate) fn file_ref(&self, logical_sector_size: u32) -> FileRef {
        let names = self
            .paths()
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
            format: self.format().map(Into::into),
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
        if self.locator_type == OTHER_PARENT_LOCATOR {
            let error = VhdxError::Extension {
                structure: STRUCTURE,
                offset: self.offset,
                what: "a parent that is no VHDX",
            };
            let note = Problem::note(SECTION, EXTENSION, KEYS, error);
            problems.push(note.with_effect(Effect::RefusedIfStrict));
            problems.extend(self.format_problem());
            if self.is_parent_changing() {
                let expected = "left out, unless a merge into the parent was interrupted";
                let error = self.field(CHANGING, "there".into(), expected);
                problems.push(Problem::warning(SECTION, IS_CHANGING, KEYS, error));
            }
        } else if self.locator_type != VHDX_PARENT_LOCATOR {
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
        match self.get(LINKAGE) {
            Some(linkage) if Uuid::try_parse(linkage).is_ok() => {}
            Some(linkage) => {
                let error = self.field(LINKAGE, format!("{linkage:?}"), "a GUID");
                problems.push(Problem::refused(SECTION, "locator-linkage", KEYS, error));
            }
            None => {
                let what = LINKAGE.into();
                let error = VhdxError::Missing {
                    structure: STRUCTURE,
                    offset: self.offset,
                    what,
                };
                problems.push(Problem::refused(SECTION, "locator-linkage", KEYS, error));
            }
        }
        if self.paths().iter().all(|(key, _)| self.get(key).is_none()) {
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

    /// What is wrong with the format that a locator of a parent of another format declares.
    fn format_problem(&self) -> Option<Problem> {
        let error = match self.get(FORMAT) {
            None => VhdxError::Missing {
                structure: STRUCTURE,
                offset: self.offset,
                what: FORMAT.into(),
            },
            // It would be read without what a VHDX parent is checked by.
            Some(FORMAT_NAME) => {
                let expected = "a format that has no locator type of its own";
                self.field(FORMAT, FORMAT_NAME.into(), expected)
            }
            Some(_) => return None,
        };
        Some(Problem::refused(SECTION, "locator-format", KEYS, error))
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
    fn a_parent_that_is_merged_into_is_known_by_what_it_was_and_by_what_it_becomes() {
        let locator = locator(&[
            ("parent_linkage", LINKAGE),
            ("relative_path", "p"),
            ("x", "y"),
        ]);
        let (from, to) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let during = locator.linked(Linkage::Becomes { from, to }).unwrap();
        assert_eq!(during.linkages(), [from, to]);
        let after = during.linked(Linkage::Is(to)).unwrap();
        assert_eq!(after.linkages(), [to]);
        assert_eq!(after.get("parent_linkage2"), None);
        assert_eq!(
            (after.get("relative_path"), after.get("x")),
            (Some("p"), Some("y"))
        );
        assert!(
            locator.linked(Linkage::Changing).is_err(),
            "a VHDX has identities"
        );
    }

    #[test]
    fn a_parent_of_another_format_that_is_merged_into_may_be_any() {
        let mut locator = locator(&[
            ("parent_linkage", LINKAGE),
            ("parent_format", "raw"),
            ("relative_path", "p"),
        ]);
        locator.locator_type = OTHER_PARENT_LOCATOR;
        let during = locator.linked(Linkage::Changing).unwrap();
        assert!(during.file_ref(512).expected.is_empty());
        let codes: Vec<_> = during.problems().iter().map(|p| p.code).collect();
        assert_eq!(codes, [EXTENSION, IS_CHANGING]);
        let after = during.linked(Linkage::Is(Uuid::from_u128(3))).unwrap();
        assert_eq!(after.linkages(), [Uuid::from_u128(3)]);
        let two = Linkage::Becomes {
            from: Uuid::nil(),
            to: Uuid::nil(),
        };
        assert!(
            locator.linked(two).is_err(),
            "a fingerprint is not foreseen"
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
