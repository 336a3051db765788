//! Carries a request out, and makes the reply.
//!
//! The reply is whole before any of it is sent, so that an error never comes after data that it belongs
//! to, and a client that does not listen keeps no call of the disk waiting.

use std::sync::OnceLock;

use blockdev_core::{
    BlockDevice, ByteRange, Error, ErrorKind, Extent, ExtentKind, Result, ZeroFlags, is_zero,
};

use super::read_plan::{Part, plan};
use super::status::{Absent, Runs};
use super::terms::{Command, Refusal, Request, Terms};
use crate::wire::errno::Errno;
use crate::wire::reply;

/// Reads that are shorter are read and looked at; longer ones ask first where the zeros are.
const PLANNED: u32 = 64 << 10;
/// Extents looked at for one reply about block status.
const MOST_EXTENTS: usize = 64 << 10;
/// How much is read ahead for one `CACHE` at most, and at once, in bytes.
const MOST_CACHED: u32 = 32 << 20;
const CACHED_AT_ONCE: usize = 64 << 10;

/// A piece of a reply: a head, and data that follows it.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) head: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl From<Vec<u8>> for Message {
    fn from(head: Vec<u8>) -> Self {
        let data = Vec::new();
        Self { head, data }
    }
}

/// A disk, with what is found out about it only by asking.
pub(crate) struct Target<'a> {
    pub(crate) device: &'a dyn BlockDevice,
    pub(crate) absent: &'a OnceLock<Absent>,
}

/// A failure, and the byte at which it was met where that is known.
type Failed = (Error, Option<u64>);

/// The reply to a request that is not carried out.
pub(crate) fn refuse(refusal: &Refusal, structured: bool) -> Message {
    let (cookie, error) = (refusal.cookie, refusal.error);
    match structured {
        true => reply::error(cookie, error, refusal.why, None).into(),
        false => reply::simple(Some(error), cookie).into(),
    }
}

/// Carries `request` out on `target`, with the `payload` that came with it, and gives the reply.
pub(crate) fn answer(
    target: &Target<'_>,
    terms: &Terms,
    request: &Request,
    payload: &[u8],
) -> Vec<Message> {
    let cookie = request.cookie;
    let outcome = match request.command {
        Command::Read { whole } if terms.structured => target.read(request, whole),
        Command::Read { .. } => target.read_simple(request),
        Command::BlockStatus { one } => target.status(request, terms, one),
        command => {
            let done = target.change(request, command, payload);
            let reply = match terms.structured {
                true => reply::none(cookie),
                false => reply::simple(None, cookie),
            };
            done.map(|()| vec![reply.into()])
                .map_err(|error| (error, None))
        }
    };
    outcome.unwrap_or_else(|(error, offset)| {
        let errno = Errno::from(&error);
        let message = match terms.structured {
            true => reply::error(cookie, errno, &error.to_string(), offset),
            false => reply::simple(Some(errno), cookie),
        };
        vec![message.into()]
    })
}

impl Target<'_> {
    fn change(&self, request: &Request, command: Command, payload: &[u8]) -> Result<()> {
        let (offset, len) = (request.offset, u64::from(request.len));
        let flush = |durable: bool| if durable { self.device.flush() } else { Ok(()) };
        match command {
            Command::Write { durable } => {
                self.device.write_at(payload, offset)?;
                flush(durable)
            }
            Command::WriteZeroes {
                durable,
                may_unmap,
                fast,
            } => {
                let flags = ZeroFlags {
                    may_unmap,
                    no_fallback: fast,
                };
                self.device.write_zeroes(offset, len, flags)?;
                flush(durable)
            }
            Command::Trim { durable } => {
                self.device.discard(offset, len)?;
                flush(durable)
            }
            Command::Flush => self.device.flush(),
            Command::Cache => {
                self.read_ahead(request);
                Ok(())
            }
            Command::Read { .. } | Command::BlockStatus { .. } => {
                unreachable!("they have replies of their own")
            }
        }
    }

    /// A hint: what cannot be read is told to whoever reads it.
    fn read_ahead(&self, request: &Request) {
        let mut at = request.offset;
        let end = at + u64::from(request.len.min(MOST_CACHED));
        let mut buffer = vec![0; CACHED_AT_ONCE];
        while at < end {
            let len = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            if self.device.read_at(&mut buffer[..len], at).is_err() {
                return;
            }
            at += len as u64;
        }
    }

    fn bytes(&self, range: ByteRange) -> std::result::Result<Vec<u8>, Failed> {
        let len = usize::try_from(range.len()).expect("a request of 32 MiB at most");
        let mut data = vec![0; len];
        match self.device.read_at(&mut data, range.start()) {
            Ok(()) => Ok(data),
            Err(error) => Err((error, Some(range.start()))),
        }
    }

    fn read_simple(&self, request: &Request) -> std::result::Result<Vec<Message>, Failed> {
        let data = self.bytes(range(request))?;
        let head = reply::simple(None, request.cookie);
        Ok(vec![Message { head, data }])
    }

    fn read(&self, request: &Request, whole: bool) -> std::result::Result<Vec<Message>, Failed> {
        let range = range(request);
        if range.is_empty() {
            return Ok(vec![reply::none(request.cookie).into()]);
        }
        let parts = if whole || request.len < PLANNED {
            vec![Part { range, hole: false }]
        } else {
            plan(range, |left| self.zeros(left))
        };
        let mut messages = Vec::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            let last = number + 1 == parts.len();
            let data = match part.hole {
                true => Vec::new(),
                false => self.bytes(part.range)?,
            };
            messages.push(content(request.cookie, last, part, data));
        }
        Ok(messages)
    }

    /// The run at the start of `left`, and whether it reads as zeros.
    fn zeros(&self, left: ByteRange) -> Result<(Extent, bool)> {
        let extent = self.device.block_status(left.start(), left.len())?;
        let zeros = match extent.kind {
            ExtentKind::Zero => true,
            ExtentKind::Absent => self.absent(left.start())? == Absent::Zeros,
            ExtentKind::Data | ExtentKind::Compressed => false,
        };
        Ok((extent, zeros))
    }

    /// What runs that nobody holds read as, where one is at `offset`. That is so of a disk as a whole,
    /// for as long as it is open, and no disk says it by itself.
    fn absent(&self, offset: u64) -> Result<Absent> {
        if let Some(known) = self.absent.get() {
            return Ok(*known);
        }
        let found = match self.device.read_at(&mut [0], offset) {
            Ok(()) => Absent::Zeros,
            Err(error) if error.kind() == ErrorKind::NeedsParent => Absent::Unknown,
            Err(error) => return Err(error),
        };
        Ok(*self.absent.get_or_init(|| found))
    }

    fn status(
        &self,
        request: &Request,
        terms: &Terms,
        one: bool,
    ) -> std::result::Result<Vec<Message>, Failed> {
        let contexts = terms.contexts.iter();
        let mut all: Vec<Runs> = contexts.map(|context| Runs::new(*context, one)).collect();
        let mut at = request.offset;
        let mut left = request.len;
        for _ in 0..MOST_EXTENTS {
            if left == 0 || all.iter().all(Runs::is_full) {
                break;
            }
            let failed = |error| (error, Some(at));
            let extent = self.device.block_status(at, left.into()).map_err(failed)?;
            let absent = match extent.kind {
                ExtentKind::Absent => self.absent(at).map_err(failed)?,
                _ => Absent::Zeros,
            };
            let len = u32::try_from(extent.len).unwrap_or(u32::MAX).clamp(1, left);
            for runs in &mut all {
                runs.push(&extent, len, absent);
            }
            at += u64::from(len);
            left -= len;
        }
        let count = all.len();
        let chunks = all.iter().enumerate().map(|(number, runs)| {
            let id = runs.context.id();
            reply::block_status(number + 1 == count, request.cookie, id, &runs.runs).into()
        });
        Ok(chunks.collect())
    }
}

fn range(request: &Request) -> ByteRange {
    ByteRange::new(request.offset, request.len.into()).expect("judged to lie inside the disk")
}

/// The chunk of `part`, whose bytes are `data` unless it is a hole.
fn content(cookie: u64, last: bool, part: &Part, data: Vec<u8>) -> Message {
    let start = part.range.start();
    if part.hole || is_zero(&data) {
        let len = u32::try_from(part.range.len()).expect("a part of a request");
        return reply::hole(last, cookie, start, len).into();
    }
    let head = reply::data(last, cookie, start, data.len());
    Message { head, data }
}
