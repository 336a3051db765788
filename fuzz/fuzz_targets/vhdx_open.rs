//! Opens a VHDX read-only and reads all of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    vhdx_format::fuzz::open_and_read(&testkit::folded::unfold(data));
});
