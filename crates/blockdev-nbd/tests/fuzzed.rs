//! Seeds and finds of the fuzzer, replayed without it, and cut short at every byte.

// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use blockdev_nbd::fuzz::session;

fn inputs(kind: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let Ok(entries) = std::fs::read_dir(fuzz.join(kind).join("nbd_session")) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn every_seed_and_every_find_passes() {
    let seeds = inputs("seeds");
    assert!(!seeds.is_empty(), "there are no seeds");
    for input in seeds.iter().chain(&inputs("artifacts")) {
        let data = std::fs::read(input).unwrap();
        for len in 0..=data.len() {
            if std::panic::catch_unwind(|| session(&data[..len])).is_err() {
                panic!("{} fails at {len} bytes", input.display());
            }
        }
    }
}
