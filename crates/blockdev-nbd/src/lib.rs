//! An NBD server for any [`BlockDevice`](blockdev_core::BlockDevice): a chain, a lone image, a test double;
//! and the exports of other servers as a [`Storage`](blockdev_core::Storage) ([`NbdStorage`]), wherever a
//! name is opened ([`NbdOpener`]). What exports a server has [`list_exports`] tells.
//!
//! ```text
//!   client ══ unix socket or TCP ══► transport   threads, timeouts, limits
//!                                      │
//!                                    session     what is agreed on, what may be asked, the reply
//!                                      │
//!                                    BlockDevice
//! ```
//!
//! It speaks the fixed newstyle of the protocol, with structured replies, the contexts `base:allocation`
//! and `qemu:allocation-depth`, and every command but `RESIZE`. With the feature `tls` a server can be made
//! to talk within TLS only (`Credentials`), and a client that is told `nbds://` does not talk without. Requests of one connection are carried out side by side by a few
//! threads, and replies come as they are ready. There is no executor.
//!
//! # Hostile clients
//!
//! Any bytes may come from the other side, or none. A handshake has a time limit, and so has a request
//! once it has begun and a reply that is not taken; only the time between requests is free. Each
//! connection has a share of memory of its own, so that one which stalls keeps no other from its replies,
//! and there are so many connections and no more. **Nobody is asked who he is** unless TLS and certificates are
//! required: whoever can reach the socket can read the disk, and write to it unless the export is
//! read-only, as it is if nobody says otherwise. A unix socket is its owner's alone.
//!
//! # Hostile servers
//!
//! Nor does [`NbdStorage`] trust its server: each step has a time limit, no length that the server tells is
//! taken memory for unless it was asked for or is small, and chunks that miss something of a read, overlap
//! or reach beyond it end the connection, as does anything else that was not asked for. What the disk
//! holds is the server's word.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use blockdev_core::{LoneLayer, MemoryStorage, RawLayer};
//! use blockdev_nbd::{Export, Listener, Server, ServerOptions};
//!
//! let storage = Arc::new(MemoryStorage::from(vec![7; 4096]));
//! let disk = Arc::new(LoneLayer::new(Box::new(RawLayer::open(storage)?)));
//!
//! let server = Server::new(vec![Export::new("disk", disk)], ServerOptions::default())?;
//! let running = server.start(Listener::tcp("127.0.0.1:0")?)?;
//! println!("nbdinfo nbd://{}/disk", running.address());
//! running.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "tls")]
mod client_credentials;
#[cfg(not(feature = "tls"))]
#[path = "no_credentials.rs"]
mod client_credentials;
#[cfg(feature = "tls")]
mod credentials;
mod error;
mod export;
mod export_info;
pub mod fuzz;
mod list;
mod opener;
mod options;
mod peer;
mod server;
mod session;
mod storage;
mod transport;
mod uri;
mod wire;

#[cfg(feature = "tls")]
pub use credentials::Credentials;
pub use error::NbdError;
pub use export::Export;
pub use export_info::{BlockSizes, ExportInfo};
pub use list::{ListError, list_exports};
pub use opener::NbdOpener;
pub use options::{ClientOptions, ServerOptions};
pub use server::{Running, Server, Stopper};
pub use storage::NbdStorage;
pub use transport::listener::{Address, Listener};
