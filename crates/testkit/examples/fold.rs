//! Makes fuzz seeds from images: `cargo run -p testkit --example fold -- IMAGE SEED [--log]`.
//!
//! Payload is thinned out: what the fuzzer should change is the metadata. With `--log` the seed
//! is the log's ring alone, not folded into an image; with `--chain` it is several images, the top
//! first, and a choice of policy (0 deny, 1 handles, 2 beneath, 3 any).

use std::path::Path;

use testkit::folded::{LARGEST, fold, fold_all};
use testkit::mutate::{fix_vhdx_checksums, vhdx_log_range, vhdx_metadata_ranges};

const MIB: usize = 1 << 20;

/// Bytes kept at the start of each MiB of payload.
const KEPT: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seed, bytes) = match arguments.as_slice() {
        ["--chain", seed, choice, images @ ..] => {
            let choice = choice.parse().expect("a choice from 0 to 255");
            let folded: Vec<_> = images.iter().map(|image| folded(image, false)).collect();
            (seed, fold_all(choice, &folded))
        }
        [image, seed] => (seed, folded(image, false)),
        [image, seed, "--log"] => (seed, folded(image, true)),
        _ => panic!("usage: fold IMAGE SEED [--log] | fold --chain SEED CHOICE IMAGE..."),
    };
    std::fs::write(seed, bytes).expect("the seed can be written");
}

fn folded(image: &str, log_only: bool) -> Vec<u8> {
    let mut bytes = std::fs::read(Path::new(image)).expect("the image can be read");
    let mut fixed = bytes.clone();
    fix_vhdx_checksums(&mut fixed);
    // An image with wrong checksums is a seed for what happens then.
    let keep_checksums = fixed != bytes;
    let log = vhdx_log_range(&bytes).unwrap_or(0..0);
    let regions: Vec<_> = vhdx_metadata_ranges(&bytes);
    for at in (MIB..bytes.len()).step_by(KEPT) {
        let metadata = regions.iter().any(|range| range.contains(&at));
        // What is left of each MiB is where a sector bitmap begins, and shows a block that is read
        // from a wrong place.
        if !metadata && !at.is_multiple_of(MIB) {
            let end = (at + KEPT).min(bytes.len());
            bytes[at..end].fill(0);
        }
    }
    if log_only {
        bytes = bytes[log].to_vec();
    }
    // A file may end inside a sector; what is folded does not.
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.truncate(LARGEST / 512 * 512);
    fold(&bytes, keep_checksums)
}
