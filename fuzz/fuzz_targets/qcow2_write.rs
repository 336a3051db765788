//! Opens a qcow2 image for writing, changes it and repairs it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::write(data);
});
