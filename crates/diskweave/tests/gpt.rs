//! A partition table on a VHDX, written and read by somebody else's crate.

#![cfg(all(feature = "gpt", feature = "vhdx"))]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use diskweave::GptDisk;
use diskweave::core::{BlockDevice, ErrorKind, LoneLayer, MemoryStorage, OpenOptions};
use diskweave::vhdx::{CreateOptions, VhdxImage, VhdxWriter};
use gpt_disk_io::gpt_disk_types::{BlockSize, GptHeader, Lba, LbaLe, U32Le};
use gpt_disk_io::{BlockIo, Disk};

fn disk(sector: u32) -> LoneLayer {
    let file = Arc::new(MemoryStorage::default());
    let mut options = CreateOptions::new(8 << 20);
    options.block_size = 1 << 20;
    options.logical_sector_size = sector;
    let writer = VhdxWriter::create(file.clone(), options).unwrap();
    writer.finish().unwrap();
    let image = VhdxImage::open(file, &OpenOptions::read_write()).unwrap();
    LoneLayer::new(Box::new(image))
}

#[test]
fn a_table_is_written_and_read() {
    for sector in [512, 4096] {
        let device = disk(sector);
        let mut blocks = GptDisk::new(&device).unwrap();
        assert_eq!(blocks.block_size(), BlockSize::new(sector).unwrap());
        let count = blocks.num_blocks().unwrap();
        assert_eq!(count, (8 << 20) / u64::from(sector));
        let mut buffer = vec![0; sector as usize];
        let mut table = Disk::new(blocks).unwrap();
        table.write_protective_mbr(&mut buffer).unwrap();
        let mut header = GptHeader {
            my_lba: LbaLe::from_u64(1),
            number_of_partition_entries: U32Le(128u32.to_le_bytes()),
            ..GptHeader::default()
        };
        header.update_header_crc32();
        table
            .write_primary_gpt_header(&header, &mut buffer)
            .unwrap();
        table.flush().unwrap();
        let mut seen = [0; 8];
        device.read_at(&mut seen, u64::from(sector)).unwrap();
        assert_eq!(&seen, b"EFI PART");
        let read = table.read_primary_gpt_header(&mut buffer).unwrap();
        assert_eq!(read, header);
    }
}

#[test]
fn what_is_no_block_is_refused() {
    let device = disk(512);
    let mut blocks = GptDisk::new(&device).unwrap();
    let refused = blocks.read_blocks(Lba(0), &mut [0; 100]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    for lba in [16_384, u64::MAX] {
        let refused = blocks.write_blocks(Lba(lba), &[0; 512]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfRange);
    }
}
