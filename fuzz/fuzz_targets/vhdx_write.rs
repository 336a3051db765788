//! Opens a VHDX for writing, which replays its log to the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    vhdx_format::fuzz::open_writable(&testkit::folded::unfold(data));
});
