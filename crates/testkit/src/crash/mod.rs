//! Every instant a crash can expose, tried.
//!
//! ```text
//!   Scenario ─► Driver ─► engine under proof ─► Recording           what was asked, when, with marks
//!                  │                                   │
//!               History                           points, windows   where a crash may strike
//!                  │                                   │
//!               Expected ───────► verify ◄───────── choices         what may have reached the disk
//!                                    │
//!                                 Report
//! ```
//!
//! # How a crash is modelled
//!
//! A story has one file or several, and one log of what changes any of them. For each file it is cut
//! at that file's completed syncs: what a sync covers is durable, and a sync covers one file. Each
//! change since is a *unit* that may have reached the disk or not.
//!
//! | choice | models |
//! | --- | --- |
//! | any subset of the units | caches and queues that write back in any order |
//! | some of one file's units, and all or none of another's | files on two disks, or far apart on one |
//! | a write of several sectors in part | power cut in the middle of a transfer; 512 bytes are atomic |
//! | a `set_len` in or out as a unit of its own | the file system's journal ahead of or behind the data |
//! | any length a file had in the window | data that arrived without its size, size without its data |
//! | holes and zeroed ranges after later writes, or before earlier ones | unmaps queued apart from writes |
//! | overlapping units in another order | two paths to one disk |
//! | a sync that was begun only | no promise at all |
//! | [`SyncKind::Data`](blockdev_core::SyncKind::Data) | a barrier for bytes and for the length they need; growth without bytes may still be lost |
//! | a failed sync | its data may be lost for good: no later sync makes it durable |
//!
//! Names are not modelled: all files are there from the start, and stay.
//!
//! A change smaller than a sector is taken to be atomic, and may be lost though a later one of the
//! same sector is not; this is harsher than a page cache.
//!
//! States with the same bytes are verified once for as long as no further promise of durability has
//! been made: what may be read only grows until then, so the first verdict is the strictest. Where a
//! crash cuts a [`Control`] operation short, the operation is carried out again as well, if the subject
//! can: the disk must then be what it makes of it. Each state has a number from which it is made again,
//! whatever the budget was.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use blockdev_core::{CheckReport, LoneLayer, RawLayer, Result, Storage};
//! use testkit::crash::{Budget, CrashExplorer, CrashSubject, Scenario, closing_line};
//!
//! struct Raw;
//!
//! impl CrashSubject for Raw {
//!     type Device = LoneLayer;
//!
//!     fn format(&self) -> &str {
//!         "raw"
//!     }
//!
//!     fn open(&self, files: &[Arc<dyn Storage>], _writable: bool) -> Result<LoneLayer> {
//!         Ok(LoneLayer::new(Box::new(RawLayer::open(Arc::clone(&files[0]))?)))
//!     }
//!
//!     fn check(&self, _files: &[Arc<dyn Storage>]) -> Result<CheckReport> {
//!         Ok(CheckReport::default())
//!     }
//! }
//!
//! let scenario = Scenario::new("write, flush, write", vec![0; 64 << 10], |disk| {
//!     disk.write(0, 4096)?;
//!     disk.flush()?;
//!     disk.write(512, 3000)?;
//!     disk.discard(8192, 8192)
//! });
//! let explorer = CrashExplorer::new(&Raw, Budget::states(500).seed(1));
//! let report = explorer.run(&scenario);
//! report.assert_clean();
//! assert!(closing_line("raw", &[report]).contains("1 scenarios, 0 bad"));
//! // A state that a report named: explorer.replay(&scenario, "17.305".parse().unwrap())
//! ```

mod budget;
pub(crate) mod choice;
mod driver;
mod expected;
mod explorer;
mod history;
mod image;
mod plan;
pub(crate) mod record;
mod recording;
mod report;
mod run;
mod scenario;
mod state;
pub(crate) mod verify;
pub(crate) mod window;

pub use budget::Budget;
pub use driver::Driver;
pub use expected::{Allowed, Expected};
pub use explorer::CrashExplorer;
pub use history::{Effect, History};
pub use image::Image;
pub(crate) use image::index;
pub use plan::{Named, Plan, Story, asks_for_much};
pub use record::{Told, tell};
pub use recording::{Entry, Line, Mark, Recording};
pub use report::{Bad, Report, StateId, closing_line};
pub use scenario::Scenario;
pub(crate) use state::StateFiles;
pub use state::StateStorage;

pub use crate::subject::{Control, CrashSubject};
