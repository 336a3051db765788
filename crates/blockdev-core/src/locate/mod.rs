//! Finding the files that an image names, under a policy the caller chose.
//!
//! Nothing in this library follows a name by itself: a [`ChainPolicy`] says which names may be
//! followed, an [`Opener`] does the opening. Both see names as data; protocol prefixes, UNC paths
//! and names with control characters have no meaning in the host's file system and are never given
//! to it.

mod beneath;
mod opener;
mod policy;

#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub use opener::UringOpener;
pub use opener::{DirectOpener, HostOpener, Opener};
pub use policy::{ChainPolicy, Found, Handles, Resolve, Wanted};
