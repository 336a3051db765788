//! Scans a log's ring by itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut ring = testkit::folded::unfold(data);
    testkit::mutate::fix_vhdx_log_checksums(&mut ring);
    vhdx_format::fuzz::log(&ring);
});
