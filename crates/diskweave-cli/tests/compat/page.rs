//! The page that tells what is taken, and what differs.

use std::collections::BTreeSet;
use std::process::Command;

use super::tables;

const PAGE: &str = include_str!("../../../../docs/compat.md");

/// The part of the page about `verb`.
fn section(verb: &str) -> &'static str {
    let heading = format!("## {verb}\n");
    let (_, rest) = PAGE
        .split_once(&heading)
        .unwrap_or_else(|| panic!("nothing is said of {verb}"));
    rest.split("\n## ").next().unwrap()
}

/// What a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Words of a help text that are options.
fn options(help: &str) -> BTreeSet<String> {
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let of_one_letter = |word: &str| word.len() == 2 && word.as_bytes()[1].is_ascii_alphabetic();
    let long = |word: &str| {
        let name = word.strip_prefix("--").unwrap_or_default();
        name.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    words
        .filter(|word| word.starts_with('-') && (of_one_letter(word) || long(word)))
        .map(str::to_string)
        .collect()
}

#[test]
fn every_option_of_either_is_on_the_page() {
    if testkit::oracle::QemuImg::find().is_none() {
        return;
    }
    let ours = env!("CARGO_BIN_EXE_diskweave");
    for table in tables() {
        let verb = table.verb;
        if verb == "global" {
            continue;
        }
        let told = options(section(verb));
        let mut all = options(&said(ours, &["--compat=qemu-img", verb, "--help"]));
        assert!(all.contains("--help") || !all.is_empty(), "{verb}");
        all.extend(options(&said("qemu-img", &[verb, "--help"])));
        let untold: Vec<_> = all.difference(&told).collect();
        assert!(untold.is_empty(), "{verb}: {untold:?}");
    }
}

#[test]
fn every_difference_is_on_the_page_with_its_reason_and_no_case_that_is_not_there() {
    let tables = tables();
    let groups = tables.iter().flat_map(|table| &table.groups);
    let cases: Vec<_> = groups.flat_map(|group| &group.cases).collect();
    let names: BTreeSet<String> = cases.iter().map(ToString::to_string).collect();
    for case in &cases {
        for listed in &case.differs {
            let row = PAGE
                .lines()
                .find(|line| line.contains(listed.reason) && line.contains(&format!("`{case}`")));
            assert!(row.is_some(), "{case}: {}", listed.reason);
        }
    }
    let quoted = PAGE.split('`').skip(1).step_by(2);
    for name in quoted.filter(|name| name.contains('/') && !name.ends_with('/')) {
        assert!(names.contains(name), "{name} is no case");
    }
}
