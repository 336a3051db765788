//! Reading and writing with an end to one's patience.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::time::{Duration, Instant};

use super::ends::FromClient;
use super::stream::Stream;

/// Slowest rate that is borne with, in bytes a second.
const SLOWEST: u64 = 64 << 10;

/// True of failures that only mean that nothing came or went for a while.
pub(super) fn waited(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

pub(super) fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other side takes too long")
}

/// How long `len` bytes may take.
pub(super) fn allowance(patience: Duration, len: usize) -> Duration {
    patience + Duration::from_secs(len as u64 / SLOWEST)
}

/// The instant until which `len` bytes may take that begin now.
pub(super) fn due(patience: Duration, len: usize) -> Instant {
    Instant::now() + allowance(patience, len)
}

/// What a client sends.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    from: BufReader<FromClient<'a>>,
    stream: &'a Stream,
}

impl<'a> Incoming<'a> {
    /// What comes `from` the client by way of `stream`.
    pub(crate) fn new(from: FromClient<'a>, stream: &'a Stream) -> Self {
        Self {
            from: BufReader::new(from),
            stream,
        }
    }

    /// True when nothing has come that was not asked for yet.
    #[cfg(feature = "tls")]
    pub(crate) fn is_empty(&self) -> bool {
        self.from.buffer().is_empty()
    }

    /// Fills `buf` until `end`, however the client deals out its bytes.
    pub(crate) fn fill_until(&mut self, buf: &mut [u8], end: Instant) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(too_slow());
            }
            self.stream.set_read_timeout(left)?;
            filled += self.some(&mut buf[filled..])?;
        }
        Ok(())
    }

    /// From here on no read waits longer than `patience`.
    pub(crate) fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(patience)
    }

    /// Fills `buf`, for whose first byte the client may take for ever.
    ///
    /// False when the client has ended the connection between two messages.
    pub(crate) fn next(&mut self, buf: &mut [u8], patience: Duration) -> io::Result<bool> {
        let first = loop {
            match self.from.read(buf) {
                Ok(0) => return Ok(false),
                Ok(some) => break some,
                Err(error) if waited(&error) => {}
                Err(error) => return Err(error),
            }
        };
        self.fill(&mut buf[first..], patience)?;
        Ok(true)
    }

    /// Fills `buf` with what belongs to what has come already.
    pub(crate) fn fill(&mut self, buf: &mut [u8], patience: Duration) -> io::Result<()> {
        let end = due(patience, buf.len());
        let mut filled = 0;
        while filled < buf.len() {
            filled += self.some(&mut buf[filled..])?;
            if filled < buf.len() && Instant::now() >= end {
                return Err(too_slow());
            }
        }
        Ok(())
    }

    /// Reads `len` bytes that nobody wants.
    pub(crate) fn skip(&mut self, len: u32, patience: Duration) -> io::Result<()> {
        let mut left = len as usize;
        let mut buffer = vec![0; left.min(64 << 10)];
        while left > 0 {
            let piece = left.min(buffer.len());
            self.fill(&mut buffer[..piece], patience)?;
            left -= piece;
        }
        Ok(())
    }

    /// Some bytes, or none if nothing came for as long as a read may wait.
    fn some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buf) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if waited(&error) => Ok(0),
            other => other,
        }
    }
}

/// Sends `head` and `data` as one message, all of which has gone when this returns.
pub(crate) fn send(
    mut to: impl Write,
    head: &[u8],
    data: &[u8],
    patience: Duration,
) -> io::Result<()> {
    let end = due(patience, head.len() + data.len());
    let (mut head, mut data) = (head, data);
    loop {
        if head.is_empty() && data.is_empty() {
            match to.flush() {
                Err(error) if waited(&error) && Instant::now() < end => continue,
                Err(error) if waited(&error) => return Err(too_slow()),
                other => return other,
            }
        }
        let sent = match to.write_vectored(&[IoSlice::new(head), IoSlice::new(data)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => sent,
            Err(error) if waited(&error) => 0,
            Err(error) => return Err(error),
        };
        let of_head = sent.min(head.len());
        head = &head[of_head..];
        data = &data[sent - of_head..];
        if (!head.is_empty() || !data.is_empty()) && Instant::now() >= end {
            return Err(too_slow());
        }
    }
}
