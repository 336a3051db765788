//! `commit`: what is in upper images, moved into a lower one.

use std::path::Path;

use diskweave::{CommitOptions, commit};

use super::shown;
use crate::args::Commit;
use crate::failure::Failure;
use crate::interrupt::watched;
use crate::output::plain::print;

pub(crate) fn run(args: &Commit) -> Result<u8, Failure> {
    let file = &args.image.file;
    let mut options = CommitOptions::default();
    options.base.clone_from(&args.base);
    options.top.clone_from(&args.top);
    options.keep = args.keep;
    let done = watched(&args.watch, args.rate, shown(file), |watcher| {
        commit(file, &args.image.disk(), &options, watcher)
    })?;
    if !args.watch.quiet {
        print("Image committed.\n")?;
        let shown = |path: &Path| shown(path.strip_prefix(".").unwrap_or(path)).to_string();
        for image in &done.unneeded {
            let base = shown(&done.base);
            print(&format!(
                "{} is in {base} now and no longer needed.\n",
                shown(image)
            ))?;
        }
    }
    Ok(0)
}
