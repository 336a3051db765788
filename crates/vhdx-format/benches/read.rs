//! Reads whose metadata is in memory, beside plain reads of the same file: the distance between the
//! two is what the format costs.

use std::hint::black_box;
use std::sync::Arc;

use blockdev_core::{BlockDevice, FileOptions, FileStorage, LoneLayer, Storage};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use testkit::vhdx_builder::{BlockContent, BlockData, VhdxBuilder};
use vhdx_format::{OpenOptions, VhdxImage};

const MIB: u64 = 1 << 20;
const BLOCKS: u64 = 64;

/// Offsets all over the disk, the same each time.
fn offsets(size: u64, align: u64) -> impl Iterator<Item = u64> {
    let units = size / align;
    (0u64..).map(move |i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % units * align)
}

fn reads(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("disk.vhdx");
    let builder = (0..BLOCKS).fold(VhdxBuilder::new(BLOCKS * MIB), |builder, block| {
        builder.block(block, BlockContent::full(BlockData::Pattern(block)))
    });
    builder.build().save(&path).expect("an image");
    let first = builder.layout().blocks[&0];
    let file = Arc::new(FileStorage::open(&path, FileOptions::read_only()).expect("a file"));
    let image = VhdxImage::open(file.clone(), &OpenOptions::read_only()).expect("an image");
    let disk = LoneLayer::new(Box::new(image));

    for len in [4096, MIB] {
        let mut group = c.benchmark_group("read");
        group.throughput(Throughput::Bytes(len));
        let mut buffer = vec![0; usize::try_from(len).expect("small")];
        let mut at = offsets(BLOCKS * MIB, len);
        group.bench_function(BenchmarkId::new("plain file", len), |b| {
            b.iter(|| {
                let at = at.next().expect("endless");
                file.read_at(black_box(&mut buffer), first + at)
                    .expect("a read");
            });
        });
        let mut at = offsets(BLOCKS * MIB, len);
        group.bench_function(BenchmarkId::new("vhdx", len), |b| {
            b.iter(|| {
                let at = at.next().expect("endless");
                disk.read_at(black_box(&mut buffer), at).expect("a read");
            });
        });
        group.finish();
    }
}

criterion_group!(benches, reads);
criterion_main!(benches);
