//! From guest ranges to runs: what is where, one page of an L2 table at a time.

use blockdev_core::Result;

use crate::image::Qcow2Image;
use crate::meta::cluster::{Part, Source};
use crate::meta::known::Known;
use crate::meta::write_plan::Slot;

/// Pages of tables that one question looks at: an answer may be cut short, but never takes long,
/// whatever tables a file makes of one another.
const MAX_STEPS: u32 = 1 << 16;

impl Qcow2Image {
    /// The longest run of one kind from guest byte `offset`, at most `len` bytes. The range lies
    /// inside the disk and is not empty. A compressed run is one cluster.
    pub(crate) fn next_run(&self, offset: u64, len: u64) -> Result<Part> {
        let cluster = self.cluster_size();
        let within = offset % cluster;
        if len <= cluster - within
            && let Some(run) = self.run_in_cluster(offset / cluster, within, len)?
        {
            return Ok(run);
        }
        let mut run = self.step(offset, len)?;
        for _ in 0..MAX_STEPS {
            if run.len >= len {
                break;
            }
            // What comes next may be damaged; that is for whoever asks for it.
            let Ok(next) = self.step(offset + run.len, len - run.len) else {
                break;
            };
            if !follows(&run, &next) {
                break;
            }
            run.len += next.len;
        }
        Ok(run)
    }

    /// The run of `len` bytes from byte `within` of guest cluster `number`, if it is of one kind.
    fn run_in_cluster(&self, number: u64, within: u64, len: u64) -> Result<Option<Part>> {
        if let Some(known) = self.tables.known.find(number) {
            let source = match Known(known).host() {
                Some(host) => Source::Data(host + within),
                None => Source::Absent,
            };
            return Ok(Some(Part { source, len }));
        }
        let guest = number * self.cluster_size();
        let worth = |slot: &Slot| self.rules.known(slot).map(|known| known.0);
        let slot = self
            .tables
            .known
            .learn(number, || self.slot(guest), worth)?;
        let part = self.rules.part(slot.entry, slot.bits, within, slot.place)?;
        Ok((part.len >= len).then_some(Part { len, ..part }))
    }

    /// The run at `offset` as far as one page of a table tells.
    fn step(&self, offset: u64, len: u64) -> Result<Part> {
        let geometry = &self.rules.geometry;
        let l1_index = geometry.l1_index(offset);
        let Some(table) = self.tables.l2_table(l1_index, geometry)? else {
            let rest = geometry.l2_coverage() - offset % geometry.l2_coverage();
            return Ok(Part {
                source: Source::Absent,
                len: rest.min(len),
            });
        };
        let mut index = geometry.l2_index(offset);
        let page = self.tables.l2_page(table, index, geometry)?;
        let within = offset % geometry.cluster_size();
        let (entry, bits, place) = page.entry(index).expect("the page was asked for");
        let mut run = self.rules.part(entry, bits, within, place)?;
        // Further clusters of the page, as long as each is of one kind and follows.
        while run.len < len && (within + run.len).is_multiple_of(geometry.cluster_size()) {
            index += 1;
            let next = (index < geometry.l2_entries())
                .then(|| page.entry(index))
                .flatten();
            let Some((entry, bits, place)) = next else {
                break;
            };
            match self.rules.part(entry, bits, 0, place) {
                Ok(next) if follows(&run, &next) => run.len += next.len,
                _ => break,
            }
        }
        Ok(Part {
            len: run.len.min(len),
            ..run
        })
    }
}

/// True when `next`, which starts where `run` ends, is more of the same.
fn follows(run: &Part, next: &Part) -> bool {
    match (run.source, next.source) {
        (Source::Absent, Source::Absent) | (Source::Zero(None), Source::Zero(None)) => true,
        (Source::Data(a), Source::Data(b)) | (Source::Zero(Some(a)), Source::Zero(Some(b))) => {
            a.checked_add(run.len) == Some(b)
        }
        _ => false,
    }
}
