//! `compare`: the exit code is the answer.

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, Result as CoreResult};
use diskweave::{Comparison, NoProgress, Progress};

use super::shown;
use crate::args::Compare;
use crate::failure::Failure;
use crate::output::plain::print;
use crate::output::progress;

const SAME: u8 = 0;
const DIFFERENT: u8 = 1;
pub(crate) const FAILED: u8 = 2;

const SIZES: &str = "Warning: Image size mismatch!";

pub(crate) fn run(args: &Compare) -> Result<u8, Failure> {
    let open = |path, format: &Option<String>| {
        let disk = args.open.disk(path, format.as_ref());
        let disk = args.read_cache.open(disk);
        disk.open(path)
            .map_err(|e| Failure::about(shown(path), e).with_code(FAILED))
    };
    let (first, second) = (
        open(&args.first, &args.format)?,
        open(&args.second, &args.second_format)?,
    );
    let watcher: Box<dyn Progress> = if args.progress {
        progress::choose(None, true, args.quiet)
    } else {
        Box::new(NoProgress)
    };
    let both = format!("{} and {}", shown(&args.first), shown(&args.second));
    show(&first, &second, args.strict, args.quiet, &*watcher)
        .map_err(|e| Failure::about(both, e).with_code(FAILED))?
}

/// Compares two disks and tells how it came out, if not `quiet`. Gives the exit code; the outer error is one
/// of comparing, the inner one of telling.
pub(crate) fn show(
    first: &Chain,
    second: &Chain,
    strict: bool,
    quiet: bool,
    watcher: &dyn Progress,
) -> CoreResult<Result<u8, Failure>> {
    let result = diskweave::compare(first, second, strict, watcher)?;
    Ok(tell(result, first, second, quiet))
}

fn tell(result: Comparison, first: &Chain, second: &Chain, quiet: bool) -> Result<u8, Failure> {
    let say = |text: &str| {
        if quiet {
            return Ok(());
        }
        print(&format!("{text}\n")).map_err(|failure| failure.or_code(FAILED))
    };
    Ok(match result {
        Comparison::Identical { sizes_differ } => {
            if sizes_differ {
                say(SIZES)?;
            }
            say("Images are identical.")?;
            SAME
        }
        Comparison::ContentDiffers { offset } => {
            if offset >= first.size().min(second.size()) {
                say(SIZES)?;
            }
            // By sector, as qemu-img tells it.
            say(&format!(
                "Content mismatch at offset {}!",
                offset / 512 * 512
            ))?;
            DIFFERENT
        }
        Comparison::SizesDiffer => {
            say("Strict mode: Image size mismatch!")?;
            DIFFERENT
        }
        Comparison::AllocationDiffers { offset } => {
            say(&format!(
                "Strict mode: Offset {offset} block status mismatch!"
            ))?;
            DIFFERENT
        }
    })
}
