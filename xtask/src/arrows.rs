//! Which crate may depend on which: the design's arrows, held against what cargo resolves.

use std::collections::BTreeSet;

use crate::sh::{self, Outcome};

/// Each crate of the workspace with the crates of ours it depends on, and no others. A crate that
/// is not in the list is a failure: whoever adds one decides here where it stands.
const ARROWS: &[(&str, &[&str])] = &[
    ("blockdev-core", &[]),
    ("vhdx-format", &["blockdev-core"]),
    ("qcow2-format", &["blockdev-core"]),
    ("blockdev-chain", &["blockdev-core"]),
    (
        "diskweave",
        &[
            "blockdev-chain",
            "blockdev-core",
            "qcow2-format",
            "vhdx-format",
        ],
    ),
    ("blockdev-nbd", &["blockdev-core"]),
    ("diskweave-cli", &["blockdev-nbd", "diskweave"]),
    ("diskweave-tokio", &["blockdev-core"]),
    ("testkit", &["blockdev-core"]),
    ("xtask", &[]),
];

/// Crates that people use; none may bring in the test kit.
const SHIPPED: &[&str] = &[
    "blockdev-core",
    "vhdx-format",
    "qcow2-format",
    "blockdev-chain",
    "blockdev-nbd",
    "diskweave",
    "diskweave-cli",
    "diskweave-tokio",
];

pub(crate) fn run() -> Outcome {
    members()?;
    for (package, allowed) in ARROWS {
        let direct = tree(&["--package", package, "--all-features", "--depth", "1"])?;
        let ours = ours(&direct, package);
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        if ours != allowed {
            return Err(format!(
                "{package} depends on {ours:?}; the design says {allowed:?}"
            ));
        }
        println!("{package} -> {}", list(&ours));
    }
    for package in SHIPPED {
        let all = tree(&["--package", package, "--all-features"])?;
        if all.contains("testkit") {
            return Err(format!("{package} ships the test kit"));
        }
    }
    let task = tree(&["--package", "xtask"])?;
    if task.len() != 1 {
        return Err(format!("xtask has dependencies: {task:?}"));
    }
    one_format_alone()?;
    no_executor()
}

/// Whoever does not ask for the adapter builds no executor.
fn no_executor() -> Outcome {
    for package in SHIPPED.iter().filter(|name| **name != "diskweave-tokio") {
        if tree(&["--package", package, "--all-features"])?.contains("tokio") {
            return Err(format!("{package} builds tokio"));
        }
    }
    println!("nothing but diskweave-tokio builds tokio");
    Ok(())
}

/// Without the feature no line of the other format is built.
fn one_format_alone() -> Outcome {
    for (feature, absent) in [("vhdx", "qcow2-format"), ("qcow2", "vhdx-format")] {
        let facade = ["--package", "diskweave", "--no-default-features"];
        let built = tree(&[&facade[..], &["--features", feature]].concat())?;
        if built.contains(absent) {
            return Err(format!("diskweave with {feature} alone builds {absent}"));
        }
        println!("diskweave with feature {feature} alone builds no {absent}");
    }
    Ok(())
}

fn members() -> Outcome {
    let found = tree(&["--workspace", "--depth", "0"])?;
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    if found == known {
        return Ok(());
    }
    let unknown: Vec<_> = found.symmetric_difference(&known).collect();
    Err(format!(
        "crates of the workspace and of the design differ: {unknown:?}"
    ))
}

/// The names of the packages that a normal build (no tests, no build scripts) for any system uses.
fn tree(arguments: &[&str]) -> Outcome<BTreeSet<String>> {
    let mut command = sh::cargo(&["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    command.args(["--target", "all", "--format", "{p}"]);
    let text = sh::output(command.args(arguments))?;
    let names = text.lines().filter_map(|line| line.split(' ').next());
    Ok(names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Those of `packages` that are ours, without `package` itself.
fn ours<'a>(packages: &'a BTreeSet<String>, package: &str) -> BTreeSet<&'a str> {
    let ours = |name: &&str| ARROWS.iter().any(|(of, _)| of == name);
    let names = packages.iter().map(String::as_str);
    names.filter(|name| *name != package).filter(ours).collect()
}

fn list(names: &BTreeSet<&str>) -> String {
    match names.len() {
        0 => "nothing of ours".into(),
        _ => names.iter().copied().collect::<Vec<_>>().join(", "),
    }
}
