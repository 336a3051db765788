//! Decisions over bytes: values in, values out. No sockets and no threads, so that whole sessions are
//! tested and fuzzed without either.
//!
//! ```text
//!   options   Negotiation::feed ──► Next          until both agree on an export
//!   requests  Terms::judge      ──► Verdict       may it, and what does it need
//!             answer            ──► messages      the one place that asks the disk
//!
//!   of a client: agree ──► Facts, then Piece by piece: a request, and what gather makes of its reply
//! ```

pub(crate) mod agreement;
pub(crate) mod answer;
pub(crate) mod context;
pub(crate) mod facts;
pub(crate) mod gathering;
pub(crate) mod listing;
pub(crate) mod negotiation;
pub(crate) mod offer;
pub(crate) mod piece;
pub(crate) mod read_plan;
pub(crate) mod status;
pub(crate) mod terms;

#[cfg(test)]
mod tests;
