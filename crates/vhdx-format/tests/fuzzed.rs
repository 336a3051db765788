//! Seeds and finds of the fuzzer, replayed without it: the same bodies, every ordinary test run.
//!
//! A find is kept in `fuzz/artifacts/TARGET` under a name that says what it was, with a sentence in
//! [`FINDS`].

use std::path::{Path, PathBuf};

use testkit::folded::unfold;
use testkit::mutate::fix_vhdx_log_checksums;
use vhdx_format::fuzz;

type Body = fn(&[u8]);

/// The same as in `fuzz/fuzz_targets/`.
const TARGETS: &[(&str, Body)] = &[
    ("vhdx_open", |data| fuzz::open_and_read(&unfold(data))),
    ("vhdx_write", |data| fuzz::open_writable(&unfold(data))),
    ("vhdx_check", |data| fuzz::check(&unfold(data))),
    ("vhdx_log", |data| {
        let mut ring = unfold(data);
        fix_vhdx_log_checksums(&mut ring);
        fuzz::log(&ring);
    }),
    ("vhdx_structures", fuzz::structures),
];

/// File name of each find, and what was wrong.
const FINDS: &[(&str, &str)] = &[(
    "bat-entry-past-the-disk",
    "check subtracted a block's start from the size of a disk that ends before the block",
)];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(name)
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_seed_and_every_find_passes() {
    for (target, body) in TARGETS {
        let seeds = inputs(&folder("seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for input in seeds
            .iter()
            .chain(&inputs(&folder("artifacts").join(target)))
        {
            let data = std::fs::read(input).unwrap();
            if std::panic::catch_unwind(|| body(&data)).is_err() {
                panic!("{target} fails on {}", input.display());
            }
        }
    }
}

#[test]
fn every_find_has_its_sentence() {
    let targets = inputs(&folder("artifacts"));
    for find in targets.iter().flat_map(|target| inputs(target)) {
        let name = find.file_name().unwrap().to_str().unwrap();
        let told = FINDS
            .iter()
            .any(|(of, story)| *of == name && !story.is_empty());
        assert!(told, "{} is in artifacts without a story", find.display());
    }
}

#[test]
fn every_target_is_replayed() {
    let built: Vec<String> = inputs(&folder("fuzz_targets"))
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name.starts_with("vhdx_"))
        .collect();
    for name in &built {
        assert!(TARGETS.iter().any(|(target, _)| target == name), "{name}");
    }
    assert_eq!(built.len(), TARGETS.len());
}
