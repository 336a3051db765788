//! The host's own calls, one small file per family of systems. `unsafe` lives here and nowhere
//! else in the project.

#[cfg(target_os = "linux")]
mod direct;
#[cfg(target_os = "linux")]
mod ofd_lock;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(super) mod ring;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(super) use direct::open_direct;
#[cfg(unix)]
pub(super) use unix::*;
#[cfg(windows)]
pub(super) use windows::*;

/// There is no direct I/O to be had.
#[cfg(not(target_os = "linux"))]
pub(super) fn open_direct(
    _: &std::fs::File,
    _: bool,
) -> crate::Result<(std::fs::File, super::direct::DirectRules)> {
    let text = "direct I/O is done on Linux only";
    Err(crate::Error::new(crate::ErrorKind::Unsupported, text))
}
