//! What an engine makes of a host that fails: at every operation, in every way.
//!
//! A scenario is told again and again, each time with one more call going well before one fails. The
//! calls are those of one host, counted over all of its files.
//! What then must hold:
//!
//! - the error has a kind that says so: [`Io`](blockdev_core::ErrorKind::Io),
//!   [`NoSpace`](blockdev_core::ErrorKind::NoSpace), or
//!   [`Poisoned`](blockdev_core::ErrorKind::Poisoned) from what came later;
//! - the failure is told to somebody: by the operation it struck, or by the next flush;
//! - the handle, if it is still there, reads what it must, and refuses further writes if it is
//!   poisoned, each time;
//! - the files, as they are and after a crash at that moment, are what the crash explorer would accept:
//!   nothing flushed is lost, the check finds no corruption.
//!
//! A failed sync is taken at its worst: what was pending may be lost, and no later sync that
//! succeeds brings it back.

mod injector;
mod prove;
mod report;
mod telling;

pub use injector::FaultInjector;
pub use prove::prove;
pub use report::FaultReport;

pub use crate::counting::{Fault, Op};
