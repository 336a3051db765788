//! Changes: refused by read-only devices, exact on others.

use std::io::IoSlice;

use blockdev_core::{BlockDevice, ErrorKind, ZeroFlags};

use super::points::{self, LARGEST};
use super::read::{readable, same};
use crate::Rng;

/// Checks that a read-only `device` refuses every change with [`ErrorKind::ReadOnly`], claims no
/// such ability, and can be flushed.
///
/// # Panics
/// Where it does otherwise.
pub fn refuses_changes(device: &dyn BlockDevice) {
    let info = device.info();
    assert!(info.read_only);
    assert!(
        !info.caps.write && !info.caps.write_zeroes && !info.caps.discard,
        "a read-only device claims {:?}",
        info.caps
    );
    let kind = |result: blockdev_core::Result<()>| result.map_err(|error| error.kind());
    let refused = Err(ErrorKind::ReadOnly);
    for at in [0, 1, info.size / 2, info.size.saturating_sub(1)] {
        if at >= info.size {
            continue;
        }
        assert_eq!(kind(device.write_at(&[1], at)), refused, "write at {at:#x}");
        let vectored = device.writev_at(&[IoSlice::new(&[1])], at);
        assert_eq!(kind(vectored), refused, "vectored write at {at:#x}");
        assert_eq!(kind(device.discard(at, 1)), refused, "discard at {at:#x}");
        for flags in flags() {
            let zero = device.write_zeroes(at, 1, flags);
            assert_eq!(kind(zero), refused, "zero at {at:#x}");
        }
    }
    device
        .flush()
        .expect("a read-only device has nothing to make stable");
}

fn flags() -> [ZeroFlags; 3] {
    let none = ZeroFlags::default();
    [
        none,
        ZeroFlags {
            may_unmap: true,
            ..none
        },
        ZeroFlags {
            no_fallback: true,
            ..none
        },
    ]
}

/// Writes, zeroes and discards all over a writable `device` and checks the content after each
/// step. `content` is what it shows at the start and is kept in step, so that the caller can reopen
/// the image and compare again.
///
/// # Panics
/// Where the device shows something else.
pub fn writable(device: &dyn BlockDevice, content: &mut [u8]) {
    assert!(!device.info().read_only && device.info().caps.write);
    readable(device, &*content);
    let mut rng = Rng::new(7);
    for at in points::offsets(device.info(), &[]) {
        for len in [1, 511, 512, 4096, 65_537] {
            write(device, content, at, len, &mut rng);
        }
    }
    for (n, len) in points::lengths(device.info()).into_iter().enumerate() {
        let at = rng.below(device.size() + 1);
        write(device, content, at, len, &mut rng);
        zero(device, content, at / 2, len, flags()[n % 3]);
        discard(device, content, at / 3, len);
    }
    out_of_range(device);
    device.flush().expect("flush");
    readable(device, &*content);
}

/// The part of `content` that `len` bytes at `at` stand for, cut at the end of the disk.
fn part(content: &mut [u8], at: u64, len: u64) -> &mut [u8] {
    let from = usize::try_from(at).expect("inside the disk");
    let len = usize::try_from(len.min(LARGEST)).expect("a request's length");
    let to = (from + len).min(content.len());
    &mut content[from..to]
}

fn write(device: &dyn BlockDevice, content: &mut [u8], at: u64, len: u64, rng: &mut Rng) {
    let new = part(content, at, len);
    rng.fill(new);
    let (head, tail) = new.split_at(new.len() / 3);
    let done = if rng.one_in(2) {
        device.writev_at(&[IoSlice::new(head), IoSlice::new(tail)], at)
    } else {
        device.write_at(new, at)
    };
    if let Err(error) = done {
        panic!("write of {len} bytes at {at:#x}: {error}");
    }
    around(device, content, at, len);
}

fn zero(device: &dyn BlockDevice, content: &mut [u8], at: u64, len: u64, flags: ZeroFlags) {
    let zeroed = part(content, at, len);
    match device.write_zeroes(at, zeroed.len() as u64, flags) {
        Ok(()) => zeroed.fill(0),
        Err(error) if flags.no_fallback && error.kind() == ErrorKind::Unsupported => {}
        Err(error) => panic!("zero of {len} bytes at {at:#x}: {error}"),
    }
    around(device, content, at, len);
}

/// After a discard each byte is as before or zero, and stays what it is.
fn discard(device: &dyn BlockDevice, content: &mut [u8], at: u64, len: u64) {
    let old = part(content, at, len);
    if let Err(error) = device.discard(at, old.len() as u64) {
        panic!("discard of {len} bytes at {at:#x}: {error}");
    }
    let mut seen = vec![0xEE; old.len()];
    device
        .read_at(&mut seen, at)
        .expect("a discarded range can be read");
    for (i, (seen, old)) in seen.iter().zip(old.iter()).enumerate() {
        assert!(
            *seen == 0 || seen == old,
            "after the discard at {at:#x}, {:#x} holds neither zero nor what it held",
            at + i as u64
        );
    }
    old.copy_from_slice(&seen);
    around(device, content, at, len);
}

/// Compares the range of a change with a page on both sides.
fn around(device: &dyn BlockDevice, content: &[u8], at: u64, len: u64) {
    let from = at.saturating_sub(4096);
    same(device, content, from, len.min(LARGEST - 8192) + 8192);
}

fn out_of_range(device: &dyn BlockDevice) {
    let size = device.size();
    let refused = Err(ErrorKind::OutOfRange);
    for at in [size, u64::MAX] {
        let kind = |result: blockdev_core::Result<()>| result.map_err(|error| error.kind());
        assert_eq!(kind(device.write_at(&[1], at)), refused);
        assert_eq!(kind(device.discard(at, 1)), refused);
        let zero = device.write_zeroes(at, 1, ZeroFlags::default());
        assert_eq!(kind(zero), refused);
    }
}
