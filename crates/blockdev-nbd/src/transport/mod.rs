//! Sockets, threads and time: the only floor that waits.
//!
//! ```text
//!   acceptor ── one thread for each connection ── its workers
//!      │             │ reads requests, in order      │ ask the disk, write replies, in any order
//!      └── gate: how many connections, and whether the server still runs
//!
//!   of a client: dialogue ── whoever asks sends and reads for himself, in the order that queue keeps
//!                   └── line: the socket
//! ```

pub(crate) mod acceptor;
mod connection;
pub(crate) mod dialogue;
mod ends;
pub(crate) mod gate;
mod line;
pub(crate) mod listener;
mod queue;
#[cfg(unix)]
mod socket_file;
mod stream;
mod timed;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod wake;
mod workers;
