//! A connection as its client has it: several requests under way, each asked by its own thread.
//!
//! ```text
//!   ask ─► the turn to send: one message at a time ─► queue: until its reply, or its turn to read
//!                                                       └─ reads heads; its own reply into its own buffer
//! ```
//!
//! A connection that failed anywhere is of no use to anybody: what is half sent or half read cannot be
//! told from what follows it.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blockdev_core::{Error, ErrorKind};

use super::line::{Inbox, Line};
use super::queue::{First, Queue};
use super::timed::{allowance, due};
use crate::client_credentials::ClientCredentials;
use crate::session::agreement::{Newstyle, Refusal, agree, greet, nonsense, start_tls};
use crate::session::facts::Facts;
use crate::session::gathering::{Gathering, Head, Reply};
use crate::session::listing::list;
use crate::wire::option;
use crate::wire::request::RequestHead;
use crate::{ExportInfo, ListError};

type Result<T, E = Error> = std::result::Result<T, E>;

/// How long taking one's leave may take: nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Dialogue {
    line: Line,
    patience: Duration,
    /// Held while a message is sent, which no other may come into.
    sending: Mutex<()>,
    /// Locked by whoever's turn it is to read, and by nobody else.
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// Why what is sent and received makes no sense any more.
    failed: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with a request under way has ended the connection.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dialogue {
    /// By TCP, with the first of the addresses that answers, which is told.
    pub(crate) fn tcp(
        address: impl ToSocketAddrs,
        patience: Duration,
    ) -> io::Result<(Self, SocketAddr)> {
        let (line, peer) = Line::tcp(address, patience)?;
        Ok((Self::new(line, patience), peer))
    }

    /// By a unix socket.
    #[cfg(unix)]
    pub(crate) fn unix(path: &Path, patience: Duration) -> io::Result<Self> {
        Ok(Self::new(Line::unix(path, patience)?, patience))
    }

    fn new(line: Line, patience: Duration) -> Self {
        Self {
            line,
            patience,
            sending: Mutex::new(()),
            inbox: Mutex::new(Inbox::new()),
            state: Mutex::new(State {
                queue: Queue::new(),
                failed: None,
            }),
        }
    }

    /// Asks for the export `name`, `within` TLS if at all.
    pub(crate) fn go(
        &mut self,
        name: &str,
        within: Option<&ClientCredentials>,
    ) -> io::Result<Facts> {
        let end = Instant::now() + self.patience;
        self.begin(within, end).map_err(|why| match why {
            NotBegun::Failed(error) => error,
            NotBegun::Old => nonsense("the server knows no options"),
            NotBegun::NoTls(refusal) => io::Error::other(format!("no TLS: {refusal}")),
        })?;
        let facts = agree(&mut self.line.until(end), name)?;
        self.line.be_patient(self.patience)?;
        Ok(facts)
    }

    /// Asks for what the server has, `within` TLS if at all, and takes leave.
    pub(crate) fn list(
        mut self,
        within: Option<&ClientCredentials>,
    ) -> Result<Vec<ExportInfo>, ListError> {
        let end = Instant::now() + self.patience;
        self.begin(within, end).map_err(|why| match why {
            NotBegun::Failed(error) => ListError::Failed(error),
            NotBegun::Old => ListError::NoLists,
            NotBegun::NoTls(refusal) => ListError::refused(option::STARTTLS, refusal),
        })?;
        let exports = list(&mut self.line.until(end))?;
        self.line.leave();
        Ok(exports)
    }

    /// What comes before the first question about exports.
    fn begin(&mut self, within: Option<&ClientCredentials>, end: Instant) -> Result<(), NotBegun> {
        if greet(&mut self.line.until(end))? == Newstyle::Old {
            return Err(NotBegun::Old);
        }
        let Some(credentials) = within else {
            return Ok(());
        };
        if let Some(refusal) = start_tls(&mut self.line.until(end))? {
            return Err(NotBegun::NoTls(refusal));
        }
        self.line.secure(credentials, end).map_err(|error| {
            let text = format!("no TLS with the server: {error}");
            NotBegun::Failed(io::Error::new(error.kind(), text))
        })
    }

    /// # Errors
    /// [`ErrorKind::Poisoned`] after a failure.
    pub(crate) fn check(&self) -> Result<()> {
        lock(&self.state).check()
    }

    /// Sends a request with what is to be `written`, and fills `read` with what comes back. Others may be
    /// under way.
    ///
    /// # Errors
    /// When the connection fails, of which it does not recover.
    pub(crate) fn ask(
        &self,
        head: RequestHead,
        facts: &Facts,
        written: &[u8],
        read: &mut [u8],
    ) -> Result<Reply> {
        let mut asked = self.send(head, written, read.len())?;
        let reply = asked.reply(facts, read)?;
        asked.is_answered = true;
        Ok(reply)
    }

    /// Sends a request, whose reply is to be read then.
    fn send(&self, mut head: RequestHead, written: &[u8], read: usize) -> Result<Asked<'_>> {
        let _turn = lock(&self.sending);
        let mut state = lock(&self.state);
        state.check()?;
        let allowance = allowance(self.patience, read.max(written.len()));
        let (cookie, bell) = state.queue.enter(allowance);
        drop(state);
        head.cookie = cookie;
        let asked = Asked {
            dialogue: self,
            head,
            bell,
            is_answered: false,
        };
        self.line
            .send(&head.encode(), written, self.patience)
            .map_err(|error| self.fail(error))?;
        lock(&self.state).queue.sent(cookie);
        Ok(asked)
    }

    /// Ends the connection for everybody; gives what is to be told to one whose request was under way.
    fn fail(&self, error: io::Error) -> Error {
        let mut state = lock(&self.state);
        let error = match &state.failed {
            Some(why) => Error::new(ErrorKind::Io, why.clone()),
            None => {
                let error = Error::from(error);
                state.failed = Some(error.to_string());
                error
            }
        };
        state.queue.wake_all();
        drop(state);
        self.line.hang_up();
        error
    }

    /// Says that nothing more will be asked, which is no request with a reply.
    pub(crate) fn leave(&self, head: &RequestHead) {
        if self.check().is_err() {
            return;
        }
        let mut until = self.line.until(Instant::now() + FAREWELL);
        // Whoever does not hear it sees the connection end.
        let _ = until.write_all(&head.encode());
        self.line.leave();
    }
}

/// Why a server is asked for nothing.
enum NotBegun {
    Failed(io::Error),
    /// It knows no options.
    Old,
    NoTls(Refusal),
}

impl From<io::Error> for NotBegun {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl State {
    fn check(&self) -> Result<()> {
        let text = "the connection to the server failed before";
        match self.failed {
            Some(_) => Err(Error::new(ErrorKind::Poisoned, text)),
            None => Ok(()),
        }
    }
}

/// A request under way. Given up before it is answered, by a failure or a panic, it takes the connection
/// with it.
struct Asked<'a> {
    dialogue: &'a Dialogue,
    head: RequestHead,
    bell: Arc<Condvar>,
    is_answered: bool,
}

impl Asked<'_> {
    fn reply(&self, facts: &Facts, into: &mut [u8]) -> Result<Reply> {
        let mut gathering = Gathering::new(self.head);
        // Until when all of it must be here, once it has begun.
        let mut end = None;
        loop {
            let (first, next_due) = self.turn()?;
            let whole = self
                .read(first, next_due, &mut end, &mut gathering, facts, into)
                .map_err(|error| self.dialogue.fail(error))?;
            if whole {
                return Ok(gathering.into_reply());
            }
        }
    }

    /// Waits until it is this one's turn to read; tells until when the next head must come, too.
    fn turn(&self) -> Result<(First, Instant)> {
        let mut state = lock(&self.dialogue.state);
        loop {
            if let Some(why) = &state.failed {
                return Err(Error::new(ErrorKind::Io, why.clone()));
            }
            if let Some(first) = state.queue.begin(self.head.cookie) {
                return Ok((first, state.queue.due()));
            }
            state = self
                .bell
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads until this reply is whole, which is true, or until another's comes.
    fn read(
        &self,
        first: First,
        next_due: Instant,
        end: &mut Option<Instant>,
        gathering: &mut Gathering,
        facts: &Facts,
        into: &mut [u8],
    ) -> io::Result<bool> {
        let Dialogue {
            line,
            patience,
            state,
            ..
        } = self.dialogue;
        let mut inbox = lock(&self.dialogue.inbox);
        let mut first = first;
        loop {
            let head = match std::mem::replace(&mut first, First::Head) {
                First::Rest(head) => head,
                First::Head => Head::next(&mut line.incoming(&mut inbox, next_due))?,
            };
            if head.cookie != self.head.cookie {
                drop(inbox);
                return match lock(state).queue.hand_over(head) {
                    true => Ok(false),
                    false => Err(nonsense("a reply that nobody waits for")),
                };
            }
            let end = *end.get_or_insert_with(|| due(*patience, into.len()));
            let mut incoming = line.incoming(&mut inbox, end);
            if gathering.take(head, &mut incoming, facts, into)? {
                drop(inbox);
                lock(state).queue.finish(head.cookie);
                return Ok(true);
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.dialogue
                .fail(io::Error::other("a request was given up half way"));
        }
    }
}
