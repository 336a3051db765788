//! `commit`.

use std::path::PathBuf;

use diskweave::core::locate::ChainPolicy;
use diskweave::{CommitOptions, commit};

use super::call::{Call, FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, QUIET};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::image::directory;
use crate::interrupt::{INTERRUPTED, until_asked};
use crate::output::plain::print;
use crate::output::progress::Throttled;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    PROGRESS,
    FORMAT,
    IMAGE_OPTS,
    Flag::value('t', "cache"),
    Flag::switch('d', "drop"),
    Flag::value('b', "base"),
    Flag::value('r', "rate"),
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let rate = call.bytes("rate", "rate limit", 0, i64::MAX as u64)?;
    let image = call.one_image()?;
    call.check_cache("cache", "cache")?;
    let chain = image.open()?;
    image.warn_of_guess(&chain);
    if chain.layer_count() < 2 {
        return Err(Complaint::new("Image does not have a backing file"));
    }
    let mut options = CommitOptions::default();
    options.keep = call.said.has("drop") || call.said.has("base");
    if let Some(base) = call.said.value("base") {
        let missing = || {
            let (name, of) = (&base, image.name());
            Complaint::new(format!(
                "Did not find '{name}' in the backing chain of '{of}'"
            ))
        };
        // As the image names it, from its own directory, or as a path from where we are.
        let beside = directory(&image.path).join(&base);
        let paths = [PathBuf::from(&base), beside];
        let below = chain
            .links()
            .skip(1)
            .filter_map(|link| link.path?.canonicalize().ok());
        let below: Vec<PathBuf> = below.collect();
        let found = paths
            .into_iter()
            .find(|path| path.canonicalize().is_ok_and(|path| below.contains(&path)));
        options.base = Some(found.ok_or_else(missing)?);
    }
    drop(chain);
    let watcher = match rate {
        Some(rate) if rate > 0 => Box::new(Throttled::new(call.progress(), rate)),
        _ => call.progress(),
    };
    let disk = image.disk()?.policy(ChainPolicy::Any);
    let (done, interrupted) = until_asked(watcher, |watcher| {
        commit(&image.path, &disk, &options, watcher)
    });
    done.map_err(|error| {
        let code = if interrupted { INTERRUPTED } else { 1 };
        image.cannot_open(&error).with_code(code)
    })?;
    if !call.quiet() {
        print("Image committed.\n")?;
    }
    Ok(0)
}
