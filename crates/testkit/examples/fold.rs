//! Makes fuzz seeds from images: `cargo run -p testkit --example fold -- IMAGE SEED [--log]`.
//!
//! Payload is thinned out: what the fuzzer should change is the metadata. With `--log` the seed is the log's ring alone, not folded into an image.

use std::path::Path;

use testkit::folded::{LARGEST, fold};
use testkit::mutate::{fix_vhdx_checksums, vhdx_log_range, vhdx_metadata_ranges};

const MIB: usize = 1 << 20;

/// Bytes kept at the start of each MiB of payload.
const KEPT: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (image, seed, log_only) = match arguments.as_slice() {
        [image, seed] => (image, seed, false),
        [image, seed, log] if log == "--log" => (image, seed, true),
        _ => panic!("usage: fold IMAGE SEED [--log]"),
    };
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
    bytes.truncate(LARGEST / 512 * 512);
    std::fs::write(seed, fold(&bytes, keep_checksums)).expect("the seed can be written");
}
