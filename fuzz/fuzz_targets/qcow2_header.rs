//! Opens what claims to be a qcow2's first cluster.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    qcow2_format::fuzz::header(data);
});
