//! Opens and checks an image with a snapshot table of the fuzzer's.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::snapshot_table(data);
});
