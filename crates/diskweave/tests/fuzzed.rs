//! Seeds and finds of the fuzzer for chains, replayed without it.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use diskweave::fuzz::chain_mixed;
use testkit::folded::unfold_all;

fn inputs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(folder);
    let Ok(entries) = std::fs::read_dir(folder.join("chain_mixed")) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn every_chain_passes_under_every_policy() {
    let seeds = inputs("seeds");
    assert!(seeds.len() >= 4, "{seeds:?}");
    for input in seeds.iter().chain(&inputs("artifacts")) {
        let (choice, members) = unfold_all(&std::fs::read(input).unwrap());
        for policy in 0..8 {
            let run = || chain_mixed(choice & 0xF8 | policy, members.clone());
            if std::panic::catch_unwind(run).is_err() {
                panic!("{} fails under policy {policy}", input.display());
            }
        }
    }
}
