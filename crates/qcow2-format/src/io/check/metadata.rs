//! The structures that lie whole in one place: header, snapshot table, bitmaps.

use blockdev_core::{ByteRange, Result, StorageExt};

use super::Checker;
use crate::inspect::FirstCluster;
use crate::io::inspect::snapshot_table;
use crate::io::words::Words;
use crate::meta::extensions::BitmapsExtension;
use crate::meta::header::{Header, MAX_L1_BYTES};
use crate::meta::references::bitmap_entry;
use crate::ondisk::bitmap::RawBitmap;
use crate::ondisk::{features, read};

/// Longest bitmap directory: what the most bitmaps with the longest names need.
const MAX_DIRECTORY_BYTES: u64 = 128 << 20;

impl Checker<'_> {
    pub(super) fn metadata(&mut self, first: &FirstCluster) -> Result<()> {
        let header = &first.header;
        self.own("the header", "header", 0, self.cluster, 0);
        let l1 = (header.l1_table_offset, u64::from(header.l1_size) * 8);
        if self.own("the L1 table", "header", l1.0, l1.1, 40) {
            self.l1_table(l1, true)?;
        }
        self.snapshots(header)?;
        let consistent = header.autoclear_features & features::BITMAPS != 0;
        match first.extensions.bitmaps {
            Some(bitmaps) if consistent => self.bitmaps(bitmaps)?,
            None if consistent => {
                let message = "the bitmaps bit is set, but there is no bitmaps extension";
                self.corrupt("bitmaps", "bitmaps-missing", message, 88);
            }
            _ => {}
        }
        Ok(())
    }

    fn snapshots(&mut self, header: &Header) -> Result<()> {
        if header.nb_snapshots == 0 {
            return Ok(());
        }
        let table = snapshot_table(self.storage, header);
        let Some((snapshots, length)) = self.damage("snapshots", table)? else {
            return Ok(());
        };
        self.own(
            "the snapshot table",
            "snapshots",
            header.snapshots_offset,
            length,
            64,
        );
        for snapshot in snapshots {
            let (offset, bytes) = (snapshot.l1_table_offset, u64::from(snapshot.l1_size) * 8);
            if offset % self.cluster != 0 || bytes > MAX_L1_BYTES {
                let message = format!(
                    "an L1 table of {} entries at {offset:#x} is not cluster-aligned or too long",
                    snapshot.l1_size
                );
                self.corrupt("snapshots", "snapshot-l1", message, snapshot.offset);
                continue;
            }
            let name = "the L1 table of a snapshot";
            if self.own(name, "snapshots", offset, bytes, snapshot.offset) {
                self.l1_table((offset, bytes), false)?;
            }
        }
        Ok(())
    }

    /// [`BitmapsExtension`]: the directory, the tables, the bitmaps themselves.
    fn bitmaps(&mut self, bitmaps: BitmapsExtension) -> Result<()> {
        let (offset, length) = (bitmaps.directory_offset, bitmaps.directory_size);
        if offset % self.cluster != 0
            || length > MAX_DIRECTORY_BYTES
            || ByteRange::new(offset, length).is_none_or(|range| range.end() > self.file_len)
        {
            let message = format!("a directory of {length} bytes at {offset:#x} cannot be");
            self.corrupt("bitmaps", "bitmap-directory", message, offset);
            return Ok(());
        }
        self.own("the bitmap directory", "bitmaps", offset, length, offset);
        let mut directory = vec![0; usize::try_from(length).expect("at most 128 MiB")];
        self.storage.read_zero_padded(&mut directory, offset)?;
        let mut at = 0;
        for _ in 0..bitmaps.nb_bitmaps {
            let Some(raw) = read::<RawBitmap>(&directory, at) else {
                let message = "the directory ends before its last bitmap";
                self.corrupt("bitmaps", "bitmap-directory", message, offset);
                return Ok(());
            };
            let place = offset + at as u64;
            self.bitmap(&raw, place)?;
            let name = usize::from(raw.name_size.get());
            let extra = usize::try_from(raw.extra_data_size.get()).unwrap_or(usize::MAX);
            at = extra
                .saturating_add(at + size_of::<RawBitmap>() + name)
                .min(directory.len())
                .next_multiple_of(8);
        }
        Ok(())
    }

    fn bitmap(&mut self, raw: &RawBitmap, place: u64) -> Result<()> {
        let (offset, length) = (raw.table_offset.get(), u64::from(raw.table_size.get()) * 8);
        if offset % self.cluster != 0 {
            let message = format!("bitmap table offset {offset:#x} is not cluster-aligned");
            self.corrupt("bitmaps", "bitmap-table", message, place);
            return Ok(());
        }
        if !self.own("a bitmap table", "bitmaps", offset, length, place)
            || !self.may_read("bitmaps", offset, length)
        {
            return Ok(());
        }
        let mut words = Words::new(offset, length, self.file_len);
        while let Some(first) = words.next(self.storage)? {
            for (index, entry) in (first..).zip(words.entries()) {
                let from = offset + index * 8;
                let (cluster, breach) = bitmap_entry(entry, self.cluster);
                if let Some((code, message)) = breach {
                    self.corrupt("bitmaps", code, message, from);
                }
                if let Some(cluster) = cluster {
                    self.refer("bitmaps", (cluster, self.cluster), 1, from);
                }
            }
        }
        Ok(())
    }
}
