//! Checks a VHDX.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    vhdx_format::fuzz::check(&testkit::folded::unfold(data));
});
