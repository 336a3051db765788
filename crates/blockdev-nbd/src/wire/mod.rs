//! The bytes of the protocol: constants, and fields to bytes and back. No state, no I/O.
//!
//! Rules are cited by the headings of the NBD project's `doc/proto.md`. Every number is big-endian.

pub(crate) mod errno;
pub(crate) mod fields;
pub(crate) mod flags;
pub(crate) mod handshake;
pub(crate) mod info;
pub(crate) mod option;
pub(crate) mod reply;
pub(crate) mod request;
