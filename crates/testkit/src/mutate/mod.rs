//! Damages images, the same way each time for the same seed.
//!
//! Blind damage rarely gets past a checksum; [`Mutator::repair_checksums`] makes the checksums of a
//! VHDX right again most of the time, so that the lines behind them are reached as well.

mod integers;
mod vhdx;

use std::ops::Range;

pub use vhdx::{fix_vhdx_checksums, fix_vhdx_log_checksums, vhdx_log_range, vhdx_metadata_ranges};

use crate::Rng;

const PAGE: usize = 4096;

/// Changes images at random.
#[derive(Debug, Clone)]
pub struct Mutator {
    rng: Rng,
    focus: Vec<Range<usize>>,
    checksums: bool,
}

impl Mutator {
    /// The mutator whose changes `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            focus: Vec::new(),
            checksums: false,
        }
    }

    /// The same, changing mostly bytes in `ranges` (see [`vhdx_metadata_ranges`]).
    #[must_use]
    pub fn focused(mut self, ranges: Vec<Range<usize>>) -> Self {
        self.focus = ranges;
        self
    }

    /// The same, making the checksums of VHDX structures right after three changes in four.
    #[must_use]
    pub fn repair_checksums(mut self) -> Self {
        self.checksums = true;
        self
    }

    /// Changes `image` in one to four places. It may become shorter, never longer.
    pub fn mutate(&mut self, image: &mut Vec<u8>) {
        for _ in 0..=self.rng.below(4) {
            self.one(image);
        }
        if self.checksums && !self.rng.one_in(4) {
            fix_vhdx_checksums(image);
        }
    }

    fn one(&mut self, image: &mut Vec<u8>) {
        if image.is_empty() {
            return;
        }
        match self.rng.below(16) {
            0..4 => self.flip_bits(image),
            4..10 => self.integer(image),
            10..12 => self.swap(image),
            12..14 => self.copy_page(image),
            14 => self.overwrite(image),
            _ => self.truncate(image),
        }
    }

    /// A place to change: seven times in eight inside the focus, where there is one.
    fn place(&mut self, len: usize) -> usize {
        if !self.focus.is_empty() && !self.rng.one_in(8) {
            let n = self.rng.index(self.focus.len());
            let range = self.focus[n].clone();
            let end = range.end.min(len);
            if range.start < end {
                return range.start + self.rng.index(end - range.start);
            }
        }
        self.rng.index(len)
    }

    fn flip_bits(&mut self, image: &mut [u8]) {
        for _ in 0..=self.rng.below(8) {
            let at = self.place(image.len());
            image[at] ^= 1 << self.rng.below(8);
        }
    }

    fn integer(&mut self, image: &mut [u8]) {
        let width = *self.rng.pick(&[1, 2, 4, 8, 8]);
        // Fields are aligned nearly always.
        let mut at = self.place(image.len());
        if !self.rng.one_in(8) {
            at -= at % width;
        }
        let Some(field) = image.get(at..at + width) else {
            return;
        };
        let mut old = [0; 8];
        old[..width].copy_from_slice(field);
        let file_len = image.len() as u64;
        let new = integers::interesting(&mut self.rng, u64::from_le_bytes(old), file_len);
        image[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
    }

    /// Two entries of a table change places.
    fn swap(&mut self, image: &mut [u8]) {
        let width = *self.rng.pick(&[1, 8, 16, 32]);
        let (a, b) = (self.place(image.len()), self.place(image.len()));
        let (a, b) = (a - a % width, b - b % width);
        if a != b && a.max(b) + width <= image.len() {
            for i in 0..width {
                image.swap(a + i, b + i);
            }
        }
    }

    /// A page appears in a second place: stale tables, repeated log entries.
    fn copy_page(&mut self, image: &mut [u8]) {
        let (from, to) = (self.place(image.len()), self.place(image.len()));
        let (from, to) = (from - from % PAGE, to - to % PAGE);
        let len = PAGE.min(image.len() - from.max(to));
        image.copy_within(from..from + len, to);
    }

    /// A stretch of zeros, ones or noise.
    fn overwrite(&mut self, image: &mut [u8]) {
        let at = self.place(image.len());
        let len = *self.rng.pick(&[8, 32, 512, PAGE]);
        let end = image.len().min(at + len);
        match self.rng.below(3) {
            0 => image[at..end].fill(0),
            1 => image[at..end].fill(0xFF),
            _ => self.rng.fill(&mut image[at..end]),
        }
    }

    fn truncate(&mut self, image: &mut Vec<u8>) {
        let mut at = self.place(image.len());
        if !self.rng.one_in(4) {
            at -= at % 512;
        }
        image.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_damage_and_another_gives_other() {
        let image: Vec<u8> = (0..1 << 16).map(|i: u32| i.to_le_bytes()[1]).collect();
        let damaged = |seed| {
            let mut copy = image.clone();
            Mutator::new(seed).mutate(&mut copy);
            copy
        };
        assert_eq!(damaged(3), damaged(3));
        assert_ne!(damaged(3), image);
        let kinds: std::collections::HashSet<_> = (0..50).map(damaged).collect();
        assert!(kinds.len() > 45, "{} different ones", kinds.len());
    }

    #[test]
    fn any_image_can_be_mutated_for_long() {
        for len in [0, 1, 7, 511, 4097, 1 << 18] {
            let mut image = vec![0; len];
            let mut mutator = Mutator::new(len as u64)
                .focused(vec![0..64, 5000..6000])
                .repair_checksums();
            for _ in 0..200 {
                mutator.mutate(&mut image);
                assert!(image.len() <= len);
            }
        }
    }
}
