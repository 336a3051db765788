//! `chain`: an image and its parents, each with how it was found.

use diskweave::chain::LayerInfo;
use serde_json::{Value, json};

use super::shown;
use crate::args::{Chain, Output};
use crate::failure::Failure;
use crate::output::json;
use crate::output::size::human;

pub(crate) fn run(args: &Chain) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.file), e);
    let disk = args.open.disk(&args.file, args.format.as_ref());
    let (chain, problem) = disk.open_partial(&args.file).map_err(about)?;
    match args.output {
        Output::Json => {
            let layers: Vec<Value> = chain.links().map(|link| as_json(&link)).collect();
            json::print(&json!({ "layers": layers, "complete": !chain.is_detached() }))?;
        }
        Output::Human => {
            for link in chain.links() {
                println!("{}", as_line(&link));
            }
            if let Some(parent) = chain.missing_parent() {
                let names: Vec<String> = parent
                    .names
                    .iter()
                    .map(|name| format!("{:?}", name.stored))
                    .collect();
                let indent = "   ".repeat(chain.layer_count() - 1);
                println!("{indent}└─ not open: {}", names.join(", "));
            }
        }
    }
    match problem {
        // The layers above it were shown first.
        Some(problem) => Err(about(problem)),
        None => Ok(0),
    }
}

fn as_line(link: &LayerInfo<'_>) -> String {
    let depth = usize::try_from(link.depth).expect("the depth of a layer");
    let branch = match depth {
        0 => String::new(),
        depth => format!("{}└─ ", "   ".repeat(depth - 1)),
    };
    let path = link
        .path
        .map_or_else(String::new, |path| path.display().to_string());
    let id = link
        .content_id
        .map_or_else(String::new, |id| format!("  {{{id}}}"));
    let found = match depth {
        0 => String::new(),
        _ => format!("  found by {}", link.found),
    };
    let (format, size) = (link.format, human(link.size));
    format!(
        "{branch}{}  {format}  {size}{id}{found}",
        path.escape_debug()
    )
}

fn as_json(link: &LayerInfo<'_>) -> Value {
    json!({
        "depth": link.depth,
        "filename": link.path.map(|path| path.display().to_string()),
        "format": link.format,
        "virtual-size": link.size,
        "content-id": link.content_id.map(|id| id.to_string()),
        "found-by": link.found.to_string(),
    })
}
