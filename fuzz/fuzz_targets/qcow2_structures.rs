//! Decodes each qcow2 structure from the same bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::structures(data);
});
