//! One client, from its first byte to its last.

use std::io;
use std::net::Shutdown;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ends::{FromClient, ToClient};
use super::gate::{Gate, Place};
use super::stream::Stream;
use super::timed::{Incoming, send};
use super::workers::{Job, Queue};
use crate::server::Shared;
use crate::session::answer::{Message, Target, answer, refuse};
use crate::session::negotiation::{Agreed, Negotiation, Next};
use crate::session::terms::{Refusal, Terms, Verdict};
use crate::wire::errno::Errno;
use crate::wire::handshake::greeting;
use crate::wire::request::{REQUEST_BYTES, RequestHead};

/// Serves `stream` until either side ends it. What goes wrong with it is nobody else's matter.
pub(crate) fn run(shared: &Shared, stream: &Stream, place: &mut Place<'_>) {
    let _ = converse(shared, stream, place);
    stream.shutdown(Shutdown::Both);
}

fn converse(shared: &Shared, stream: &Stream, place: &mut Place<'_>) -> io::Result<()> {
    let mut incoming = Incoming::new(FromClient::Plain(stream), stream);
    let mut to = ToClient::Plain(stream);
    let Some(agreed) = handshake(shared, stream, &mut incoming, &mut to, place)? else {
        to.leave();
        return Ok(());
    };
    let patience = shared.options.request_timeout;
    incoming.be_patient(patience)?;
    stream.set_write_timeout(patience)?;
    let target = shared.exports[agreed.export].target();
    let offer = &shared.offers[agreed.export];
    let requests = Requests {
        gate: &shared.gate,
        terms: Terms::new(agreed, offer),
        target,
        outgoing: Outgoing {
            stream,
            patience,
            to: Mutex::new(to),
        },
        queue: Queue::default(),
        workers: shared.options.workers,
    };
    requests.serve(&mut incoming)?;
    requests.outgoing.turn().leave();
    Ok(())
}

/// Haggles, in all for no longer than a handshake may take.
fn handshake<'a>(
    shared: &Shared,
    stream: &'a Stream,
    incoming: &mut Incoming<'a>,
    to: &mut ToClient<'a>,
    place: &mut Place<'_>,
) -> io::Result<Option<Agreed>> {
    let patience = shared.options.handshake_timeout;
    let end = Instant::now() + patience;
    stream.set_write_timeout(patience)?;
    send(&mut *to, &greeting(), &[], patience)?;
    let (mut negotiation, mut next) = Negotiation::new(&shared.offers, shared.secrecy());
    let mut reply = Vec::new();
    loop {
        let wanted = match next {
            Next::Feed(wanted) => wanted,
            Next::Transmit(agreed) => return Ok(Some(agreed)),
            Next::StartTls => {
                (*incoming, *to) = secure(shared, stream, incoming, end)?;
                next = negotiation.secured();
                continue;
            }
            Next::End => return Ok(None),
        };
        let mut bytes = vec![0; wanted];
        incoming.fill_until(&mut bytes, end)?;
        reply.clear();
        next = negotiation.feed(&bytes, shared.gate.is_closing(), &mut reply);
        if let Next::Transmit(_) = next {
            // Before the client knows: once it does, it counts.
            place.serve();
        }
        let left = end.saturating_duration_since(Instant::now());
        send(&mut *to, &reply, &[], left)?;
    }
}

/// Begins TLS. What came after the wish for it and before the consent came in the clear, from whomever:
/// it is not taken for what the client says within.
#[cfg(feature = "tls")]
fn secure<'a>(
    shared: &Shared,
    stream: &'a Stream,
    incoming: &Incoming<'a>,
    end: Instant,
) -> io::Result<(Incoming<'a>, ToClient<'a>)> {
    match &shared.tls {
        Some(tls) if incoming.is_empty() => {
            let (from, to) = super::tls::accept(tls.config(), stream, end)?;
            let from = FromClient::Tls(Box::new(from));
            Ok((Incoming::new(from, stream), ToClient::Tls(to)))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// No server asks for what it cannot do.
#[cfg(not(feature = "tls"))]
fn secure<'a>(
    _shared: &Shared,
    _stream: &'a Stream,
    _incoming: &Incoming<'a>,
    _end: Instant,
) -> io::Result<(Incoming<'a>, ToClient<'a>)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The way back to the client, for one reply at a time.
struct Outgoing<'a> {
    stream: &'a Stream,
    patience: Duration,
    to: Mutex<ToClient<'a>>,
}

impl<'a> Outgoing<'a> {
    fn turn(&self) -> MutexGuard<'_, ToClient<'a>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a whole reply. After a failure nothing that is sent makes sense, so that was the last.
    fn reply(&self, messages: &[Message]) {
        let mut to = self.turn();
        for message in messages {
            let Message { head, data } = message;
            if send(&mut *to, head, data, self.patience).is_err() {
                self.stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// What a client asks, once it has an export.
struct Requests<'a> {
    gate: &'a Gate,
    terms: Terms,
    target: Target<'a>,
    outgoing: Outgoing<'a>,
    queue: Queue,
    workers: usize,
}

impl Requests<'_> {
    /// Reads requests until there are no more, and returns when the last is answered.
    fn serve(&self, incoming: &mut Incoming<'_>) -> io::Result<()> {
        thread::scope(|scope| {
            let mut workers = 0;
            let outcome = self.receive(incoming, |job| {
                if self.queue.push(job) || workers == self.workers {
                    return;
                }
                let worker = || self.work();
                match thread::Builder::new().spawn_scoped(scope, worker) {
                    Ok(_) => workers += 1,
                    // Without any thread but this one, it is this one's work.
                    Err(_) if workers == 0 => self.work_off(),
                    Err(_) => {}
                }
            });
            self.queue.end();
            outcome
        })
    }

    fn receive(&self, incoming: &mut Incoming<'_>, mut run: impl FnMut(Job)) -> io::Result<()> {
        let patience = self.outgoing.patience;
        let mut head = [0; REQUEST_BYTES];
        while incoming.next(&mut head, patience)? {
            let verdict = self.terms.judge(RequestHead::decode(&head));
            let refusal = match verdict {
                Verdict::End => break,
                Verdict::Refuse(refusal) => refusal,
                Verdict::Run(request) if self.gate.is_closing() => Refusal {
                    cookie: request.cookie,
                    error: Errno::Shutdown,
                    why: "the server is shutting down",
                    payload: request.payload(),
                },
                Verdict::Run(request) => {
                    self.queue.reserve(request.memory());
                    let mut payload = vec![0; request.payload() as usize];
                    incoming.fill(&mut payload, patience)?;
                    run(Job { request, payload });
                    continue;
                }
            };
            incoming.skip(refusal.payload, patience)?;
            let reply = refuse(&refusal, self.terms.structured);
            self.outgoing.reply(&[reply]);
        }
        Ok(())
    }

    /// What each worker does until the connection ends.
    fn work(&self) {
        while let Some((job, _memory)) = self.queue.pop() {
            self.carry_out(&job);
        }
    }

    /// Does what is queued, and does not wait for more.
    fn work_off(&self) {
        while let Some((job, _memory)) = self.queue.try_pop() {
            self.carry_out(&job);
        }
    }

    fn carry_out(&self, job: &Job) {
        let (target, terms) = (&self.target, &self.terms);
        let answer = || answer(target, terms, &job.request, &job.payload);
        match panic::catch_unwind(AssertUnwindSafe(answer)) {
            Ok(reply) => self.outgoing.reply(&reply),
            // A device that panics takes its connection along, but nobody waits for what never comes.
            Err(_) => self.outgoing.stream.shutdown(Shutdown::Both),
        }
    }
}
