//! A client that sends anything and hangs up, without a socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    blockdev_nbd::fuzz::session(data);
});
