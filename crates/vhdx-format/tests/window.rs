//! Writing through a window of sectors.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use blockdev_core::{ErrorKind, MemoryStorage};
use common::{MIB, index, memory};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder, chain_disk};
use vhdx_format::{OpenOptions, PayloadState, VhdxImage};

fn writable(builder: &VhdxBuilder) -> (Arc<MemoryStorage>, VhdxImage) {
    let storage = memory(&builder.build());
    let image = VhdxImage::open(storage.clone(), &OpenOptions::read_write()).unwrap();
    (storage, image)
}

fn read(image: &VhdxImage, start: u64, count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut window = image.sector(start, count).unwrap();
    window.read_to_end(&mut bytes).unwrap();
    bytes
}

fn kind_of(error: &std::io::Error) -> ErrorKind {
    let inner = error.get_ref().unwrap();
    inner.downcast_ref::<blockdev_core::Error>().unwrap().kind()
}

#[test]
fn bytes_of_any_alignment_are_written_and_their_neighbours_stay() {
    for sector in [512u32, 4096] {
        let bytes = u64::from(sector);
        let builder = VhdxBuilder::new(4 * MIB)
            .logical_sector_size(sector)
            .block(1, BlockContent::full(BlockData::Pattern(1)));
        let (storage, image) = writable(&builder);
        let mut disk = chain_disk(&[&builder]);
        // From a block that is not there into one that is.
        let start = MIB / bytes - 2;
        let mut window = image.sector(start, 4).unwrap();
        window.seek(SeekFrom::Start(bytes + 3)).unwrap();
        window.write_all(&vec![0xA5; index(2 * bytes)]).unwrap();
        assert_eq!(window.stream_position().unwrap(), 3 * bytes + 3);
        window.flush().unwrap();
        let at = index(start * bytes + bytes + 3);
        disk[at..at + index(2 * bytes)].fill(0xA5);
        assert!(read(&image, 0, 4 * MIB / bytes) == disk);
        drop(image);
        let image = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
        assert!(read(&image, 0, 4 * MIB / bytes) == disk);
    }
}

#[test]
fn a_window_is_written_to_its_end_and_not_past_it() {
    let builder = VhdxBuilder::new(2 * MIB);
    let (_, image) = writable(&builder);
    let mut window = image.sector(2, 1).unwrap();
    window.seek(SeekFrom::Start(500)).unwrap();
    assert_eq!(window.write(&[1; 100]).unwrap(), 12);
    assert_eq!(window.write(&[1; 100]).unwrap(), 0);
    let error = window.write_all(&[1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WriteZero);
    window.seek(SeekFrom::Start(u64::MAX)).unwrap();
    assert_eq!(window.write(&[1]).unwrap(), 0);
    assert_eq!(read(&image, 3, 1), [0; 512]);
}

#[test]
fn a_read_only_image_is_not_written_to() {
    let image = common::built(&VhdxBuilder::new(2 * MIB)).unwrap();
    let error = image.sector(0, 1).unwrap().write(&[1]).unwrap_err();
    assert_eq!(kind_of(&error), ErrorKind::ReadOnly);
    image.sector(0, 1).unwrap().flush().unwrap();
}

#[test]
fn a_child_takes_whole_sectors_alone_and_others_only_where_it_has_them() {
    let builder = VhdxBuilder::child_of(&VhdxBuilder::new(2 * MIB), "p.vhdx")
        .block(1, BlockContent::partial(BlockData::Byte(3), 0..2));
    let (_, image) = writable(&builder);
    image.sector(7, 1).unwrap().write_all(&[9; 512]).unwrap();
    let entry = image.bat_entry(0).unwrap().unwrap().1;
    assert_eq!(entry.payload_state(), Some(PayloadState::PartiallyPresent));
    assert_eq!(read(&image, 7, 1), [9; 512]);

    let own = MIB / 512;
    image.sector(own, 2).unwrap().write_all(&[4; 700]).unwrap();
    assert_eq!(
        read(&image, own, 2),
        [[4; 700].as_slice(), &[3; 324]].concat()
    );

    for start in [0, 8, own + 2] {
        let error = image
            .sector(start, 1)
            .unwrap()
            .write(&[1; 100])
            .unwrap_err();
        assert_eq!(kind_of(&error), ErrorKind::NeedsParent);
        let error = image
            .sector(start, 1)
            .unwrap()
            .read(&mut [0; 512])
            .unwrap_err();
        assert_eq!(
            kind_of(&error),
            ErrorKind::NeedsParent,
            "nothing came of it"
        );
    }
    image.sector(0, 1).unwrap().write_all(&[1; 512]).unwrap();
}
