//! The table of what was reached: on the terminal, and as it stands in the documentation.

use super::limits::Limit;
use super::results::{Results, Row, Value};
use super::targets::{Met, TARGETS, Target, Verdict};

const HEAD: [&str; 6] = ["work", "ours", "reference", "ratio", "target", "met"];

/// A line of the table.
type Cells = [String; 6];

/// Prints every target with the rows that tell of it.
pub(crate) fn print(results: &Results) {
    let mut lines = Vec::new();
    for target in TARGETS {
        lines.extend(cells(target, results));
    }
    let mut widths = HEAD.map(str::len);
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.len());
        }
    }
    let show = |line: [&str; 6]| {
        for (cell, width) in line.iter().zip(widths) {
            print!("{cell:<width$}  ");
        }
        println!();
    };
    println!();
    show(HEAD);
    for line in &lines {
        show(line.each_ref().map(String::as_str));
    }
    for limit in limits(results.rows.iter()) {
        println!("\n{}) {}", limit.name, limit.what);
        for tried in limit.tried {
            println!("   tried: {tried}");
        }
    }
    let judged: Vec<_> = results.rows.iter().map(verdict).collect();
    let ended = |met: fn(Met) -> bool| {
        let verdicts = judged.iter().flatten();
        verdicts.filter(|verdict| met(verdict.met)).count()
    };
    println!(
        "\n{} met, {} not met for a reason given above, {} not met, {} not measured; {} more rows have no target",
        ended(|met| met == Met::Yes),
        ended(|met| met.limit().is_some()),
        ended(|met| met == Met::No),
        lines.iter().filter(|line| line[5] == NOT_MEASURED).count(),
        judged.iter().filter(|verdict| verdict.is_none()).count(),
    );
}

/// Why some of the rows do not reach their targets, each reason once.
fn limits<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<&'static Limit> {
    let mut limits: Vec<&Limit> = Vec::new();
    for limit in rows.filter_map(|row| verdict(row)?.met.limit()) {
        if !limits.iter().any(|known| known.name == limit.name) {
            limits.push(limit);
        }
    }
    limits
}

/// The same for a page, with the targets' own words.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for run in &results.runs {
        let (group, mib, rounds) = (&run.group, run.mib, run.rounds);
        text.push_str(&format!("- `{group}`: {mib} MiB, {rounds} rounds\n"));
    }
    for target in TARGETS {
        text.push_str(&format!("\n**{}**: {}", target.work, target.goal));
        if !target.reference.is_empty() {
            text.push_str(&format!(" (beside: {})", target.reference));
        }
        text.push_str(".\n\n");
        text.push_str(&format!(
            "| {} |\n|{}\n",
            HEAD.join(" | "),
            " --- |".repeat(6)
        ));
        for line in cells(target, results) {
            text.push_str(&format!("| {} |\n", line.join(" | ").replace('<', "&lt;")));
        }
        let judged = |row: &&Row| target.judges(row).is_some();
        for limit in limits(results.rows.iter().filter(judged)) {
            text.push_str(&format!("\n**{}.** {} Tried:\n\n", limit.name, limit.what));
            for tried in limit.tried {
                text.push_str(&format!("- {tried}\n"));
            }
        }
    }
    text
}

const MET: &str = "met";
const NOT_MET: &str = "NOT MET";
const NOT_MEASURED: &str = "not measured";

fn cells(target: &Target, results: &Results) -> Vec<Cells> {
    let judged = results.rows.iter();
    let lines: Vec<_> = judged
        .filter_map(|row| Some(cell_line(row, &target.judges(row)?)))
        .collect();
    if !lines.is_empty() {
        return lines;
    }
    let work = format!("{} ({})", target.work, target.groups().join(", "));
    let gap = String::new;
    vec![[
        work,
        gap(),
        target.reference.into(),
        gap(),
        target.goal.into(),
        NOT_MEASURED.into(),
    ]]
}

fn cell_line(row: &Row, verdict: &Verdict) -> Cells {
    let value = |value: Value| format!("{} {}", short(value.median), row.unit);
    let mut ours = value(row.ours);
    if let Some(peak) = row.peaks[0] {
        ours.push_str(&format!(", {} MiB", peak >> 20));
    }
    let mut reference = row.reference.clone();
    if let Some(theirs) = row.theirs {
        reference = format!("{reference}: {}", value(theirs));
    }
    if let Some(peak) = row.peaks[1] {
        reference.push_str(&format!(", {} MiB", peak >> 20));
    }
    let ratio = row
        .ratio()
        .map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let met = match (verdict.met, verdict.met.limit()) {
        (Met::Yes, _) => MET.into(),
        (_, Some(limit)) => format!("{NOT_MET}: {}", limit.name),
        (_, None) => NOT_MET.into(),
    };
    let work = format!("{}: {}", row.group, row.work);
    [work, ours, reference, ratio, verdict.need.clone(), met]
}

fn verdict(row: &Row) -> Option<Verdict> {
    TARGETS.iter().find_map(|target| target.judges(row))
}

/// Three places that count, and no more.
fn short(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
