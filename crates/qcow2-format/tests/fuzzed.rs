//! Seeds and finds of the fuzzer, replayed without it: the same bodies, every ordinary test run.

use std::path::{Path, PathBuf};

use qcow2_format::fuzz;

type Body = fn(&[u8]);

/// The same as in `fuzz/fuzz_targets/`.
const TARGETS: &[(&str, Body)] = &[
    ("qcow2_open", fuzz::open_and_read),
    ("qcow2_check", fuzz::check),
    ("qcow2_write", fuzz::write),
    ("qcow2_header", fuzz::header),
    ("qcow2_entries", fuzz::entries),
    ("qcow2_refcounts", fuzz::refcounts),
    ("qcow2_snapshots", fuzz::snapshot_table),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(name)
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn every_seed_and_every_find_passes() {
    for (target, body) in TARGETS {
        let seeds = inputs(&folder("seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        let finds = inputs(&folder("artifacts").join(target));
        for input in seeds.iter().chain(&finds) {
            let data = std::fs::read(input).unwrap();
            if std::panic::catch_unwind(|| body(&data)).is_err() {
                panic!("{target} fails on {}", input.display());
            }
        }
    }
}

#[test]
fn every_target_is_replayed() {
    let built = inputs(&folder("fuzz_targets"))
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name.starts_with("qcow2_"))
        .inspect(|name| assert!(TARGETS.iter().any(|(target, _)| target == name), "{name}"))
        .count();
    assert_eq!(built, TARGETS.len());
}
