//! `bench`.

use std::time::Instant;

use diskweave::core::{BlockDevice, DiskWindow};

use super::call::{CACHE_MODES, Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, MOST, OBJECT, QUIET};
use crate::commands::bench::{Requests, Written, send};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::wording;
use crate::output::plain::print;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    Flag::value('t', "cache"),
    Flag::value('c', "count"),
    Flag::value('s', "buffer-size"),
    Flag::value('d', "depth"),
    Flag::value('o', "offset"),
    Flag::value('S', "step-size"),
    Flag::value('i', "aio"),
    Flag::switch('n', "native"),
    Flag::switch('w', "write"),
    Flag::value(' ', "pattern").long_only(),
    Flag::value(' ', "flush-interval").long_only(),
    Flag::switch(' ', "no-drain").long_only(),
    FORCE_SHARE,
    OBJECT,
];

const MOST_COUNT: u64 = i32::MAX as u64;

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let said = &call.said;
    let number = |option, what, least, most| call.bytes(option, what, least, most);
    let count = call
        .count("count", "request count", 1, MOST_COUNT)?
        .unwrap_or(75_000);
    let depth = call
        .count("depth", "queue depth", 1, MOST_COUNT)?
        .unwrap_or(64);
    let offset = number("offset", "offset", 0, MOST)?.unwrap_or(0);
    let size = number("buffer-size", "buffer size", 1, MOST_COUNT)?.unwrap_or(4096);
    let step = number("step-size", "step size", 0, MOST_COUNT)?.filter(|step| *step > 0);
    let step = step.unwrap_or(size);
    let pattern = call.count("pattern", "pattern byte", 0, 255)?.unwrap_or(0);
    let interval = call
        .count("flush-interval", "flush interval", 0, MOST_COUNT)?
        .unwrap_or(0);
    let cache = said.value("cache");
    if cache
        .as_ref()
        .is_some_and(|mode| !CACHE_MODES.contains(&&**mode))
    {
        return Err(Complaint::new("Invalid cache mode"));
    }
    let aio = said.value("aio");
    if let Some(aio) = &aio
        && !["threads", "native", "io_uring"].contains(&&**aio)
    {
        return Err(Complaint::new(format!("Invalid aio option: {aio}")));
    }
    let writes = said.has("write");
    if interval > 0 && !writes {
        let text = "--flush-interval is only available in write tests";
        return Err(Complaint::new(text));
    }
    if interval > 0 && interval < depth {
        let text = "Flush interval can't be smaller than depth";
        return Err(Complaint::new(text));
    }
    let image = call.one_image()?;
    let direct = matches!(cache.as_deref(), Some("none" | "off" | "directsync"));
    if (said.has("native") || aio.as_deref() == Some("native")) && !direct {
        let text = format!(
            "Could not open '{}': aio=native was specified, but it requires cache.direct=on, which was \
             not specified.",
            image.name()
        );
        return Err(Complaint::new(text));
    }
    let chain = match writes {
        true => image.open_writable()?,
        false => image.open()?,
    };
    let verb = if writes { "write" } else { "read" };
    print(&format!(
        "Sending {count} {verb} requests, {size} bytes each, {depth} in parallel (starting at offset \
         {offset}, step size {step})\n"
    ))?;
    if interval > 0 {
        print(&format!("Sending flush every {interval} requests\n"))?;
    }
    let requests = Requests {
        count,
        depth,
        bytes: usize::try_from(size).expect("at most 2 GiB"),
        offset,
        step,
        written: writes.then_some(Written {
            pattern: u8::try_from(pattern).expect("at most 255"),
            flush_interval: interval,
            drained: !said.has("no-drain"),
        }),
    };
    let started = Instant::now();
    // What reads can have is in whole sectors.
    let sectors = chain.size().next_multiple_of(512);
    let window = DiskWindow::new(&chain, 0, sectors).map_err(|e| image.cannot_open(&e))?;
    let disk: &dyn BlockDevice = if writes { &chain } else { &window };
    send(disk, &requests).map_err(|error| {
        let reason = wording::host(&error).unwrap_or_else(|| "Input/output error".into());
        Complaint::new(format!("Failed request: {reason}"))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    print(&format!("Run completed in {seconds:.3} seconds.\n"))?;
    chain.close().map_err(|error| image.cannot_open(&error))?;
    Ok(0)
}
