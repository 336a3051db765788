//! Marks of formats that this build has no driver for: a file that bears one is no raw disk by
//! mere guess.
//!
//! Only what another program would take for its own at the first look is listed. An encrypted or
//! partitioned disk is a disk, whatever it begins with.

use blockdev_core::{Result, Storage, StorageExt};

/// Byte offset, mark, and the format's name as `qemu-img` has it.
const MARKS: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"conectix", "vpc"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
];

/// How many bytes at the start of a disk decide it.
const HEAD_BYTES: usize = 512;

/// The format whose mark a disk that begins with `head` bears.
pub(crate) fn mark_in(head: &[u8]) -> Option<&'static str> {
    let bears = |(at, mark, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(mark))
    };
    MARKS.iter().find(bears).map(|(_, _, name)| *name)
}

/// The same for a file.
///
/// # Errors
/// [`Io`](blockdev_core::ErrorKind::Io).
pub(crate) fn mark_of(storage: &dyn Storage) -> Result<Option<&'static str>> {
    let mut head = [0; HEAD_BYTES];
    let len = storage.read_up_to(&mut head, 0)?;
    Ok(mark_in(&head[..len]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_seen_in_its_place_and_nowhere_else() {
        for (at, mark, name) in MARKS {
            let mut head = vec![0; at + mark.len()];
            head[*at..].copy_from_slice(mark);
            assert_eq!(mark_in(&head), Some(*name));
            assert_eq!(mark_in(&head[..head.len() - 1]), None, "cut short");
            head.insert(0, 0);
            assert_eq!(mark_in(&head), None, "{name} one byte on");
        }
        assert_eq!(mark_in(&[]), None);
    }
}
