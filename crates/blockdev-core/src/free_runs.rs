//! Units of space known to be free, in runs.

use std::collections::BTreeMap;

/// Runs kept; more are forgotten, which costs nothing but a later search.
const MOST_RUNS: usize = 1 << 16;

/// Free clusters or blocks, by number, in runs: a bounded memory of what may be used again.
#[derive(Debug, Default)]
pub struct FreeRuns {
    runs: BTreeMap<u64, u64>,
}

impl FreeRuns {
    /// Notes that `count` units from `first` are free; they were not noted before.
    pub fn insert(&mut self, first: u64, count: u64) {
        let (mut first, mut count) = (first, count);
        if let Some((&before, &length)) = self.runs.range(..first).next_back()
            && before + length == first
        {
            self.runs.remove(&before);
            (first, count) = (before, length + count);
        }
        if let Some(length) = self.runs.remove(&(first + count)) {
            count += length;
        }
        if self.runs.len() < MOST_RUNS {
            self.runs.insert(first, count);
        }
    }

    /// Takes up to `most` units that follow one another: the lowest.
    pub fn take(&mut self, most: u64) -> Option<(u64, u64)> {
        let (first, count) = self.runs.pop_first()?;
        let taken = count.min(most);
        if taken < count {
            self.runs.insert(first + taken, count - taken);
        }
        Some((first, taken))
    }

    /// Takes exactly `count` units that follow one another, if a run is so long.
    pub fn take_whole(&mut self, count: u64) -> Option<u64> {
        let (&first, &length) = self.runs.iter().find(|(_, length)| **length >= count)?;
        self.runs.remove(&first);
        if length > count {
            self.runs.insert(first + count, length - count);
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_run() {
        let mut free = FreeRuns::default();
        free.insert(10, 2);
        free.insert(14, 1);
        free.insert(12, 2);
        assert_eq!(free.take(100), Some((10, 5)));
        assert_eq!(free.take(1), None);
        free.insert(3, 4);
        free.insert(20, 8);
        assert_eq!(free.take_whole(5), Some(20));
        assert_eq!(free.take(2), Some((3, 2)));
        assert_eq!(free.take(9), Some((5, 2)));
        assert_eq!(free.take(9), Some((25, 3)));
    }
}
