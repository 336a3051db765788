//! Times of the hot paths: `cargo bench --manifest-path benches/Cargo.toml --ignore-rust-version`, with a
//! name behind it for one of them.

use criterion::{Criterion, criterion_group, criterion_main};
use hot_paths::PATHS;

fn steps(criterion: &mut Criterion) {
    for path in PATHS.iter().filter(|path| path.is_endless) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut step = path.prepare(dir.path()).expect(path.name);
        criterion.bench_function(path.name, |bencher| bencher.iter(&mut step));
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
