//! GUIDs: 16 bytes, the first three fields little-endian, as Microsoft stores them.

use uuid::Uuid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID as it lies in the file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub(crate) struct GuidBytes(pub(crate) [u8; 16]);

impl GuidBytes {
    pub(crate) fn get(self) -> Uuid {
        Uuid::from_bytes_le(self.0)
    }
}

impl From<Uuid> for GuidBytes {
    fn from(guid: Uuid) -> Self {
        Self(guid.to_bytes_le())
    }
}

/// The GUIDs that [MS-VHDX] names, and one of this library's own.
pub mod known {
    use uuid::Uuid;

    /// Region that holds the block allocation table (§2.2.3.2).
    pub const BAT_REGION: Uuid = Uuid::from_u128(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
    /// Region that holds the metadata (§2.2.3.2).
    pub const METADATA_REGION: Uuid = Uuid::from_u128(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);

    /// Metadata item: block size and flags (§2.6.2.1).
    pub const FILE_PARAMETERS: Uuid = Uuid::from_u128(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
    /// Metadata item: size of the virtual disk (§2.6.2.2).
    pub const VIRTUAL_DISK_SIZE: Uuid = Uuid::from_u128(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
    /// Metadata item: identity of the virtual disk (§2.6.2.3).
    pub const VIRTUAL_DISK_ID: Uuid = Uuid::from_u128(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
    /// Metadata item: logical sector size (§2.6.2.4).
    pub const LOGICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
    /// Metadata item: physical sector size (§2.6.2.5).
    pub const PHYSICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0xCDA348C7_445D_4471_9CC9_E9885251C556);
    /// Metadata item: where the parent is (§2.6.2.6).
    pub const PARENT_LOCATOR: Uuid = Uuid::from_u128(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);

    /// Parent locator type: another VHDX file (§2.6.2.6.3).
    pub const VHDX_PARENT_LOCATOR: Uuid = Uuid::from_u128(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);
    /// Parent locator type: a file of another format. It is this library's own and not in
    /// [MS-VHDX], which lets implementations add types and has each refuse those it does not know
    /// (§2.6.2.6.1), so that no other reader takes the parent for a VHDX.
    ///
    /// | key | value |
    /// | --- | --- |
    /// | `parent_linkage` | [`file_fingerprint`](blockdev_core::file_fingerprint) of the parent, as a GUID in braces |
    /// | `parent_format` | name of its format: `raw`, `qcow2`; never `vhdx` |
    /// | `relative_path` | its path from the child's directory, with `\` between names |
    /// | `absolute_path` | its path from the root of the file system |
    /// | `parent_changing` | `merge` while the child is merged into its parent, whose fingerprint changes all along; the linkage is not compared then |
    ///
    /// The linkage and the format must be there, and one of the paths should; they are tried in this
    /// order. All else is as in a locator of the VHDX type.
    pub const OTHER_PARENT_LOCATOR: Uuid = Uuid::from_u128(0xA93DAD8D_2EF0_462F_8BB6_EA946BA2D5CB);

    /// The name of a region this library knows.
    #[must_use]
    pub fn region_name(guid: Uuid) -> Option<&'static str> {
        match guid {
            BAT_REGION => Some("BAT"),
            METADATA_REGION => Some("Metadata"),
            _ => None,
        }
    }

    /// The name of a metadata item this library knows.
    #[must_use]
    pub fn item_name(guid: Uuid) -> Option<&'static str> {
        match guid {
            FILE_PARAMETERS => Some("File Parameters"),
            VIRTUAL_DISK_SIZE => Some("Virtual Disk Size"),
            VIRTUAL_DISK_ID => Some("Virtual Disk ID"),
            LOGICAL_SECTOR_SIZE => Some("Logical Sector Size"),
            PHYSICAL_SECTOR_SIZE => Some("Physical Sector Size"),
            PARENT_LOCATOR => Some("Parent Locator"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_in_microsofts_field_order() {
        // The region GUID as every VHDX file holds it.
        let stored = GuidBytes([
            0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD,
            0x4A, 0x08,
        ]);
        assert_eq!(stored.get(), known::BAT_REGION);
        assert_eq!(GuidBytes::from(known::BAT_REGION), stored);
    }
}
