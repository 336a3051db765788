//! Reads a disk through L1 and L2 tables of the fuzzer's.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::entries(data);
});
