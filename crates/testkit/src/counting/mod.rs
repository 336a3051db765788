//! Doubles that record what is asked of the host, and hosts that fail on demand.

#[cfg(target_os = "linux")]
mod canary;
mod faulty;
mod opener;
mod storage;

#[cfg(target_os = "linux")]
pub use canary::Canary;
pub use faulty::{Fault, FaultyStorage};
pub use opener::CountingOpener;
pub use storage::{Call, CountingStorage, Op};
