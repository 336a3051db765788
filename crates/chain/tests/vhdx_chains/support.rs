//! Chains of built images: in files, or in memory with every call counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_chain::{Chain, ChainBuilder, Top};
use blockdev_core::locate::{ChainPolicy, Wanted};
use blockdev_core::{
    FileOptions, FileStorage, FormatDriver, LockMode, MemoryStorage, RawDriver, Result, Storage,
};
use testkit::counting::{CountingStorage, Op};
use testkit::vhdx_builder::VhdxBuilder;
use vhdx_format::VhdxDriver;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&VhdxDriver, &RawDriver];

/// Saves `image` in `dir` as `name`.
pub(crate) fn save(dir: &Path, name: &str, image: &VhdxBuilder) -> PathBuf {
    let path = dir.join(name);
    image.build().save(&path).unwrap();
    path
}

/// The name of the image at `depth` of a chain made by [`open_all`].
pub(crate) fn name_at(depth: usize) -> String {
    format!("layer-{depth}.vhdx")
}

/// Saves `chain`, the top first, as [`name_at`] names its images.
pub(crate) fn save_all(dir: &Path, chain: &[&VhdxBuilder]) -> Vec<PathBuf> {
    let named = chain.iter().enumerate();
    named
        .map(|(depth, image)| save(dir, &name_at(depth), image))
        .collect()
}

/// Opens `path` with all parents below its directory.
pub(crate) fn open(path: &Path) -> Result<Chain> {
    let policy = ChainPolicy::Beneath(path.parent().unwrap().to_path_buf());
    open_with(path, &ChainBuilder::new(DRIVERS).policy(policy))
}

/// Opens `path` as `builder` says.
pub(crate) fn open_with(path: &Path, builder: &ChainBuilder<'_>) -> Result<Chain> {
    let options = FileOptions::read_only().with_lock(LockMode::Shared);
    let storage = Arc::new(FileStorage::open(path, options)?);
    builder.build(Top::storage(storage, "vhdx").at(path))
}

/// A chain in memory with a counter around each image, the top first.
pub(crate) struct Counted {
    pub(crate) chain: Chain,
    pub(crate) files: Vec<Arc<CountingStorage>>,
}

impl Counted {
    /// Opens `images`, the top first; parents are handed over in this order, whatever their names.
    pub(crate) fn open(images: &[&VhdxBuilder]) -> Self {
        let files: Vec<Arc<CountingStorage>> = images
            .iter()
            .map(|image| {
                let bytes = image.build().to_vec();
                CountingStorage::new(Arc::new(MemoryStorage::from(bytes)))
            })
            .collect();
        let below: Vec<Arc<CountingStorage>> = files[1..].to_vec();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let resolve = move |_: &Wanted<'_>| {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(below
                .get(at)
                .map(|file| Arc::clone(file) as Arc<dyn Storage>))
        };
        let builder = ChainBuilder::new(DRIVERS).policy(ChainPolicy::Handles(Arc::new(resolve)));
        let top = Top::storage(Arc::clone(&files[0]) as Arc<dyn Storage>, "vhdx");
        let chain = builder.build(top).unwrap();
        Self { chain, files }
    }

    /// Runs `read` and tells the reads that each file saw: offset and length in order.
    pub(crate) fn reads(&self, read: impl FnOnce(&Chain)) -> Vec<Vec<(u64, u64)>> {
        for file in &self.files {
            file.reset();
        }
        read(&self.chain);
        let of = |file: &Arc<CountingStorage>| {
            let calls = file.of(Op::Read);
            calls.iter().map(|call| (call.offset, call.len)).collect()
        };
        self.files.iter().map(of).collect()
    }
}
