//! The host's own calls, one small file per family of systems. `unsafe` lives here and nowhere
//! else in the project.

#[cfg(target_os = "linux")]
mod ofd_lock;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::*;
#[cfg(windows)]
pub(super) use windows::*;
