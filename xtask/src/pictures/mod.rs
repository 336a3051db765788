//! `cargo xtask pictures`: the curves of `cargo xtask bench scale` as pictures in `docs/performance`, and
//! the numbers of the page beside them.

mod curves;
mod svg;

use std::fs;
use std::path::Path;

use crate::bench::results::{Book, Results};
use crate::bench::table;
use crate::sh::{self, Outcome};

const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- results -->";
const END: &str = "<!-- /results -->";

/// From the file that is named, or from where `bench` keeps it.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let path = match arguments {
        [] => Book::usual()?.path().to_owned(),
        [path] => path.into(),
        _ => return Err("usage: cargo xtask pictures [RESULTS]".into()),
    };
    let results = Results::read(&path)?;
    let dir = sh::root().join("docs/performance");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for curve in curves::CURVES {
        let points = results.points.iter();
        let points: Vec<_> = points.filter(|point| point.curve == curve.name).collect();
        if points.is_empty() {
            println!("{}: not measured", curve.name);
            continue;
        }
        let file = dir.join(curve.name).with_extension("svg");
        fs::write(&file, svg::draw(curve, &points)).map_err(|error| error.to_string())?;
        println!("{}", file.display());
    }
    fill(&sh::root().join(PAGE), &table::markdown(&results))
}

/// Puts `numbers` between the marks of the page.
fn fill(page: &Path, numbers: &str) -> Outcome {
    let text = fs::read_to_string(page).map_err(|e| format!("{}: {e}", page.display()))?;
    let filled =
        between(&text, numbers).ok_or_else(|| format!("{}: no {BEGIN} … {END}", page.display()))?;
    fs::write(page, filled).map_err(|error| error.to_string())
}

fn between(text: &str, numbers: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{numbers}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let once = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let filled = between(&once, "new\n").expect("marks");
        assert_eq!(filled, format!("head\n{BEGIN}\nnew\n{END}\ntail\n"));
        assert_eq!(between("no marks", "new"), None);
    }
}
