//! `compact`: less space for the same disk.

use diskweave::compact;

use super::shown;
use crate::args::Compact;
use crate::failure::Failure;
use crate::interrupt::watched;
use crate::output::plain::print;
use crate::output::size;

pub(crate) fn run(args: &Compact) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    // Parents are not read: what is theirs takes no space here.
    let disk = args.image.disk().writable();
    let (mut chain, _) = disk.open_partial(&args.image.file).map_err(about)?;
    let done = watched(&args.watch, None, shown(&args.image.file), |watcher| {
        compact(&mut chain, watcher)
    })?;
    chain.close().map_err(about)?;
    if !args.watch.quiet {
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
