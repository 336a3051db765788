//! Opens a chain of images of all formats under one of the policies, and reads what can be read.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (choice, members) = testkit::folded::unfold_all(data);
    diskweave::fuzz::chain_mixed(choice, members);
});
