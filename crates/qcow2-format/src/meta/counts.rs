//! How often each host cluster is referred to, in two bits a cluster.
//!
//! ```text
//!   page of 4096 clusters   narrow: 2 bits each, 0 to 3        1 KiB
//!                           wide:   32 bits each, from the
//!                                   first count above 3       16 KiB
//! ```
//!
//! Pages exist where something is counted, so a sparse file costs what it holds. Without snapshots no
//! cluster but those of compressed data is referred to twice, and nearly all pages stay narrow.

use std::collections::BTreeMap;

/// Clusters that a page stands for.
const PAGE: u64 = 4096;
const PAGE_CLUSTERS: usize = 4096;
const NARROW_MAX: u32 = 3;
/// Four narrow counts of 1.
const ONES: u8 = 0b0101_0101;
/// Clusters that are compared at once: those of the smallest refcount block.
pub(crate) const GROUP: usize = 64;
/// Memory for all pages.
const MAX_BYTES: usize = 256 << 20;

#[derive(Debug)]
enum Page {
    Narrow(Box<[u8; PAGE_CLUSTERS / 4]>),
    Wide(Box<[u32]>),
}

/// Counts of references, by host cluster.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pages: Vec<Page>,
    index: BTreeMap<u64, usize>,
    /// The page used last, and where it is: neighbours are counted together.
    last: Option<(u64, usize)>,
    bytes: usize,
    incomplete: bool,
}

impl Counts {
    /// Notes `times` more references to `cluster`.
    pub(crate) fn add(&mut self, cluster: u64, times: u32) {
        let Some(at) = self.page(cluster / PAGE) else {
            return;
        };
        let within = within(cluster);
        if let Page::Narrow(bytes) = &mut self.pages[at] {
            let shift = within % 4 * 2;
            let old = u32::from(bytes[within / 4] >> shift & 3);
            let sum = old.saturating_add(times);
            if sum <= NARROW_MAX {
                let sum = u8::try_from(sum).expect("at most 3");
                bytes[within / 4] = bytes[within / 4] & !(3 << shift) | sum << shift;
                return;
            }
            if !self.widen(at) {
                return;
            }
        }
        if let Page::Wide(counts) = &mut self.pages[at] {
            counts[within] = counts[within].saturating_add(times);
        }
    }

    /// Notes one more reference to each of `count` clusters from `first`.
    pub(crate) fn add_run(&mut self, first: u64, count: u64) {
        let end = first + count;
        let mut next = first;
        while next < end {
            let stop = end.min((next / PAGE + 1) * PAGE);
            if !self.fill(next, stop) {
                (next..stop).for_each(|cluster| self.add(cluster, 1));
            }
            next = stop;
        }
    }

    /// Notes the first reference to clusters of one page, if they fill bytes and have none yet.
    fn fill(&mut self, first: u64, end: u64) -> bool {
        if !first.is_multiple_of(4) || !end.is_multiple_of(4) {
            return false;
        }
        let Some(at) = self.page(first / PAGE) else {
            return true;
        };
        let Page::Narrow(bytes) = &mut self.pages[at] else {
            return false;
        };
        let from = within(first) / 4;
        let len = usize::try_from((end - first) / 4).expect("inside a page");
        let fresh = &mut bytes[from..from + len];
        let is_fresh = fresh.iter().all(|byte| *byte == 0);
        if is_fresh {
            fresh.fill(ONES);
        }
        is_fresh
    }

    /// True when each of the [`GROUP`] clusters from `first`, a multiple of that, is referred to once.
    pub(crate) fn is_one_each(&mut self, first: u64) -> bool {
        let Some(at) = self.find(first / PAGE) else {
            return false;
        };
        let from = within(first) / 4;
        match &self.pages[at] {
            Page::Narrow(bytes) => bytes[from..from + GROUP / 4] == [ONES; GROUP / 4],
            Page::Wide(_) => false,
        }
    }

    /// References to `cluster` noted so far.
    pub(crate) fn of(&mut self, cluster: u64) -> u32 {
        self.find(cluster / PAGE)
            .map_or(0, |at| self.pages[at].of(within(cluster)))
    }

    /// The clusters from `first` to before `end` that are referred to, with how often.
    pub(crate) fn counted(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.index
            .range(first / PAGE..end.div_ceil(PAGE))
            .flat_map(|(page, at)| (page * PAGE..(page + 1) * PAGE).map(move |c| (c, *at)))
            .filter(move |(cluster, _)| (first..end).contains(cluster))
            .map(|(cluster, at)| (cluster, self.pages[at].of(within(cluster))))
            .filter(|(_, count)| *count > 0)
    }

    /// One past the last cluster that may be referred to.
    pub(crate) fn end(&self) -> u64 {
        self.index
            .last_key_value()
            .map_or(0, |(page, _)| (page + 1) * PAGE)
    }

    /// True when references are spread wider than memory allows to account for.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Where the page is, if it is there.
    fn find(&mut self, page: u64) -> Option<usize> {
        if let Some((last, at)) = self.last
            && last == page
        {
            return Some(at);
        }
        let at = *self.index.get(&page)?;
        self.last = Some((page, at));
        Some(at)
    }

    /// Where the page is; it is made if there is memory for it.
    fn page(&mut self, page: u64) -> Option<usize> {
        if let Some(at) = self.find(page) {
            return Some(at);
        }
        if !self.afford(PAGE_CLUSTERS / 4) {
            return None;
        }
        let at = self.pages.len();
        self.pages
            .push(Page::Narrow(Box::new([0; PAGE_CLUSTERS / 4])));
        self.index.insert(page, at);
        self.last = Some((page, at));
        Some(at)
    }

    fn widen(&mut self, at: usize) -> bool {
        if !self.afford(PAGE_CLUSTERS * size_of::<u32>()) {
            return false;
        }
        let page = &self.pages[at];
        let wide = (0..PAGE_CLUSTERS).map(|within| page.of(within)).collect();
        self.pages[at] = Page::Wide(wide);
        true
    }

    fn afford(&mut self, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= MAX_BYTES;
        self.bytes += if fits { bytes } else { 0 };
        self.incomplete |= !fits;
        fits
    }
}

impl Page {
    fn of(&self, within: usize) -> u32 {
        match self {
            Self::Narrow(bytes) => u32::from(bytes[within / 4] >> (within % 4 * 2) & 3),
            Self::Wide(counts) => counts[within],
        }
    }
}

fn within(cluster: u64) -> usize {
    usize::try_from(cluster % PAGE).expect("inside a page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_across_the_step_from_narrow_to_wide() {
        let mut counts = Counts::default();
        let mut model = BTreeMap::new();
        let mut seed = 1u64;
        for n in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let cluster = (seed >> 40) % 3000 + (seed >> 33) % 3 * 1_000_000;
            let times = u32::try_from(seed >> 60).unwrap() / 5;
            // Now and then a run, across pages and over what was counted before.
            if n % 100 == 0 {
                let count = (seed >> 20) % 5000;
                counts.add_run(cluster, count);
                for cluster in cluster..cluster + count {
                    *model.entry(cluster).or_insert(0) += 1;
                }
            }
            counts.add(cluster, times);
            *model.entry(cluster).or_insert(0) += times;
        }
        for (&cluster, &count) in &model {
            assert_eq!(counts.of(cluster), count, "{cluster}");
        }
        model.retain(|cluster, count| *count > 0 && (10..1_001_000).contains(cluster));
        assert!(counts.counted(10, 1_001_000).eq(model));
        assert_eq!(counts.of(500_000), 0);
        assert!(counts.end() >= 2_000_000 && !counts.is_incomplete());
    }

    #[test]
    fn a_run_counts_as_its_clusters_do() {
        for (first, count) in [(0, 4096), (4, 8), (3, 5), (4090, 8192), (64, 64), (60, 72)] {
            let mut counts = Counts::default();
            counts.add_run(first, count);
            let there: Vec<_> = counts.counted(0, 1 << 20).collect();
            let right: Vec<_> = (first..first + count).map(|cluster| (cluster, 1)).collect();
            assert_eq!(there, right);
            for group in (0..16_384).step_by(GROUP) {
                let within = first <= group && group + GROUP as u64 <= first + count;
                assert_eq!(
                    counts.is_one_each(group),
                    within,
                    "{first}+{count}, {group}"
                );
            }
            counts.add(first, 1);
            assert!(!counts.is_one_each(first / 64 * 64));
            counts.add_run(first, count);
            assert_eq!((counts.of(first), counts.of(first + 1)), (3, 2));
        }
    }

    #[test]
    fn memory_is_bounded_and_its_end_is_told() {
        let mut counts = Counts::default();
        for page in 0..300_000 {
            counts.add(page * PAGE, 1);
        }
        assert!(counts.is_incomplete() && counts.bytes <= MAX_BYTES);
    }
}
