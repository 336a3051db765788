//! `qemu-nbd`.

use std::ffi::OsString;

use super::complaint::Complaint;

/// Runs it with `arguments` as `name`, and gives the exit code.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> u8 {
    let _ = arguments;
    let complaint = Complaint::new("its command line is not taken yet: see 'diskweave serve'");
    complaint.show(super::name_of(name));
    complaint.code
}
