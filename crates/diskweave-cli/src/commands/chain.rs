//! `chain`: an image and its parents, each with how it was found.

use diskweave::chain::{Chain as Layers, FoundBy, LayerInfo};
use serde_json::{Value, json};

use super::shown;
use crate::args::{Chain, Output};
use crate::failure::Failure;
use crate::output::json;
use crate::output::plain::{plain, print};
use crate::output::size::human;

pub(crate) fn run(args: &Chain) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    let disk = args.image.disk();
    let (chain, problem) = disk.open_partial(&args.image.file).map_err(about)?;
    match args.output {
        Output::Json => {
            let layers: Vec<Value> = chain.links().map(|link| as_json(&link)).collect();
            json::print(&json!({ "layers": layers, "complete": !chain.is_detached() }))?;
        }
        Output::Human => print(&as_tree(&chain))?,
    }
    match problem {
        // The layers above it were shown first.
        Some(problem) => Err(about(problem)),
        None => Ok(0),
    }
}

fn as_tree(chain: &Layers) -> String {
    let mut out = String::new();
    for link in chain.links() {
        out += &as_line(&link);
        out.push('\n');
    }
    if let Some(parent) = chain.missing_parent() {
        let names: Vec<String> = parent
            .names
            .iter()
            .map(|name| format!("{} \"{}\"", name.kind.as_str(), plain(&name.stored)))
            .collect();
        let names = match names.as_slice() {
            [] => "named by no path".into(),
            names => names.join(", "),
        };
        let indent = "   ".repeat(chain.layer_count() - 1);
        out += &format!("{indent}└─ not open: {names}\n");
    }
    out
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
        _ => format!("  found by {}", found(link.found)),
    };
    let (format, size) = (link.format, human(link.size));
    format!("{branch}{}  {format}  {size}{id}{found}", plain(&path))
}

fn found(by: &FoundBy) -> String {
    match by {
        FoundBy::Given => "given".into(),
        FoundBy::Handle => "handle".into(),
        FoundBy::Name(name) => format!("{} \"{}\"", name.kind.as_str(), plain(&name.stored)),
    }
}

fn as_json(link: &LayerInfo<'_>) -> Value {
    let (found_by, name) = match link.found {
        FoundBy::Given => ("given", None),
        FoundBy::Handle => ("handle", None),
        FoundBy::Name(name) => (name.kind.as_str(), Some(&name.stored)),
    };
    json!({
        "depth": link.depth,
        "filename": link.path.map(|path| path.display().to_string()),
        "format": link.format,
        "virtual-size": link.size,
        "content-id": link.content_id.map(|id| id.to_string()),
        "found-by": found_by,
        "name": name,
    })
}
