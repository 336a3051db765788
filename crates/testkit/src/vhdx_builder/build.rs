//! Writes out what a builder describes.

use std::collections::BTreeMap;
use std::ops::Range;

use super::block::{ABSENT_BYTE, BlockContent};
use super::builder::VhdxBuilder;
use super::bytes::{MIB, to_index};
use super::damage::Slot;
use super::header::{HeaderFields, encode_file_identifier};
use super::image::SparseImage;
use super::layout::{Layout, bitmap_chunks};
use super::log::{Descriptor, LOG_SECTOR, LogEntry, log_sequence};
use super::log_bytes::{LogContext, write_ring};
use super::{ids, metadata, region};

/// Filler of a bitmap block that only the log brings to life.
const UNBORN_BYTE: u8 = 0xEE;

impl VhdxBuilder {
    /// Builds the image.
    pub fn build(&self) -> SparseImage {
        let layout = self.layout();
        let mut image = SparseImage::default();
        image.set_len(layout.end);
        image.write(0, &encode_file_identifier(&self.creator));
        self.write_headers(&mut image, &layout);
        self.write_region_tables(&mut image, &layout);
        self.write_metadata(&mut image, &layout);
        self.write_bat(&mut image, &layout);
        self.write_bitmaps(&mut image, &layout);
        for (blocks, offsets) in [
            (&self.blocks, &layout.blocks),
            (&self.pending, &layout.pending),
        ] {
            for (block, offset) in offsets {
                self.write_block(&mut image, *block, &blocks[block], *offset);
            }
        }
        self.write_log(&mut image, &layout);
        if let Some(len) = self.file_len {
            image.set_len(len);
        }
        image
    }

    /// The log entries that [`build`](Self::build) writes for pending blocks: none if there are
    /// no pending blocks.
    pub fn pending_log_entries(&self) -> Vec<LogEntry> {
        let updates = self.pending_updates(&self.layout());
        let per_entry = self.pending_log.descriptors_per_entry.max(1);
        let mut entries = log_sequence(
            self.pending_log.start,
            self.pending_log.first_sequence,
            self.log_length.max(1),
            updates.chunks(per_entry).map(<[Descriptor]>::to_vec),
        );
        for entry in &mut entries {
            entry.flushed_file_offset = self.pending_log.flushed_file_offset;
            entry.last_file_offset = self.pending_log.last_file_offset;
        }
        entries
    }

    fn write_headers(&self, image: &mut SparseImage, layout: &Layout) {
        for slot in Slot::BOTH {
            let base = HeaderFields {
                sequence: 1 + slot.index() as u64,
                file_write_guid: self.file_write_guid,
                data_write_guid: self.data_write_guid,
                log_guid: self.header_log_guid(),
                log_version: self.log_version,
                version: self.version,
                log_length: layout.log_length,
                log_offset: layout.log_offset,
            };
            image.write(
                slot.header_offset(),
                &self.headers[slot.index()].encode(&base),
            );
        }
    }

    fn write_region_tables(&self, image: &mut SparseImage, layout: &Layout) {
        let entries = self.region_table.as_ref().unwrap_or(&layout.region_entries);
        for slot in Slot::BOTH {
            let mut table = region::encode(entries);
            if let Some(damage) = self.region_damage[slot.index()] {
                damage.apply(&mut table);
            }
            image.write(slot.region_table_offset(), &table);
        }
        let extra = layout.region_entries.iter().skip(2);
        for (region, entry) in self.extra_regions.iter().zip(extra) {
            image.write(entry.file_offset, &region.content);
        }
    }

    fn write_metadata(&self, image: &mut SparseImage, layout: &Layout) {
        for (item, entry) in self.metadata_items().iter().zip(&layout.metadata_entries) {
            image.write(layout.metadata_offset + u64::from(entry.offset), &item.data);
        }
        let entries = self
            .metadata_table
            .as_ref()
            .unwrap_or(&layout.metadata_entries);
        image.write(layout.metadata_offset, &metadata::encode_table(entries));
    }

    fn write_bat(&self, image: &mut SparseImage, layout: &Layout) {
        for (index, entry) in self.bat(layout, false) {
            image.write(layout.bat_entry_offset(index), &entry.to_le_bytes());
        }
    }

    /// The BAT entries in use, before or after the log is replayed (§2.5.1). What a BAT region
    /// that was made too short has no room for is left out.
    fn bat(&self, layout: &Layout, replayed: bool) -> BTreeMap<u64, u64> {
        let geometry = &layout.geometry;
        let mut bat = BTreeMap::new();
        for &block in self.blocks.keys().chain(self.pending.keys()) {
            let offsets = match replayed && self.pending.contains_key(&block) {
                true => &layout.pending,
                false => &layout.blocks,
            };
            if let Some(content) = self.content(block, replayed) {
                let offset = offsets.get(&block).copied().unwrap_or(0);
                bat.insert(geometry.payload_bat_index(block), offset | content.state());
            }
        }
        for chunk in bitmap_chunks(self, replayed) {
            bat.insert(geometry.bitmap_bat_index(chunk), layout.bitmaps[&chunk] | 6);
        }
        bat.extend(&self.raw_bat);
        bat.split_off(&(u64::from(layout.bat_length) / 8));
        bat
    }

    fn write_bitmaps(&self, image: &mut SparseImage, layout: &Layout) {
        let in_place = bitmap_chunks(self, false);
        for (chunk, &offset) in &layout.bitmaps {
            if in_place.contains(chunk) {
                image.write(offset, &self.bitmap(layout, *chunk, false));
            } else {
                image.write(offset, &vec![UNBORN_BYTE; to_index(MIB)]);
            }
        }
    }

    /// The sector bitmap block of `chunk`: bit 0 of byte 0 is the chunk's first sector (§2.4).
    fn bitmap(&self, layout: &Layout, chunk: u64, replayed: bool) -> Vec<u8> {
        let geometry = &layout.geometry;
        let per_block = geometry.sectors_per_block();
        let first_block = chunk * geometry.chunk_ratio();
        let mut bits = vec![0; to_index(MIB)];
        for block in first_block..first_block + geometry.chunk_ratio() {
            let first_bit = (block - first_block) * per_block;
            if let Some(BlockContent::PartiallyPresent { present, .. }) =
                self.content(block, replayed)
            {
                for sector in present {
                    let bit = first_bit + sector;
                    bits[to_index(bit / 8)] |= 1 << (bit % 8);
                }
            } else if let Some(&stale) = self.stale_bitmaps.get(&block) {
                bits[to_index(first_bit / 8)..to_index((first_bit + per_block) / 8)].fill(stale);
            }
        }
        bits
    }

    fn write_block(
        &self,
        image: &mut SparseImage,
        block: u64,
        content: &BlockContent,
        offset: u64,
    ) {
        let Some(data) = content.stored() else { return };
        let geometry = self.geometry();
        let block_start = block * geometry.block_size;
        let write = |image: &mut SparseImage, range: Range<u64>| {
            image.write(offset + range.start, &data.render(block_start, range));
        };
        let BlockContent::PartiallyPresent { present, .. } = content else {
            for start in (0..geometry.block_size).step_by(to_index(MIB)) {
                write(image, start..(start + MIB).min(geometry.block_size));
            }
            return;
        };
        image.write(offset, &vec![ABSENT_BYTE; to_index(geometry.block_size)]);
        for sector in present {
            let start = sector * geometry.sector_size;
            write(image, start..start + geometry.sector_size);
        }
    }

    fn write_log(&self, image: &mut SparseImage, layout: &Layout) {
        let on_disk = self.file_len.unwrap_or(layout.end) / MIB * MIB;
        let log_guid = self.header_log_guid();
        let context = LogContext {
            guid: if log_guid.is_nil() {
                ids::DEFAULT_LOG
            } else {
                log_guid
            },
            flushed_file_offset: on_disk.min(layout.end),
            last_file_offset: layout.end,
        };
        for entry in self.pending_log_entries().iter().chain(&self.log_entries) {
            let log = (layout.log_offset, layout.log_length);
            write_ring(image, log, entry.ring_offset, &entry.encode(&context));
        }
    }

    /// The metadata updates that turn the image in place into the one with the pending blocks.
    fn pending_updates(&self, layout: &Layout) -> Vec<Descriptor> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let mut updates = self.bitmap_updates(layout);
        let after = self.bat(layout, true);
        let before = self.bat(layout, false);
        let per_page = LOG_SECTOR as u64 / 8;
        let mut pages: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (index, _) in after
            .iter()
            .filter(|(index, entry)| before.get(index) != Some(entry))
        {
            pages
                .entry(index / per_page)
                .or_insert_with(|| vec![0; LOG_SECTOR]);
        }
        for (page, bytes) in &mut pages {
            for (index, entry) in after.range(page * per_page..(page + 1) * per_page) {
                let at = to_index((index % per_page) * 8);
                bytes[at..at + 8].copy_from_slice(&entry.to_le_bytes());
            }
        }
        updates.extend(pages.into_iter().map(|(page, bytes)| Descriptor::Data {
            file_offset: layout.bat_offset + page * LOG_SECTOR as u64,
            bytes,
        }));
        updates
    }

    fn bitmap_updates(&self, layout: &Layout) -> Vec<Descriptor> {
        let in_place = bitmap_chunks(self, false);
        let mut updates = Vec::new();
        for (chunk, &offset) in &layout.bitmaps {
            let after = self.bitmap(layout, *chunk, true);
            let before = if in_place.contains(chunk) {
                self.bitmap(layout, *chunk, false)
            } else {
                updates.push(Descriptor::Zero {
                    file_offset: offset,
                    length: MIB,
                });
                vec![0; after.len()]
            };
            let pages = after.chunks(LOG_SECTOR).zip(before.chunks(LOG_SECTOR));
            for (i, (after, _)) in pages
                .enumerate()
                .filter(|(_, (after, before))| after != before)
            {
                let file_offset = offset + (i * LOG_SECTOR) as u64;
                updates.push(Descriptor::Data {
                    file_offset,
                    bytes: after.to_vec(),
                });
            }
        }
        updates
    }
}
