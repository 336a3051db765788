//! What every block device must do, whatever it is made of.
//!
//! A new format, layer or adapter runs these before tests of its own: [`readable`] against the
//! content it must show, [`refuses_changes`] when it is read-only, [`writable`] when it is not,
//! [`detached`] when it names a parent that was not opened.

mod content;
mod points;
mod read;
mod status;
mod write;

pub use content::{Content, Model};
pub use read::{readable, readable_at};
pub use status::detached;
pub use write::{refuses_changes, writable};

#[cfg(test)]
mod tests;
