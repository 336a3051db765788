//! What a client may ask once it has an export: each request judged before anything is done.

use super::context::Context;
use super::negotiation::Agreed;
use super::offer::{MAX_REQUEST, Offer};
use crate::wire::errno::Errno;
use crate::wire::flags::command::{DF, FAST_ZERO, FUA, NO_HOLE, REQ_ONE};
use crate::wire::request::{self, RequestHead};

/// Memory that a request takes which brings or fetches no data, in bytes.
const SMALL: u32 = 64 << 10;

/// What is asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read {
        whole: bool,
    },
    Write {
        durable: bool,
    },
    Flush,
    Trim {
        durable: bool,
    },
    WriteZeroes {
        durable: bool,
        may_unmap: bool,
        fast: bool,
    },
    BlockStatus {
        one: bool,
    },
    Cache,
}

/// A request that may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Request {
    /// Bytes that follow its head.
    pub(crate) fn payload(&self) -> u32 {
        match self.command {
            Command::Write { .. } => self.len,
            _ => 0,
        }
    }

    /// Bytes of memory it may take until it is answered.
    pub(crate) fn memory(&self) -> u32 {
        match self.command {
            Command::Read { .. } | Command::Write { .. } => self.len.max(SMALL),
            _ => SMALL,
        }
    }
}

/// A request that is answered by an error alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) cookie: u64,
    pub(crate) error: Errno,
    pub(crate) why: &'static str,
    /// Bytes that follow its head, which nobody wants.
    pub(crate) payload: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Run(Request),
    Refuse(Refusal),
    /// The connection ends: the client wants it so, or what follows cannot be told apart.
    End,
}

/// What was agreed on with one client.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) structured: bool,
    pub(crate) contexts: Vec<Context>,
    size: u64,
    read_only: bool,
    trim: bool,
}

impl Terms {
    pub(crate) fn new(agreed: Agreed, offer: &Offer) -> Self {
        Self {
            structured: agreed.structured,
            contexts: agreed.contexts,
            size: offer.size,
            read_only: offer.read_only,
            trim: offer.trim,
        }
    }

    /// Judges a request whose head is `head`; `None` is one without the magic.
    pub(crate) fn judge(&self, head: Option<RequestHead>) -> Verdict {
        let Some(head) = head else {
            return Verdict::End;
        };
        let writes = head.kind == request::WRITE;
        if head.kind == request::DISC || (writes && head.len > MAX_REQUEST) {
            return Verdict::End;
        }
        match self.command(&head) {
            Ok(command) => Verdict::Run(Request {
                command,
                cookie: head.cookie,
                offset: head.offset,
                len: head.len,
            }),
            Err((error, why)) => Verdict::Refuse(Refusal {
                cookie: head.cookie,
                error,
                why,
                payload: if writes { head.len } else { 0 },
            }),
        }
    }

    fn command(&self, head: &RequestHead) -> Result<Command, (Errno, &'static str)> {
        let has = |flag| head.flags & flag != 0;
        // "Existing clients are known to set [FUA] on other commands", so all take it.
        let durable = has(FUA);
        let (command, flags) = match head.kind {
            request::READ => (Command::Read { whole: has(DF) }, DF),
            request::WRITE => (Command::Write { durable }, 0),
            request::FLUSH => (Command::Flush, 0),
            request::TRIM if self.trim || self.read_only => (Command::Trim { durable }, 0),
            request::CACHE => (Command::Cache, 0),
            request::WRITE_ZEROES => {
                let command = Command::WriteZeroes {
                    durable,
                    may_unmap: !has(NO_HOLE),
                    fast: has(FAST_ZERO),
                };
                (command, NO_HOLE | FAST_ZERO)
            }
            request::BLOCK_STATUS => (Command::BlockStatus { one: has(REQ_ONE) }, REQ_ONE),
            _ => return Err((Errno::Invalid, "unknown command")),
        };
        if head.flags & !(flags | FUA) != 0 || (has(DF) && !self.structured) {
            return Err((Errno::Invalid, "a flag that the command does not take"));
        }
        self.range(head, command)?;
        Ok(command)
    }

    fn range(&self, head: &RequestHead, command: Command) -> Result<(), (Errno, &'static str)> {
        let changes = matches!(
            command,
            Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }
        );
        if changes && self.read_only {
            return Err((Errno::NotPermitted, "the export is read-only"));
        }
        let end = head.offset.checked_add(u64::from(head.len));
        if end.is_none_or(|end| end > self.size) {
            // "The server SHOULD return ENOSPC if it receives a write request including one or more
            // sectors beyond the size of the device."
            let error = match command {
                Command::Write { .. } | Command::WriteZeroes { .. } => Errno::NoSpace,
                _ => Errno::Invalid,
            };
            return Err((error, "past the end of the disk"));
        }
        match command {
            Command::Read { whole } if head.len > MAX_REQUEST => {
                let error = if whole {
                    Errno::Overflow
                } else {
                    Errno::Invalid
                };
                Err((error, "more than 32 MiB at once"))
            }
            Command::Flush if head.offset != 0 || head.len != 0 => {
                Err((Errno::Invalid, "a flush is of the whole disk"))
            }
            Command::BlockStatus { .. } if self.contexts.is_empty() => {
                Err((Errno::Invalid, "no context was selected"))
            }
            Command::BlockStatus { .. } if head.len == 0 => {
                Err((Errno::Invalid, "block status of no bytes"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(read_only: bool) -> Terms {
        Terms {
            structured: true,
            contexts: vec![Context::Allocation],
            size: 1 << 40,
            read_only,
            trim: !read_only,
        }
    }

    fn head(kind: u16, flags: u16, offset: u64, len: u32) -> Option<RequestHead> {
        Some(RequestHead {
            flags,
            kind,
            cookie: 5,
            offset,
            len,
        })
    }

    fn refused(verdict: Verdict) -> (Errno, u32) {
        match verdict {
            Verdict::Refuse(refusal) => (refusal.error, refusal.payload),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_changes_a_read_only_export() {
        for kind in [request::WRITE, request::TRIM, request::WRITE_ZEROES] {
            let verdict = terms(true).judge(head(kind, 0, 0, 512));
            assert_eq!(refused(verdict).0, Errno::NotPermitted, "command {kind}");
        }
    }

    #[test]
    fn what_is_written_past_the_end_is_read_and_dropped() {
        let end = 1 << 40;
        let verdict = terms(false).judge(head(request::WRITE, 0, end - 1, 512));
        assert_eq!(refused(verdict), (Errno::NoSpace, 512));
        let verdict = terms(false).judge(head(request::READ, 0, u64::MAX, 512));
        assert_eq!(
            refused(verdict),
            (Errno::Invalid, 0),
            "the sum wraps around"
        );
    }

    #[test]
    fn four_gigabytes_are_neither_read_nor_awaited() {
        let verdict = terms(false).judge(head(request::READ, 0, 0, u32::MAX));
        assert_eq!(refused(verdict), (Errno::Invalid, 0));
        let verdict = terms(false).judge(head(request::READ, DF, 0, u32::MAX));
        assert_eq!(refused(verdict), (Errno::Overflow, 0));
        let verdict = terms(false).judge(head(request::WRITE, 0, 0, u32::MAX));
        assert_eq!(verdict, Verdict::End);
        let zeros = terms(false).judge(head(request::WRITE_ZEROES, 0, 0, u32::MAX));
        assert!(matches!(zeros, Verdict::Run(request) if request.memory() == SMALL));
    }

    #[test]
    fn flags_are_those_of_the_command() {
        for (kind, flags) in [
            (request::READ, REQ_ONE),
            (request::WRITE, DF),
            (request::TRIM, NO_HOLE),
            (request::FLUSH, FAST_ZERO),
            (request::BLOCK_STATUS, 1 << 15),
            (99, 0),
        ] {
            let verdict = terms(false).judge(head(kind, flags, 0, 0));
            assert_eq!(refused(verdict).0, Errno::Invalid, "{kind} {flags:#x}");
        }
        let verdict = terms(false).judge(head(request::READ, FUA, 0, 512));
        assert!(
            matches!(verdict, Verdict::Run(_)),
            "every command takes FUA"
        );
    }
}
