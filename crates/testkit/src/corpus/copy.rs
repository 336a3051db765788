//! Copies that keep holes.

use std::path::Path;

use blockdev_core::{FileOptions, FileStorage, LockMode, Storage};

/// Copies the file `from` to `to`, leaving out what the host does not store.
///
/// # Panics
/// When the host fails.
pub fn copy_sparse(from: &Path, to: &Path) {
    copy(from, to)
        .unwrap_or_else(|error| panic!("copy {} to {}: {error}", from.display(), to.display()));
}

fn copy(from: &Path, to: &Path) -> blockdev_core::Result<()> {
    let source = FileStorage::open(from, FileOptions::read_only().with_lock(LockMode::None))?;
    std::fs::File::create(to)?;
    let target = FileStorage::open(to, FileOptions::read_write().with_lock(LockMode::None))?;
    let len = source.len()?;
    target.set_len(len)?;
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let run = source.next_extent(at)?;
        let end = at + run.len;
        while run.allocated && at < end {
            let piece = usize::try_from((end - at).min(buf.len() as u64)).expect("a piece");
            source.read_at(&mut buf[..piece], at)?;
            target.write_at(&buf[..piece], at)?;
            at += piece as u64;
        }
        at = end;
    }
    Ok(())
}
