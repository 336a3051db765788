//! The GUIDs that [MS-VHDX] defines, and the builder's own fixed ones.

use uuid::Uuid;

/// The BAT region (§2.2.3.2).
pub const BAT_REGION: Uuid = Uuid::from_u128(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
/// The metadata region (§2.2.3.2).
pub const METADATA_REGION: Uuid = Uuid::from_u128(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);

/// The File Parameters item (§2.6.2.1).
pub const FILE_PARAMETERS: Uuid = Uuid::from_u128(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
/// The Virtual Disk Size item (§2.6.2.2).
pub const VIRTUAL_DISK_SIZE: Uuid = Uuid::from_u128(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
/// The Virtual Disk ID item (§2.6.2.3).
pub const VIRTUAL_DISK_ID: Uuid = Uuid::from_u128(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
/// The Logical Sector Size item (§2.6.2.4).
pub const LOGICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
/// The Physical Sector Size item (§2.6.2.5).
pub const PHYSICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0xCDA348C7_445D_4471_9CC9_E9885251C556);
/// The Parent Locator item (§2.6.2.6).
pub const PARENT_LOCATOR: Uuid = Uuid::from_u128(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);

/// The type of a parent locator that names a VHDX file (§2.6.2.6.3).
pub const VHDX_LOCATOR_TYPE: Uuid = Uuid::from_u128(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);

/// FileWriteGuid unless [`file_write_guid`](super::VhdxBuilder::file_write_guid) says otherwise.
pub const DEFAULT_FILE_WRITE: Uuid = Uuid::from_u128(0xF11E0001_0000_4000_8000_000000000001);
/// DataWriteGuid unless [`data_write_guid`](super::VhdxBuilder::data_write_guid) says otherwise.
pub const DEFAULT_DATA_WRITE: Uuid = Uuid::from_u128(0xDA7A0001_0000_4000_8000_000000000001);
/// VirtualDiskId unless [`virtual_disk_id`](super::VhdxBuilder::virtual_disk_id) says otherwise.
pub const DEFAULT_DISK_ID: Uuid = Uuid::from_u128(0xD15C0001_0000_4000_8000_000000000001);
/// LogGuid of log entries, and of the headers when there is a log to replay.
pub const DEFAULT_LOG: Uuid = Uuid::from_u128(0x10600001_0000_4000_8000_000000000001);
