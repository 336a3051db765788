//! Host ranges that hold the image's own structures, so that no guest byte ever gets there,
//! whatever damaged refcounts and entries say.

use std::collections::BTreeMap;

/// Structures by place; they do not overlap in an image that is sound.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    areas: BTreeMap<u64, (u64, &'static str)>,
}

impl Reserved {
    /// Notes the structure called `name` in `len` bytes at `offset`.
    pub(crate) fn insert(&mut self, offset: u64, len: u64, name: &'static str) {
        if len > 0 {
            let area = self.areas.entry(offset).or_insert((0, name));
            area.0 = area.0.max(len);
        }
    }

    /// Forgets the structure at `offset`.
    pub(crate) fn remove(&mut self, offset: u64) {
        self.areas.remove(&offset);
    }

    /// The structure that lies in some of `len` bytes at `offset`.
    pub(crate) fn find(&self, offset: u64, len: u64) -> Option<&'static str> {
        let end = offset.saturating_add(len);
        let (&start, &(length, name)) = self.areas.range(..end).next_back()?;
        (start.saturating_add(length) > offset).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_common_byte_is_found() {
        let mut reserved = Reserved::default();
        reserved.insert(0, 512, "header");
        reserved.insert(4096, 8192, "L1 table");
        assert_eq!(reserved.find(0, 1), Some("header"));
        assert_eq!(reserved.find(512, 3584), None);
        assert_eq!(reserved.find(512, 3585), Some("L1 table"));
        assert_eq!(reserved.find(12_287, 1), Some("L1 table"));
        assert_eq!(reserved.find(12_288, u64::MAX), None);
        reserved.remove(4096);
        assert_eq!(reserved.find(4096, 1), None);
    }
}
