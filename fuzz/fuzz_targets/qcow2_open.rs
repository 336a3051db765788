//! Opens a qcow2 image and its snapshots, and reads what can be read.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::open_and_read(data);
});
