//! The export of a server as a host container: what images can lie in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::ToSocketAddrs;
#[cfg(unix)]
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use blockdev_core::{Error, ErrorKind, FileId, HostExtent, Result, Storage, SyncKind, fits};

use crate::ClientOptions;
use crate::client_credentials::ClientCredentials;
use crate::peer::Peer;
use crate::session::facts::Facts;
use crate::session::gathering::{Failure, Reply};
use crate::session::piece::Piece;
use crate::transport::dialogue::Dialogue;
use crate::uri::Uri;
use crate::wire::errno;
use crate::wire::flags::allocation::{HOLE, ZERO};
use crate::wire::flags::command::{NO_HOLE, REQ_ONE};
use crate::wire::request::{self, RequestHead};

/// Most bytes of zeros or of status asked for at once: a multiple of every smallest request.
const RANGE_AT_ONCE: u32 = 1 << 30;
/// Longest name of an export, in bytes: the protocol's longest string.
const MOST_NAME: usize = 4096;

/// The export of an NBD server, whichever, as a [`Storage`] of fixed length.
///
/// One connection, on which the requests of several threads are under way side by side, with structured
/// replies and `base:allocation` where the server has them. Servers that know no `GO` are refused.
///
/// The server is not trusted: what it sends is held against what was asked, it may not take longer for a
/// step than [`ClientOptions::patience`] says, and no length of its own is taken memory for. A connection
/// that failed stays so: what failed is told to whose requests were under way, each later call fails as
/// [`ErrorKind::Poisoned`]; open another. It is not made again by itself: what was written and not yet
/// flushed may be lost, and nobody would be told.
///
/// # What a server does not offer
///
/// Without `FLUSH`, nothing that is written can be made to last: [`sync`](Storage::sync) is
/// [`ErrorKind::Unsupported`] then, unless nothing was written. Without `WRITE_ZEROES` zeros are written
/// as data, and holes are [`ErrorKind::Unsupported`]. (`TRIM` promises no zeros, and is not used.) Where
/// requests must lie on multiples of a size, the block around an edge is read, changed and written.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::{BlockDevice, LoneLayer, RawLayer};
/// use blockdev_nbd::{ClientOptions, NbdStorage};
///
/// let export = NbdStorage::connect("nbd://127.0.0.1/disk", &ClientOptions::default())?;
/// let disk = LoneLayer::new(Box::new(RawLayer::open(Arc::new(export))?));
/// println!("{} bytes", disk.size());
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Debug)]
pub struct NbdStorage {
    facts: Facts,
    size: u64,
    /// Something was sent that a flush would have to make last.
    wrote: AtomicBool,
    /// Taken alone by who reads a block, changes a part of it and writes it back, shared by who writes
    /// whole blocks: what the one writes meanwhile is not to be undone by the other.
    edges: RwLock<()>,
    identity: FileId,
    dialogue: Dialogue,
}

fn head(kind: u16, offset: u64, len: u32) -> RequestHead {
    RequestHead {
        flags: 0,
        kind,
        cookie: 0,
        offset,
        len,
    }
}

fn length(buf: &[u8]) -> u32 {
    u32::try_from(buf.len()).expect("no longer than the longest request")
}

fn told(failure: &Failure) -> Error {
    let text = match (failure.text.is_empty(), failure.code) {
        (true, code) => format!("the server fails with error {code}"),
        (false, code) => format!("the server fails with error {code}: {}", failure.text),
    };
    Error::new(errno::kind(failure.code), text)
}

impl NbdStorage {
    /// The export that `uri` names: `nbd://HOST[:PORT]/NAME`, `nbd+unix:///NAME?socket=PATH`, or the same in
    /// QEMU's older spelling, `nbd:HOST:PORT[:exportname=NAME]` and `nbd:unix:PATH[:exportname=NAME]`.
    ///
    /// With the feature `tls`, `nbds://HOST[:PORT]/NAME?tls-certificates=DIR` and
    /// `nbds+unix://HOST/NAME?socket=PATH&tls-certificates=DIR` talk within TLS, or not at all. In the directory
    /// are `ca-cert.pem`, with those whose signature counts, perhaps `ca-crl.pem` with what they have taken
    /// back, and, where the server asks for them, `client-cert.pem` and `client-key.pem`. The server has to
    /// be called `HOST` by its certificate, or as another parameter, `tls-hostname=NAME`, says; at a unix
    /// socket without either, `localhost`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it names none, or certificates of no use; [`ErrorKind::Unsupported`] when
    /// it asks for TLS that is not there; and as [`connect_tcp`](Self::connect_tcp).
    pub fn connect(uri: &str, options: &ClientOptions) -> Result<Self> {
        let uri = Uri::parse(uri)?;
        check(&uri.name, options)?;
        let within = uri.credentials()?;
        let (dialogue, peer) = uri.place.connect(options.patience)?;
        Self::new(dialogue, &uri.name, peer, within.as_ref())
    }

    /// The export `name` of the server at a host and port; the empty name is the server's default.
    ///
    /// How long it takes to find the host's address is the host's affair.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when there is none, or none of that name; [`ErrorKind::Unsupported`] when the
    /// disk's size is not a multiple of the smallest request that the server takes;
    /// [`ErrorKind::InvalidInput`] of a name that is too long, or without patience.
    pub fn connect_tcp(
        address: impl ToSocketAddrs,
        name: &str,
        options: &ClientOptions,
    ) -> Result<Self> {
        check(name, options)?;
        let (dialogue, peer) = Peer::tcp(address, options.patience)?;
        Self::new(dialogue, name, peer, None)
    }

    /// The export `name` of the server at a unix socket.
    ///
    /// # Errors
    /// As [`connect_tcp`](Self::connect_tcp).
    #[cfg(unix)]
    pub fn connect_unix(
        path: impl AsRef<Path>,
        name: &str,
        options: &ClientOptions,
    ) -> Result<Self> {
        check(name, options)?;
        let (dialogue, peer) = Peer::unix(path.as_ref(), options.patience)?;
        Self::new(dialogue, name, peer, None)
    }

    fn new(
        mut dialogue: Dialogue,
        name: &str,
        peer: Peer,
        within: Option<&ClientCredentials>,
    ) -> Result<Self> {
        let facts = dialogue.go(name, within)?;
        let size = facts.size().filter(|size| i64::try_from(*size).is_ok());
        let no_size = || {
            Error::new(
                ErrorKind::Io,
                "the server tells no size that a disk can have",
            )
        };
        let size = size.ok_or_else(no_size)?;
        if size % u64::from(facts.minimum) != 0 {
            let text = format!(
                "the server takes requests of {} bytes only, which {size} is no multiple of",
                facts.minimum
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(Self {
            facts,
            size,
            wrote: AtomicBool::new(false),
            edges: RwLock::new(()),
            identity: identity(&peer, name),
            dialogue,
        })
    }

    fn ask(&self, head: RequestHead, written: &[u8], read: &mut [u8]) -> Result<Reply> {
        let reply = self.dialogue.ask(head, &self.facts, written, read)?;
        match &reply.failure {
            None => Ok(reply),
            Some(failure) => Err(told(failure)),
        }
    }

    fn ask_to_read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let head = head(request::READ, offset, length(buf));
        self.ask(head, &[], buf).map(drop)
    }

    fn ask_to_write(&self, buf: &[u8], offset: u64) -> Result<()> {
        let head = head(request::WRITE, offset, length(buf));
        self.ask(head, buf, &mut []).map(drop)
    }

    /// A change of whole blocks.
    fn change(&self, head: RequestHead, written: &[u8]) -> Result<()> {
        let _shared = self.edges.read().unwrap_or_else(PoisonError::into_inner);
        self.ask(head, written, &mut []).map(drop)
    }

    /// The first piece of what is left, `done` bytes after `offset`.
    fn piece(&self, offset: u64, done: u64, len: u64, most: u32) -> Piece {
        Piece::first(offset + done, len - done, self.facts.minimum, most)
    }

    /// Has `change` done to the block of the smallest size around byte `at`.
    fn modify(&self, at: u64, change: impl FnOnce(&mut [u8])) -> Result<()> {
        let _alone = self.edges.write().unwrap_or_else(PoisonError::into_inner);
        let mut block = vec![0; self.facts.minimum as usize];
        let start = at - at % u64::from(self.facts.minimum);
        self.ask_to_read(&mut block, start)?;
        change(&mut block);
        self.ask_to_write(&block, start)
    }

    /// Refuses changes that cannot be, and notes that there is one.
    fn check_change(&self, offset: u64, len: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::new(ErrorKind::ReadOnly, "the export is read-only"));
        }
        let full = |error: Error| Error::new(ErrorKind::NoSpace, error.message().to_owned());
        fits(offset, len, self.size).map_err(full)?;
        self.wrote.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, flags: u16) -> Result<()> {
        self.dialogue.check()?;
        let mut done = 0;
        while done < len {
            let piece = self.piece(offset, done, len, RANGE_AT_ONCE);
            match piece {
                Piece::Whole(len) => {
                    let mut head = head(request::WRITE_ZEROES, offset + done, len);
                    head.flags = flags;
                    self.change(head, &[])?;
                }
                Piece::Inside { skip, len } => self.modify(offset + done, |block| {
                    block[skip as usize..][..len as usize].fill(0);
                })?,
            }
            done += u64::from(piece.len());
        }
        Ok(())
    }
}

/// What tells one export from others and from files: by where it was reached and how it is called.
fn identity(peer: &Peer, name: &str) -> FileId {
    let hashed = |part: u8| {
        let mut hasher = DefaultHasher::new();
        ("nbd", part, peer, name).hash(&mut hasher);
        hasher.finish()
    };
    FileId {
        space: hashed(0),
        file: hashed(1),
    }
}

fn check(name: &str, options: &ClientOptions) -> Result<()> {
    if name.len() > MOST_NAME {
        let text = "no export has so long a name";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    options.check()
}

impl Drop for NbdStorage {
    fn drop(&mut self) {
        self.dialogue.leave(&head(request::DISC, 0, 0));
    }
}

impl Storage for NbdStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        fits(offset, len, self.size).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.dialogue.check()?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let piece = self.piece(offset, done as u64, len, self.facts.maximum);
            let to = &mut buf[done..][..piece.len() as usize];
            match piece {
                Piece::Whole(_) => self.ask_to_read(to, at)?,
                Piece::Inside { skip, len } => {
                    let mut block = vec![0; self.facts.minimum as usize];
                    self.ask_to_read(&mut block, at - u64::from(skip))?;
                    to.copy_from_slice(&block[skip as usize..][..len as usize]);
                }
            }
            done += piece.len() as usize;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        self.check_change(offset, len)?;
        self.dialogue.check()?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let piece = self.piece(offset, done as u64, len, self.facts.maximum);
            let from = &buf[done..][..piece.len() as usize];
            match piece {
                Piece::Whole(_) => self.change(head(request::WRITE, at, length(from)), from)?,
                Piece::Inside { skip, .. } => self.modify(at, |block| {
                    block[skip as usize..][..from.len()].copy_from_slice(from);
                })?,
            }
            done += from.len();
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::new(ErrorKind::ReadOnly, "the export is read-only"));
        }
        self.dialogue.check()?;
        match len == self.size {
            true => Ok(()),
            false => {
                let text = "the export of a server keeps its size";
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }

    fn sync(&self, _kind: SyncKind) -> Result<()> {
        self.dialogue.check()?;
        if self.facts.flushes() {
            let head = head(request::FLUSH, 0, 0);
            return self.ask(head, &[], &mut []).map(drop);
        }
        match self.wrote.load(Ordering::Relaxed) {
            true => {
                let text = "the server does not flush: what was written may not last";
                Err(Error::new(ErrorKind::Unsupported, text))
            }
            false => Ok(()),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.check_change(offset, len)?;
        match self.facts.zeroes() {
            true => self.zero(offset, len, 0),
            false => {
                let text = "the server makes no holes";
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.check_change(offset, len)?;
        if self.facts.zeroes() {
            return self.zero(offset, len, NO_HOLE);
        }
        let mut done = 0;
        while done < len {
            let piece = usize::try_from(len - done).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
            self.write_at(&ZEROS[..piece], offset + done)?;
            done += piece as u64;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<HostExtent> {
        let left = self.size.checked_sub(offset).filter(|left| *left > 0);
        let past = || {
            Error::new(
                ErrorKind::OutOfRange,
                format!("{offset:#x} is past the end"),
            )
        };
        let left = left.ok_or_else(past)?;
        self.dialogue.check()?;
        if self.facts.context.is_none() {
            return Ok(HostExtent {
                len: left,
                allocated: true,
            });
        }
        let skip = offset % u64::from(self.facts.minimum);
        let asked = (left + skip).min(u64::from(RANGE_AT_ONCE));
        let asked = u32::try_from(asked).expect("it was cut");
        let mut head = head(request::BLOCK_STATUS, offset - skip, asked);
        head.flags = REQ_ONE;
        let status = self.ask(head, &[], &mut [])?.status;
        let (len, flags) = status.expect("a reply without an error has one");
        // Servers may tell of more than they were asked for.
        let len = u64::from(len.min(asked))
            .checked_sub(skip)
            .filter(|len| *len > 0);
        let no_run = || {
            Error::new(
                ErrorKind::Io,
                "the server tells of less than its smallest request",
            )
        };
        Ok(HostExtent {
            len: len.ok_or_else(no_run)?,
            allocated: flags & (HOLE | ZERO) != HOLE | ZERO,
        })
    }

    fn identity(&self) -> Option<FileId> {
        Some(self.identity)
    }

    fn is_read_only(&self) -> bool {
        self.facts.is_read_only()
    }

    fn allocated_len(&self) -> Result<u64> {
        let text = "a server does not tell how much space it takes for an export";
        Err(Error::new(ErrorKind::Unsupported, text))
    }
}
