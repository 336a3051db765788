//! Chains whose files are opened in other ways than through the page cache, one read after the other.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "qcow2", feature = "vhdx"))]

use std::path::Path;
use std::sync::Arc;

use diskweave::core::BlockDevice;
use diskweave::core::locate::{ChainPolicy, DirectOpener, HostOpener, Opener};
use diskweave::{NewImage, OpenDisk, create, qcow2, vhdx};

const SIZE: u64 = 16 << 20;
const CLUSTER: u64 = 64 << 10;
/// Odd, so that steps come by every cluster.
const FAR: u64 = 77;

/// Each way with its name.
fn openers() -> Vec<(&'static str, Arc<dyn Opener>)> {
    vec![
        ("page cache", Arc::new(HostOpener)),
        ("direct", Arc::new(DirectOpener)),
        #[cfg(all(target_os = "linux", feature = "io-uring"))]
        (
            "io_uring",
            Arc::new(diskweave::core::locate::UringOpener { direct: false }),
        ),
        #[cfg(all(target_os = "linux", feature = "io-uring"))]
        (
            "direct io_uring",
            Arc::new(diskweave::core::locate::UringOpener { direct: true }),
        ),
    ]
}

fn disk(format: &str, opener: &Arc<dyn Opener>) -> OpenDisk {
    OpenDisk::new()
        .format(format)
        .policy(ChainPolicy::Any)
        .opener(Arc::clone(opener))
}

/// What lies in cluster `number`, by bytes that no other cluster has at the same place.
fn content(number: u64) -> Vec<u8> {
    let words =
        (0..CLUSTER / 8).map(|word| (number * CLUSTER + word).wrapping_mul(0x9E37_79B9) | 1);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Every cluster at another place than its neighbours, a few left out.
fn scatter(path: &Path, format: &str, opener: &Arc<dyn Opener>) -> Vec<u8> {
    let chain = disk(format, opener).writable().open(path).unwrap();
    let mut expected = vec![0; usize::try_from(SIZE).unwrap()];
    let clusters = SIZE / CLUSTER;
    for step in 0..clusters {
        let number = step * FAR % clusters;
        if number % 13 == 5 {
            continue;
        }
        let bytes = content(number);
        chain.write_at(&bytes, number * CLUSTER).unwrap();
        let at = usize::try_from(number * CLUSTER).unwrap();
        expected[at..at + bytes.len()].copy_from_slice(&bytes);
        if step % 50 == 0 {
            chain.flush().unwrap();
        }
    }
    // At no boundary of anything.
    chain.write_at(&[7; 1000], 12_345).unwrap();
    expected[12_345..13_345].fill(7);
    chain.close().unwrap();
    expected
}

/// A request that spans many runs, at an odd place, must come from the right places of the file whichever
/// way they are asked for; and what one way wrote, every other reads.
#[test]
fn scattered_images_read_the_same_whichever_way_their_files_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut blocks = vhdx::CreateOptions::new(SIZE);
    blocks.block_size = 1 << 20;
    let images = [
        ("qcow2", NewImage::Qcow2(qcow2::CreateOptions::new(SIZE))),
        ("vhdx", NewImage::Vhdx(blocks)),
    ];
    for (format, image) in &images {
        for (writer, by) in &openers() {
            let path = dir.path().join(format!("{writer}.{format}"));
            create(&path, image, Some(SIZE), None).unwrap();
            let expected = scatter(&path, format, by);
            for (reader, by) in &openers() {
                let chain = disk(format, by).open(&path).unwrap();
                let mut buf = vec![0; expected.len()];
                for len in [4096, 100_000, (1 << 20) + 512, buf.len()] {
                    let mut at = 0;
                    for piece in buf.chunks_mut(len) {
                        chain.read_at(piece, at).unwrap();
                        at += piece.len() as u64;
                    }
                    assert!(
                        buf == expected,
                        "{format}: written by {writer}, read by {reader} in pieces of {len}"
                    );
                    buf.fill(0xEE);
                }
            }
        }
    }
}
