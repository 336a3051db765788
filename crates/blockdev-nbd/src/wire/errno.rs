//! The numbers by which replies tell errors ("Error values").

use blockdev_core::{Error, ErrorKind};

/// An error as clients know it. The numbers are the protocol's own, whatever the host's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errno {
    /// `EPERM`
    NotPermitted = 1,
    /// `EIO`
    Io = 5,
    /// `EINVAL`
    Invalid = 22,
    /// `ENOSPC`
    NoSpace = 28,
    /// `EOVERFLOW`
    Overflow = 75,
    /// `ENOTSUP`
    NotSupported = 95,
    /// `ESHUTDOWN`
    Shutdown = 108,
}

impl Errno {
    pub(crate) fn code(self) -> u32 {
        self as u32
    }
}

/// What a server's error is to whoever uses its disk.
pub(crate) fn kind(code: u32) -> ErrorKind {
    match code {
        1 => ErrorKind::ReadOnly,
        22 => ErrorKind::InvalidInput,
        28 => ErrorKind::NoSpace,
        95 => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
    }
}

impl From<&Error> for Errno {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::ReadOnly | ErrorKind::Policy => Self::NotPermitted,
            ErrorKind::InvalidInput | ErrorKind::OutOfRange => Self::Invalid,
            ErrorKind::NoSpace => Self::NoSpace,
            ErrorKind::Unsupported => Self::NotSupported,
            _ => Self::Io,
        }
    }
}
