//! Header extensions: known ones decoded, unknown ones kept (qcow2 specification, "Header
//! extensions").

use crate::Qcow2Error;
use crate::ondisk::extension::{
    BACKING_FORMAT, BITMAPS, END, EXTERNAL_DATA_FILE, FEATURE_NAMES, FULL_DISK_ENCRYPTION,
    RawBitmapsExtension, RawExtension, RawFeatureName,
};
use crate::ondisk::read;

/// One name out of the feature name table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub kind: u8,
    /// Number of the bit.
    pub bit: u8,
    /// The name.
    pub name: String,
}

/// Where the bitmap directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BitmapsExtension {
    /// Number of bitmaps.
    pub nb_bitmaps: u32,
    /// Length of the directory in bytes.
    pub directory_size: u64,
    /// Where it lies.
    pub directory_offset: u64,
}

/// An extension that this library does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownExtension {
    /// Its type.
    pub kind: u32,
    /// Its data.
    pub data: Vec<u8>,
}

/// All extensions of a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extensions {
    /// Format of the backing file.
    pub backing_format: Option<String>,
    /// Names of feature bits.
    pub feature_names: Vec<FeatureName>,
    /// Name of the external data file.
    pub data_file: Option<String>,
    /// Where the bitmap directory lies.
    pub bitmaps: Option<BitmapsExtension>,
    /// The image has an encryption header.
    pub has_encryption_header: bool,
    /// Those that are not known, in their order.
    pub unknown: Vec<UnknownExtension>,
}

impl Extensions {
    /// Decodes the extensions in `area`, which lies at byte `offset` of the file.
    ///
    /// # Errors
    /// [`Qcow2Error::Field`] for one that reaches past the area or is malformed.
    pub(crate) fn decode(area: &[u8], offset: u64) -> Result<Self, Qcow2Error> {
        let mut found = Self::default();
        let mut at = 0;
        while let Some(head) = read::<RawExtension>(area, at) {
            let (kind, length) = (head.kind.get(), head.length.get());
            if kind == END {
                break;
            }
            let start = at + size_of::<RawExtension>();
            let place = offset + at as u64;
            let field = |field, found: String, expected: &'static str| Qcow2Error::Field {
                structure: "header extension",
                offset: place,
                field,
                found,
                expected: expected.into(),
            };
            let data = usize::try_from(length)
                .ok()
                .and_then(|length| area.get(start..start.checked_add(length)?))
                .ok_or_else(|| field("length", length.to_string(), "data in the first cluster"))?;
            let text = |name| {
                let text = std::str::from_utf8(data)
                    .ok()
                    .filter(|text| !text.contains('\0'));
                text.map(String::from).ok_or_else(|| {
                    field(
                        name,
                        format!("\"{}\"", data.escape_ascii()),
                        "UTF-8 text without NUL",
                    )
                })
            };
            match kind {
                BACKING_FORMAT => found.backing_format = Some(text("backing format")?),
                EXTERNAL_DATA_FILE => found.data_file = Some(text("data file name")?),
                FEATURE_NAMES => found.feature_names = feature_names(data),
                BITMAPS => {
                    let raw: RawBitmapsExtension = read(data, 0).ok_or_else(|| {
                        field("length", length.to_string(), "24 for the bitmaps extension")
                    })?;
                    found.bitmaps = Some(BitmapsExtension {
                        nb_bitmaps: raw.nb_bitmaps.get(),
                        directory_size: raw.directory_size.get(),
                        directory_offset: raw.directory_offset.get(),
                    });
                }
                FULL_DISK_ENCRYPTION => found.has_encryption_header = true,
                kind => found.unknown.push(UnknownExtension {
                    kind,
                    data: data.to_vec(),
                }),
            }
            at = (start + data.len()).next_multiple_of(8);
        }
        Ok(found)
    }

    /// The name that the image gives to incompatible feature `bit`.
    pub(crate) fn incompatible_name(&self, bit: u32) -> Option<&str> {
        let mut names = self.feature_names.iter();
        let found = names.find(|name| name.kind == 0 && u32::from(name.bit) == bit)?;
        Some(&found.name)
    }
}

fn feature_names(data: &[u8]) -> Vec<FeatureName> {
    data.chunks_exact(size_of::<RawFeatureName>())
        .filter_map(|entry| read::<RawFeatureName>(entry, 0))
        .map(|raw| {
            let end = raw
                .name
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(raw.name.len());
            let name = String::from_utf8_lossy(&raw.name[..end]).into_owned();
            FeatureName {
                kind: raw.kind,
                bit: raw.bit,
                name,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn known_ones_are_decoded_and_unknown_ones_kept_in_order() {
        let area = [
            extension(BACKING_FORMAT, b"raw"),
            extension(7, b"seven"),
            extension(5, b""),
            extension(END, b""),
            extension(9, b"behind the end"),
        ]
        .concat();
        let found = Extensions::decode(&area, 112).unwrap();
        assert_eq!(found.backing_format.as_deref(), Some("raw"));
        let kinds: Vec<_> = found
            .unknown
            .iter()
            .map(|e| (e.kind, e.data.len()))
            .collect();
        assert_eq!(kinds, [(7, 5), (5, 0)]);
    }

    #[test]
    fn one_that_claims_more_than_the_cluster_is_refused() {
        let mut area = extension(7, b"seven");
        area[4..8].copy_from_slice(&0xFFFF_FF00u32.to_be_bytes());
        assert!(Extensions::decode(&area, 112).is_err());
        assert!(Extensions::decode(&extension(BITMAPS, &[0; 23]), 0).is_err());
        assert!(Extensions::decode(&extension(BACKING_FORMAT, b"\xff"), 0).is_err());
        assert_eq!(
            Extensions::decode(&[1, 2, 3], 0).unwrap(),
            Extensions::default()
        );
    }
}
