//! Metadata table and items ([MS-VHDX] §2.6).

use uuid::Uuid;

use super::builder::VhdxBuilder;
use super::bytes::{put, to_u32};
use super::ids;

const TABLE_LEN: u32 = 64 << 10;

/// A metadata item and its flags.
#[derive(Clone, Debug)]
pub struct MetadataItem {
    /// ItemId.
    pub id: Uuid,
    /// IsUser: user metadata, else system metadata.
    pub is_user: bool,
    /// IsVirtualDisk: belongs to the disk, copied to a new child.
    pub is_virtual_disk: bool,
    /// IsRequired: who does not know the item has to refuse the file.
    pub is_required: bool,
    /// The item's bytes; an empty item is stored with offset and length 0.
    pub data: Vec<u8>,
    /// Offset from the start of the region, or `None` for a place after the items before it.
    /// Items with an offset of their own are not looked at for that.
    pub offset: Option<u32>,
}

impl MetadataItem {
    /// A system item that belongs to the file.
    pub fn system(id: Uuid, data: Vec<u8>) -> Self {
        Self {
            id,
            is_user: false,
            is_virtual_disk: false,
            is_required: false,
            data,
            offset: None,
        }
    }

    /// A user item that belongs to the file.
    pub fn user(id: Uuid, data: Vec<u8>) -> Self {
        Self {
            is_user: true,
            ..Self::system(id, data)
        }
    }

    /// The same, required.
    pub fn required(self) -> Self {
        Self {
            is_required: true,
            ..self
        }
    }

    /// The same, belonging to the virtual disk.
    pub fn virtual_disk(self) -> Self {
        Self {
            is_virtual_disk: true,
            ..self
        }
    }

    /// The same, at `offset` bytes from the start of the region.
    pub fn at(self, offset: u32) -> Self {
        Self {
            offset: Some(offset),
            ..self
        }
    }
}

/// How items without an offset of their own are laid out. The table keeps the items' order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ItemPlacement {
    /// In table order, each at a multiple of 8.
    #[default]
    Packed,
    /// In table order, each at an odd offset.
    Unaligned,
    /// In reverse table order, each at an odd offset.
    Reversed,
}

/// One entry of the metadata table, stored as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataEntry {
    /// ItemId.
    pub id: Uuid,
    /// Offset from the start of the region in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
    /// Bit 0 IsUser, bit 1 IsVirtualDisk, bit 2 IsRequired, the rest reserved.
    pub flags: u32,
}

/// A change to the list of metadata items, applied in the order it was asked for.
#[derive(Clone, Debug)]
pub(super) enum ItemChange {
    Put(MetadataItem),
    Remove(Uuid),
}

impl VhdxBuilder {
    /// The known items (§2.6.2), with the changes that were asked for.
    pub(super) fn metadata_items(&self) -> Vec<MetadataItem> {
        let flags = u32::from(self.leave_block_allocated) | u32::from(self.has_parent) << 1;
        let parameters = [self.block_size.to_le_bytes(), flags.to_le_bytes()].concat();
        let of_disk = |id, data| MetadataItem::system(id, data).required().virtual_disk();
        let logical = self.logical_sector_size.to_le_bytes();
        let physical = self.physical_sector_size.to_le_bytes();
        let mut items = vec![
            MetadataItem::system(ids::FILE_PARAMETERS, parameters).required(),
            of_disk(
                ids::VIRTUAL_DISK_SIZE,
                self.virtual_size.to_le_bytes().into(),
            ),
            of_disk(
                ids::VIRTUAL_DISK_ID,
                self.virtual_disk_id.to_bytes_le().into(),
            ),
            of_disk(ids::LOGICAL_SECTOR_SIZE, logical.into()),
            of_disk(ids::PHYSICAL_SECTOR_SIZE, physical.into()),
        ];
        if let Some(locator) = &self.locator {
            items.push(MetadataItem::system(ids::PARENT_LOCATOR, locator.encode()).required());
        }
        for change in &self.item_changes {
            match change {
                ItemChange::Remove(id) => items.retain(|item| item.id != *id),
                ItemChange::Put(new) => {
                    let same =
                        |item: &&mut MetadataItem| item.id == new.id && item.is_user == new.is_user;
                    match items.iter_mut().find(same) {
                        Some(item) => *item = new.clone(),
                        None => items.push(new.clone()),
                    }
                }
            }
        }
        items
    }
}

/// The entries for `items`, in the same order.
pub(super) fn place(items: &[MetadataItem], placement: ItemPlacement) -> Vec<MetadataEntry> {
    let mut entries: Vec<MetadataEntry> = items.iter().map(unplaced).collect();
    let mut order: Vec<usize> = (0..items.len()).collect();
    if placement == ItemPlacement::Reversed {
        order.reverse();
    }
    let mut next = TABLE_LEN;
    for i in order {
        if items[i].data.is_empty() || items[i].offset.is_some() {
            continue;
        }
        entries[i].offset = match placement {
            ItemPlacement::Packed => next.next_multiple_of(8),
            ItemPlacement::Unaligned | ItemPlacement::Reversed => next | 1,
        };
        next = entries[i].offset + entries[i].length;
    }
    entries
}

/// An entry that has the offset its item asks for, or 0.
fn unplaced(item: &MetadataItem) -> MetadataEntry {
    MetadataEntry {
        id: item.id,
        offset: item.offset.unwrap_or(0),
        length: to_u32(item.data.len() as u64),
        flags: u32::from(item.is_user)
            | u32::from(item.is_virtual_disk) << 1
            | u32::from(item.is_required) << 2,
    }
}

/// Header and entries of the table; more than 2,047 entries are stored all the same.
pub(super) fn encode_table(entries: &[MetadataEntry]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).expect("EntryCount has 16 bits");
    let mut out = vec![0; 32 * (1 + entries.len())];
    put(&mut out, 0, b"metadata");
    put(&mut out, 10, &count.to_le_bytes());
    for (entry, slot) in entries.iter().zip(out[32..].chunks_exact_mut(32)) {
        put(slot, 0, &entry.id.to_bytes_le());
        put(slot, 16, &entry.offset.to_le_bytes());
        put(slot, 20, &entry.length.to_le_bytes());
        put(slot, 24, &entry.flags.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_never_overlap_and_empty_items_have_no_place() {
        let items: Vec<MetadataItem> = [3, 0, 8, 40]
            .map(|len| MetadataItem::user(Uuid::nil(), vec![1; len]))
            .into();
        let offsets = |placement| -> Vec<u32> {
            place(&items, placement)
                .iter()
                .map(|entry| entry.offset - TABLE_LEN * u32::from(entry.length > 0))
                .collect()
        };
        assert_eq!(offsets(ItemPlacement::Packed), [0, 0, 8, 16]);
        assert_eq!(offsets(ItemPlacement::Unaligned), [1, 0, 5, 13]);
        assert_eq!(offsets(ItemPlacement::Reversed), [49, 0, 41, 1]);
    }
}
