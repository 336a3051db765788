//! Decodes each structure of a VHDX from the same bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhdx_format::fuzz::structures(data));
