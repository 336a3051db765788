//! What the tests of every crate share; shipped by none.
//!
//! | module | answers |
//! | --- | --- |
//! | [`conformance`] | does this device behave as a block device must? |
//! | [`counting`] | what was read, written, opened; what happens when the host fails? |
//! | [`corpus`] | does it read the images whose content is known? |
//! | [`oracle`] | what do `qemu-img`, libvhdi and 7-Zip say? |
//! | [`mutate`] | does it survive damaged images? |
//! | [`folded`] | … and what a fuzzer makes of them? |
//! | [`model`] | does it keep what random guests write? |
//! | [`crash`] | is flushed data intact after a crash at any instant? |
//! | [`faults`] | … and after any failure of the host? |
//! | [`Over`] | an image's layer over bytes, as a whole disk |
//! | [`vhdx_builder`] | images with any content and any fault, made without the library |
//!
//! Failures are panics with the place and the bytes in them: everything here is called from tests.
//! What a machine lacks (a tool, the corpus) is said loudly on the terminal and skipped, but is a
//! failure where the environment variable `CI` is `true`.

pub mod conformance;
pub mod corpus;
pub mod counting;
pub mod crash;
mod env;
pub mod faults;
pub mod folded;
pub mod model;
pub mod mutate;
pub mod oracle;
mod over;
mod rng;
pub mod stamp;
mod subject;

pub mod vhdx_builder;

pub use over::{BytesBelow, Over, WriteBy};
pub use rng::Rng;
