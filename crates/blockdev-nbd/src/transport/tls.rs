//! TLS between a socket and what is said by it.
//!
//! ```text
//!   socket ──► Opening ──► what comes    one thread
//!                 └─ state ─┐            locked while bytes are opened or sealed, never while one waits
//!   socket ◄── Sealing ◄── what goes     whoever has the turn
//! ```
//!
//! So one who takes nothing keeps nobody from reading what he sends, and the other way round. Only
//! [`Sealing`] writes: what the state has to say for itself goes with the next message.

use std::io::{self, IoSlice, Read, Write};
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::stream::Stream;
use super::timed::{send, too_slow, waited};

/// Sealed bytes that are taken from the socket at once: little more than a record has.
const PIECE: usize = 18 << 10;
/// How long taking one's leave may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The state of a connection, shared by its two ends.
type State = Arc<Mutex<Connection>>;

fn lock(state: &State) -> MutexGuard<'_, Connection> {
    // A panic in there would be a mistake of the library's, which ends the connection by its own errors.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sealed bytes to plain ones.
#[derive(Debug)]
pub(super) struct Opening<S> {
    stream: S,
    state: State,
    sealed: Vec<u8>,
    /// Those of `sealed` that are still to be opened.
    left: Range<usize>,
}

/// Plain bytes to sealed ones.
#[derive(Debug)]
pub(super) struct Sealing<S> {
    stream: S,
    state: State,
    sealed: Vec<u8>,
    /// So many of `sealed` have gone.
    sent: usize,
}

/// Both directions of a connection.
type Ends<S> = (Opening<S>, Sealing<S>);

/// A server's handshake, which takes until `end` at most.
pub(super) fn accept(
    config: Arc<ServerConfig>,
    stream: &Stream,
    end: Instant,
) -> io::Result<Ends<&Stream>> {
    let state = ServerConnection::new(config).map_err(io::Error::other)?;
    shake_hands(state.into(), stream, end)
}

/// A client's handshake with the server `name`, which takes until `end` at most.
pub(super) fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: Arc<Stream>,
    end: Instant,
) -> io::Result<Ends<Arc<Stream>>> {
    let state = ClientConnection::new(config, name).map_err(io::Error::other)?;
    shake_hands(state.into(), stream, end)
}

fn shake_hands<S: Deref<Target = Stream> + Clone>(
    mut state: Connection,
    stream: S,
    end: Instant,
) -> io::Result<Ends<S>> {
    let mut sealed = vec![0; PIECE];
    let mut left = 0..0;
    let mut said = Vec::new();
    // A client speaks first.
    drain(&mut state, &mut said)?;
    send(&*stream, &said, &[], remaining(end)?)?;
    said.clear();
    while state.is_handshaking() {
        let remains = remaining(end)?;
        if left.is_empty() {
            stream.set_read_timeout(remains)?;
            let mut from = &*stream;
            left = match from.read(&mut sealed) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(some) => 0..some,
                Err(error) if waited(&error) => continue,
                Err(error) => return Err(error),
            };
        }
        let opened = open(&mut state, &sealed, &mut left);
        // Also where it failed: the other side is told why, if it listens.
        drain(&mut state, &mut said)?;
        let told = send(&*stream, &said, &[], remains);
        said.clear();
        opened.and(told)?;
    }
    let state = Arc::new(Mutex::new(state));
    let sealing = Sealing {
        stream: stream.clone(),
        state: Arc::clone(&state),
        sealed: said,
        sent: 0,
    };
    let opening = Opening {
        stream,
        state,
        sealed,
        left,
    };
    Ok((opening, sealing))
}

fn remaining(end: Instant) -> io::Result<Duration> {
    match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(too_slow()),
        left => Ok(left),
    }
}

/// Takes some of what is `left` of `sealed` in.
fn open(state: &mut Connection, sealed: &[u8], left: &mut Range<usize>) -> io::Result<()> {
    let taken = state.read_tls(&mut &sealed[left.clone()])?;
    if taken == 0 {
        // It would be tried for ever.
        return Err(io::ErrorKind::InvalidData.into());
    }
    left.start += taken;
    state
        .process_new_packets()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(())
}

/// Appends to `sealed` what is to be sent.
fn drain(state: &mut Connection, sealed: &mut Vec<u8>) -> io::Result<()> {
    while state.wants_write() {
        state.write_tls(sealed)?;
    }
    Ok(())
}

impl<S: Deref<Target = Stream>> Read for Opening<S> {
    /// Waits for the socket once at most: who deals out records with nothing in them is not waited for
    /// longer than one who deals out nothing. [`io::ErrorKind::WouldBlock`] when nothing came of it.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let before = lock(&self.state).reader().read(buf);
        match before {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        if self.left.is_empty() {
            let mut from = &*self.stream;
            // That it ends without a farewell is no matter: each request says how long it is.
            match from.read(&mut self.sealed)? {
                0 => return Ok(0),
                some => self.left = 0..some,
            }
        }
        let mut state = lock(&self.state);
        open(&mut state, &self.sealed, &mut self.left)?;
        state.reader().read(buf)
    }
}

impl<S: Deref<Target = Stream>> Write for Sealing<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// Takes some of `bufs` once everything before has gone; [`io::ErrorKind::WouldBlock`] until then.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let mut state = lock(&self.state);
        let taken = state.writer().write_vectored(bufs)?;
        drain(&mut state, &mut self.sealed)?;
        Ok(taken)
    }

    /// Writes to the socket once at most.
    fn flush(&mut self) -> io::Result<()> {
        if self.sent < self.sealed.len() {
            let mut to = &*self.stream;
            match to.write(&self.sealed[self.sent..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                some => self.sent += some,
            }
        }
        if self.sent < self.sealed.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.sealed.clear();
        self.sent = 0;
        Ok(())
    }
}

impl<S: Deref<Target = Stream>> Sealing<S> {
    /// Tells the other side that nothing more will come, and does not insist.
    pub(super) fn leave(&mut self) {
        let said = || {
            self.stream.set_write_timeout(FAREWELL)?;
            let mut state = lock(&self.state);
            state.send_close_notify();
            drain(&mut state, &mut self.sealed)?;
            drop(state);
            send(self, &[], &[], FAREWELL)
        };
        let _ = said();
    }
}
