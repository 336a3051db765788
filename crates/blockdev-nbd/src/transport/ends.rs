//! The two ends of a conversation on this side of it: in the clear, or within TLS.

use std::io::{self, IoSlice, Read, Write};

use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls::{Opening, Sealing};

/// Where what the client says comes out.
#[derive(Debug)]
pub(super) enum FromClient<'a> {
    Plain(&'a Stream),
    #[cfg(feature = "tls")]
    Tls(Box<Opening<&'a Stream>>),
}

/// Where what is said to the client goes in.
#[derive(Debug)]
pub(super) enum ToClient<'a> {
    Plain(&'a Stream),
    #[cfg(feature = "tls")]
    Tls(Sealing<&'a Stream>),
}

impl Read for FromClient<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            #[cfg(feature = "tls")]
            Self::Tls(opening) => opening.read(buf),
        }
    }
}

impl Write for ToClient<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write_vectored(bufs),
            #[cfg(feature = "tls")]
            Self::Tls(sealing) => sealing.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            #[cfg(feature = "tls")]
            Self::Tls(sealing) => sealing.flush(),
        }
    }
}

impl ToClient<'_> {
    /// Says that nothing more will come, where there are words for it.
    pub(super) fn leave(&mut self) {
        #[cfg(feature = "tls")]
        if let Self::Tls(sealing) = self {
            sealing.leave();
        }
    }
}
