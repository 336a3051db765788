//! Waiting for a client, or for the wish to stop.

use std::io;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(not(unix))]
use std::{thread, time::Duration};

use super::listener::Listener;

/// The end that wakes; dropping it does too.
#[derive(Debug)]
pub(crate) struct Waker {
    #[cfg(unix)]
    end: UnixStream,
}

/// The end that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    #[cfg(unix)]
    end: UnixStream,
}

#[cfg(unix)]
pub(crate) fn pair() -> io::Result<(Waker, Waiter)> {
    let (waker, waiter) = UnixStream::pair()?;
    Ok((Waker { end: waker }, Waiter { end: waiter }))
}

#[cfg(not(unix))]
pub(crate) fn pair() -> io::Result<(Waker, Waiter)> {
    Ok((Waker {}, Waiter {}))
}

impl Waker {
    /// Wakes the other end, now and whenever it waits again.
    pub(crate) fn wake(&self) {
        #[cfg(unix)]
        let _ = self.end.shutdown(std::net::Shutdown::Both);
    }
}

impl Waiter {
    /// Returns when a client is there or somebody wakes it, or for no reason.
    #[cfg(unix)]
    pub(crate) fn wait(&self, listener: &Listener) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut ends = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&self.end, PollFlags::IN),
        ];
        match poll(&mut ends, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks again in a moment: here nothing waits for two things at once.
    #[cfg(not(unix))]
    pub(crate) fn wait(&self, _listener: &Listener) -> io::Result<()> {
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}
