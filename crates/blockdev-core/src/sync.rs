//! Locks and counters that threads share: the machine's, or those of a model that tries the orders
//! in which threads can get at them (`cargo xtask model`).

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
