//! Extents as the descriptors of each context.

use blockdev_core::{Extent, ExtentKind};

use super::context::Context;
use crate::wire::flags::allocation::{HOLE, ZERO};

/// Most descriptors of one context in one reply. "The server MAY return less descriptors … than would
/// be required", and the client asks on.
const MOST_RUNS: usize = 1024;

/// What runs nobody holds read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// As zeros.
    Zeros,
    /// An error: they are a parent's that is not open.
    Unknown,
}

/// The status of a run in `context`.
pub(crate) fn flags(context: Context, extent: &Extent, absent: Absent) -> u32 {
    match (context, extent.kind) {
        (Context::Allocation, ExtentKind::Data | ExtentKind::Compressed) => 0,
        // Also zeros that have a place: those of a raw image are holes of its file.
        (Context::Allocation, ExtentKind::Zero) => HOLE | ZERO,
        (Context::Allocation, ExtentKind::Absent) => match absent {
            Absent::Zeros => HOLE | ZERO,
            Absent::Unknown => HOLE,
        },
        (Context::Depth, ExtentKind::Absent) => 0,
        (Context::Depth, _) => extent.depth.saturating_add(1),
    }
}

/// The descriptors of one context, while they are gathered.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) context: Context,
    /// Lengths in bytes, each with its flags; neighbours differ.
    pub(crate) runs: Vec<(u32, u32)>,
    most: usize,
    full: bool,
}

impl Runs {
    /// None yet, for a client that wants but `one` or as many as there are.
    pub(crate) fn new(context: Context, one: bool) -> Self {
        Self {
            context,
            runs: Vec::new(),
            most: if one { 1 } else { MOST_RUNS },
            full: false,
        }
    }

    /// Appends `len` bytes of the kind that `extent` is.
    pub(crate) fn push(&mut self, extent: &Extent, len: u32, absent: Absent) {
        let flags = flags(self.context, extent, absent);
        let room = self.runs.len() < self.most;
        match self.runs.last_mut() {
            _ if self.full => {}
            // The sum stays within the request's length, which has 32 bits.
            Some((sum, of)) if *of == flags => *sum = sum.saturating_add(len),
            _ if room => self.runs.push((len, flags)),
            _ => self.full = true,
        }
    }

    /// True when nothing more is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(one: bool) -> Vec<(u32, u32)> {
        let mut runs = Runs::new(Context::Allocation, one);
        for (kind, len) in [
            (ExtentKind::Data, 5),
            (ExtentKind::Compressed, 6),
            (ExtentKind::Absent, 7),
            (ExtentKind::Zero, 8),
            (ExtentKind::Data, 9),
        ] {
            runs.push(&Extent::new(kind, len.into()), len, Absent::Zeros);
        }
        assert_eq!(runs.is_full(), one);
        runs.runs
    }

    #[test]
    fn neighbours_of_one_status_are_one_run() {
        assert_eq!(runs(false), [(11, 0), (15, HOLE | ZERO), (9, 0)]);
    }

    #[test]
    fn whoever_wants_one_gets_the_first() {
        assert_eq!(runs(true), [(11, 0)]);
    }

    #[test]
    fn bytes_of_a_parent_that_is_not_open_are_never_called_zeros() {
        let absent = Extent::new(ExtentKind::Absent, 1);
        assert_eq!(flags(Context::Allocation, &absent, Absent::Unknown), HOLE);
        assert_eq!(flags(Context::Depth, &absent, Absent::Unknown), 0);
        let mut below = Extent::new(ExtentKind::Data, 1);
        below.depth = 2;
        assert_eq!(flags(Context::Depth, &below, Absent::Zeros), 3);
    }
}
