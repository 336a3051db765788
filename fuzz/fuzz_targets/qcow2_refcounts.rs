//! Checks an image with a refcount table and blocks of the fuzzer's.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::refcounts(data);
});
