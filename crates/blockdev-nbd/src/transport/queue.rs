//! Who waits for which reply on a connection, and who reads the next. No sockets.
//!
//! ```text
//!   Free ──► Reading ──┬── the reply is the reader's own ──► it reads on
//!    ▲                 └── another's ──► Of(its cookie) ──► that one reads on, into its own buffer
//!    └──────────────────── the reader has all of its own
//! ```
//!
//! Nobody reads for others: what a reply carries goes straight to whoever asked for it, and no memory is
//! taken for it. So whoever waits must come when it is his turn, and does: he is either woken, or still
//! sending and looks as soon as he has sent.

use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use crate::session::gathering::Head;

/// A request whose reply has not come as a whole.
#[derive(Debug)]
struct Waiter {
    cookie: u64,
    /// When it was sent; or, later, when the last of those before it was answered.
    since: Instant,
    /// How long its reply may take from then on.
    allowance: Duration,
    /// It sleeps until it is woken.
    asleep: bool,
    bell: Arc<Condvar>,
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Nobody: whoever waits may.
    Free,
    /// Somebody does.
    Reading,
    /// The owner of this is to, and has not begun.
    Of(Head),
}

/// What is read first by the one whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// The head of a reply, whose it may be.
    Head,
    /// What follows this head of his own reply.
    Rest(Head),
}

/// The requests under way on a connection.
#[derive(Debug)]
pub(super) struct Queue {
    /// In the order in which they were sent.
    waiters: Vec<Waiter>,
    turn: Turn,
    /// Never used again: there are more than can be sent.
    last_cookie: u64,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiters: Vec::new(),
            turn: Turn::Free,
            last_cookie: 0,
        }
    }

    /// One more request, which is sent next and whose reply may take so long: its cookie, and the bell by
    /// which it is woken.
    pub(super) fn enter(&mut self, allowance: Duration) -> (u64, Arc<Condvar>) {
        self.last_cookie += 1;
        let bell = Arc::new(Condvar::new());
        self.waiters.push(Waiter {
            cookie: self.last_cookie,
            since: Instant::now(),
            allowance,
            asleep: false,
            bell: Arc::clone(&bell),
        });
        (self.last_cookie, bell)
    }

    /// The request has been sent as a whole: its reply is waited for from now on.
    pub(super) fn sent(&mut self, cookie: u64) {
        let now = Instant::now();
        if let Some(waiter) = self.find(cookie) {
            waiter.since = now;
        }
    }

    /// The turn to read, if it is that of the request of `cookie`, who sleeps otherwise.
    pub(super) fn begin(&mut self, cookie: u64) -> Option<First> {
        let first = match self.turn {
            Turn::Free => Some(First::Head),
            Turn::Of(head) if head.cookie == cookie => Some(First::Rest(head)),
            _ => None,
        };
        if first.is_some() {
            self.turn = Turn::Reading;
        }
        if let Some(waiter) = self.find(cookie) {
            waiter.asleep = first.is_none();
        }
        first
    }

    /// Until when the next head must come: that of the oldest request at the latest, so that a server which
    /// answers others only is found out.
    pub(super) fn due(&self) -> Instant {
        let oldest = self.waiters.first();
        oldest.map_or_else(Instant::now, |oldest| oldest.since + oldest.allowance)
    }

    /// The reader has come upon the head of another's reply. False when nobody waits for that.
    pub(super) fn hand_over(&mut self, head: Head) -> bool {
        let Some(owner) = self.find(head.cookie) else {
            return false;
        };
        owner.bell.notify_one();
        self.turn = Turn::Of(head);
        true
    }

    /// The reader has all of his own reply.
    pub(super) fn finish(&mut self, cookie: u64) {
        self.turn = Turn::Free;
        let now = Instant::now();
        self.waiters.retain(|waiter| waiter.cookie != cookie);
        let later = |waiter: &&mut Waiter| waiter.cookie > cookie;
        for waiter in self.waiters.iter_mut().filter(later) {
            waiter.since = waiter.since.max(now);
        }
        // Who is not asleep looks by himself, but may be busy with sending for long.
        if let Some(next) = self.waiters.iter().find(|waiter| waiter.asleep) {
            next.bell.notify_one();
        }
    }

    /// Wakes everybody, as no reply will come any more.
    pub(super) fn wake_all(&self) {
        for waiter in &self.waiters {
            waiter.bell.notify_one();
        }
    }

    fn find(&mut self, cookie: u64) -> Option<&mut Waiter> {
        let mut waiters = self.waiters.iter_mut();
        waiters.find(|waiter| waiter.cookie == cookie)
    }
}
