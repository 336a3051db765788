//! `bitmap`: the bitmaps of a qcow2 image, listed.

use diskweave::core::locate::ChainPolicy;
use serde_json::Value;

use super::{qcow2_facts, shown};
use crate::args::{Bitmap, Output};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::{plain, print};

pub(crate) fn run(args: &Bitmap) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    // They are all in the image itself.
    let disk = args.image.disk().policy(ChainPolicy::Deny);
    let chain = disk.open(&args.image.file).map_err(about)?;
    let bitmaps = qcow2_facts::bitmaps(chain.top()).map_err(about)?;
    match args.output {
        Output::Json => json::print(&bitmaps)?,
        Output::Human => print(&text(&bitmaps))?,
    }
    Ok(0)
}

/// One line each: how many bytes a bit stands for, the name, and what else is to be known.
fn text(bitmaps: &[Value]) -> String {
    let mut text = format!("Bitmaps: {}\n", bitmaps.len());
    for bitmap in bitmaps {
        let flags = bitmap["flags"].as_array();
        let flags: Vec<&str> = flags
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let flags = match &flags[..] {
            [] => String::new(),
            flags => format!(" ({})", flags.join(", ")),
        };
        let name = plain(bitmap["name"].as_str().unwrap_or_default());
        let granularity = bitmap["granularity"].as_u64().unwrap_or_default();
        text += &format!("{granularity:>12} {name}{flags}\n");
    }
    text
}
