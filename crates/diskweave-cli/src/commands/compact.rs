//! `compact`: less space for the same disk.

use diskweave::core::ErrorKind;
use diskweave::{Progress, compact};

use super::shown;
use crate::args::Compact;
use crate::failure::Failure;
use crate::interrupt::{INTERRUPTED, Interruptible};
use crate::output::plain::print;
use crate::output::{progress, size};

pub(crate) fn run(args: &Compact) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    // Parents are not read: what is theirs takes no space here.
    let disk = args.image.disk().writable();
    let (mut chain, _) = disk.open_partial(&args.image.file).map_err(about)?;
    let watcher = progress::choose(args.progress_style, args.progress, args.quiet);
    let watcher = Interruptible::new(watcher);
    let outcome = compact(&mut chain, &watcher);
    let interrupted = watcher.is_cancelled();
    drop(watcher);
    let done = outcome.map_err(|e| match e.kind() {
        ErrorKind::InvalidInput if interrupted => about(e).with_code(INTERRUPTED),
        _ => about(e),
    })?;
    chain.close().map_err(about)?;
    if !args.quiet {
        print(&format!(
            "Image compacted: {} to {}, {} blocks dropped, {} moved.\n",
            size::human(done.old_length),
            size::human(done.new_length),
            done.dropped_blocks,
            done.moved_blocks
        ))?;
    }
    Ok(0)
}
