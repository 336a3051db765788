//! Option haggling: from the client's flags to the export it gets.

use super::context::Context;
use super::offer::{MAX_REQUEST, MIN_BLOCK, Offer};
use crate::wire::fields::Fields;
use crate::wire::flags::client;
use crate::wire::handshake::{CLIENT_FLAGS_BYTES, export_facts};
use crate::wire::info::{self, InfoRequest};
use crate::wire::option::{self, OPTION_HEAD_BYTES, OptionHead, kind, put_reply};

/// Most data of one option, in bytes. Names have 4096 at most; a longer option is a mistake or malice.
const MAX_OPTION: u32 = 64 << 10;

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Which of the offers.
    pub(crate) export: usize,
    pub(crate) structured: bool,
    /// What block status is told of; empty unless replies are structured.
    pub(crate) contexts: Vec<Context>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes of the client's.
    Feed(usize),
    /// Requests.
    Transmit(Agreed),
    /// TLS, which begins once the client has the answer; [`Negotiation::secured`] goes on within it.
    StartTls,
    /// Nothing: the connection ends.
    End,
}

/// Whether a client has to begin TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// It cannot.
    Plain,
    /// It is told nothing before it does.
    Required,
    /// It has.
    Begun,
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Head,
    Data(OptionHead),
}

/// One client's haggling.
#[derive(Debug)]
pub(crate) struct Negotiation<'a> {
    offers: &'a [Offer],
    secrecy: Secrecy,
    state: State,
    no_zeroes: bool,
    pub(super) structured: bool,
    /// Contexts, and the export they were selected of: they count for no other.
    pub(super) selected: Option<(usize, Vec<Context>)>,
}

impl<'a> Negotiation<'a> {
    /// One that is to be fed [`CLIENT_FLAGS_BYTES`] after the greeting.
    pub(crate) fn new(offers: &'a [Offer], secrecy: Secrecy) -> (Self, Next) {
        let negotiation = Self {
            offers,
            secrecy,
            state: State::ClientFlags,
            no_zeroes: false,
            structured: false,
            selected: None,
        };
        (negotiation, Next::Feed(CLIENT_FLAGS_BYTES))
    }

    /// Takes what was asked for last, and appends to `out` what is to be said. A server that is being
    /// shut down (`closing`) begins nothing.
    pub(crate) fn feed(&mut self, bytes: &[u8], closing: bool, out: &mut Vec<u8>) -> Next {
        match self.state {
            State::ClientFlags => self.client_flags(bytes),
            State::Head => self.head(bytes, closing, out),
            State::Data(head) => {
                self.state = State::Head;
                self.option(head.option, bytes, closing, out)
            }
        }
    }

    /// Goes on where TLS has begun: with what was agreed on before, somebody else may have had a hand in
    /// it, so nothing of it counts. "The client's flags", which are said once, stay.
    pub(crate) fn secured(&mut self) -> Next {
        self.secrecy = Secrecy::Begun;
        self.structured = false;
        self.selected = None;
        self.another()
    }

    /// "The server MUST drop the connection if the client sets an unknown flag."
    fn client_flags(&mut self, bytes: &[u8]) -> Next {
        let Some(flags) = Fields(bytes).u32() else {
            return Next::End;
        };
        if flags & !(client::FIXED_NEWSTYLE | client::NO_ZEROES) != 0 {
            return Next::End;
        }
        self.no_zeroes = flags & client::NO_ZEROES != 0;
        self.another()
    }

    fn another(&mut self) -> Next {
        self.state = State::Head;
        Next::Feed(OPTION_HEAD_BYTES)
    }

    fn head(&mut self, bytes: &[u8], closing: bool, out: &mut Vec<u8>) -> Next {
        let Some(head) = OptionHead::decode(bytes) else {
            return Next::End;
        };
        if head.len > MAX_OPTION {
            // Nobody waits for gigabytes to be thrown away.
            put_reply(out, head.option, kind::ERR_TOO_BIG, b"option too long");
            return Next::End;
        }
        if head.len == 0 {
            return self.option(head.option, &[], closing, out);
        }
        self.state = State::Data(head);
        Next::Feed(head.len as usize)
    }

    fn option(&mut self, option: u32, data: &[u8], closing: bool, out: &mut Vec<u8>) -> Next {
        let mut reply = |kind, data: &[u8]| put_reply(out, option, kind, data);
        match option {
            option::ABORT => {
                reply(kind::ACK, &[]);
                return Next::End;
            }
            // It has no reply that could say why.
            option::EXPORT_NAME if closing => return Next::End,
            _ if closing => reply(kind::ERR_SHUTDOWN, b"server is shutting down"),
            option::STARTTLS => return self.start_tls(data, out),
            option::EXPORT_NAME if self.secrecy == Secrecy::Required => return Next::End,
            _ if self.secrecy == Secrecy::Required => {
                reply(kind::ERR_TLS_REQD, b"this server talks within TLS only");
            }
            option::EXPORT_NAME => return self.export_name(data, out),
            option::LIST if data.is_empty() => {
                for offer in self.offers {
                    let entry = option::server(&offer.name, &offer.description);
                    reply(kind::SERVER, &entry);
                }
                reply(kind::ACK, &[]);
            }
            option::INFO | option::GO => return self.info(option, data, out),
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                reply(kind::ACK, &[]);
            }
            option::LIST | option::STRUCTURED_REPLY => {
                reply(kind::ERR_INVALID, b"this option takes no data");
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(option, data, out);
            }
            _ => reply(kind::ERR_UNSUP, b"unknown option"),
        }
        self.another()
    }

    fn start_tls(&self, data: &[u8], out: &mut Vec<u8>) -> Next {
        let mut reply = |kind, data: &[u8]| put_reply(out, option::STARTTLS, kind, data);
        match self.secrecy {
            _ if !data.is_empty() => reply(kind::ERR_INVALID, b"this option takes no data"),
            Secrecy::Plain => reply(kind::ERR_POLICY, b"this server does not do TLS"),
            Secrecy::Begun => reply(kind::ERR_INVALID, b"TLS has begun already"),
            Secrecy::Required => {
                reply(kind::ACK, &[]);
                return Next::StartTls;
            }
        }
        Next::Feed(OPTION_HEAD_BYTES)
    }

    /// The offer of that name; the first is also the default, whose name is empty.
    fn find(&self, name: &[u8]) -> Option<usize> {
        let mut offers = self.offers.iter();
        let named = offers.position(|offer| offer.name.as_bytes() == name);
        named.or((name.is_empty() && !self.offers.is_empty()).then_some(0))
    }

    fn agreed(&self, export: usize) -> Agreed {
        let contexts = match &self.selected {
            Some((of, contexts)) if *of == export => contexts.clone(),
            _ => Vec::new(),
        };
        Agreed {
            export,
            structured: self.structured,
            contexts,
        }
    }

    fn export_name(&self, data: &[u8], out: &mut Vec<u8>) -> Next {
        let Some(export) = self.find(data) else {
            return Next::End;
        };
        let offer = &self.offers[export];
        let flags = offer.flags(self.structured);
        out.extend(export_facts(offer.size, flags, self.no_zeroes));
        Next::Transmit(self.agreed(export))
    }

    fn info(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Next {
        let mut reply = |kind, data: &[u8]| put_reply(out, option, kind, data);
        let Some(request) = InfoRequest::decode(data) else {
            reply(kind::ERR_INVALID, b"malformed request for information");
            return self.another();
        };
        let Some(export) = self.find(request.name) else {
            reply(kind::ERR_UNKNOWN, b"no export of that name");
            return self.another();
        };
        let offer = &self.offers[export];
        let flags = offer.flags(self.structured);
        reply(kind::INFO, &info::export(offer.size, flags));
        let preferred = offer.preferred_block;
        let sizes = info::block_size(MIN_BLOCK, preferred, MAX_REQUEST);
        reply(kind::INFO, &sizes);
        for (wanted, text) in [
            (info::NAME, &offer.name),
            (info::DESCRIPTION, &offer.description),
        ] {
            if request.wanted.contains(&wanted) && (wanted == info::NAME || !text.is_empty()) {
                reply(kind::INFO, &info::text(wanted, text));
            }
        }
        reply(kind::ACK, &[]);
        match option {
            option::GO => Next::Transmit(self.agreed(export)),
            _ => self.another(),
        }
    }

    fn meta_context(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        let listing = option == option::LIST_META_CONTEXT;
        let mut reply = |kind, data: &[u8]| put_reply(out, option, kind, data);
        if !listing {
            // Also where this fails: what was selected before is not what the client wants now.
            self.selected = None;
        }
        if !self.structured {
            return reply(kind::ERR_INVALID, b"structured replies come first");
        }
        let Some((name, queries)) = context_queries(data) else {
            return reply(kind::ERR_INVALID, b"malformed queries");
        };
        let Some(export) = self.find(name) else {
            return reply(kind::ERR_UNKNOWN, b"no export of that name");
        };
        let offered = self.offers[export].contexts();
        let contexts = Context::chosen(offered, &queries, listing);
        for context in &contexts {
            let id = if listing { 0 } else { context.id() };
            let named = option::meta_context(id, context.name());
            reply(kind::META_CONTEXT, &named);
        }
        reply(kind::ACK, &[]);
        if !listing {
            self.selected = Some((export, contexts));
        }
    }
}

/// The export's name and the queries; `None` when the lengths do not add up.
fn context_queries(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        // Each takes four bytes at least, so that a count without queries ends here.
        queries.push(fields.string()?);
    }
    fields.is_empty().then_some((name, queries))
}
