//! Writing clusters packed (qcow2 specification, "Cluster mapping").

use blockdev_core::{Error, ErrorKind, Result, ZeroFlags, ZerosBelow, fits, is_zero};

use super::compress::Packer;
use super::engine::State;
use crate::image::Qcow2Image;
use crate::ondisk::l2_entry::{L2Entry, SubclusterBits};
use crate::sync::atomic::Ordering;

impl Qcow2Image {
    /// Writes `buf` at byte `offset` of the disk, each cluster packed where that makes it shorter.
    /// Clusters of zeros take no space. What was there is replaced, as by any write.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) unless `offset` is a multiple of the cluster size,
    /// and the length too or to the end of the disk,
    /// [`Unsupported`](ErrorKind::Unsupported) with an external data file, and as any write.
    pub fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.engine()?;
        self.refuse_data_file("compressed clusters")?;
        let cluster = self.cluster_size();
        let end = offset.saturating_add(buf.len() as u64);
        fits(offset, buf.len() as u64, self.info.size)?;
        let whole = end.is_multiple_of(cluster) || end == self.info.size;
        if !offset.is_multiple_of(cluster) || !whole {
            let text = "only whole clusters are written packed";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let bytes = usize::try_from(cluster).expect("at most 2 MiB");
        let mut packer = Packer::new(self.first.header.compression_type);
        let mut packed = Vec::new();
        let mut padded = Vec::new();
        for (guest, chunk) in (offset..).step_by(bytes).zip(buf.chunks(bytes)) {
            let content = if chunk.len() == bytes {
                chunk
            } else {
                // The disk ends inside its last cluster.
                padded.extend_from_slice(chunk);
                padded.resize(bytes, 0);
                &padded
            };
            packed.clear();
            if is_zero(content) {
                let flags = ZeroFlags {
                    may_unmap: true,
                    no_fallback: false,
                };
                self.zero_guest(guest, chunk.len() as u64, flags, &ZerosBelow)?;
            } else if packer.pack(content, &mut packed)? {
                self.store_packed(guest, &packed)?;
            } else {
                self.write_guest(content, guest, &ZerosBelow)?;
            }
        }
        self.flush_if_much()
    }

    /// Stores the packed bytes of the cluster at guest byte `guest`.
    fn store_packed(&self, guest: u64, packed: &[u8]) -> Result<()> {
        let engine = self.engine()?;
        let _pin = engine.pins.enter();
        let number = guest / self.cluster_size();
        let (mut state, _) = engine.idle(engine.lock(), number, 1);
        self.announce(&mut state)?;
        self.own_l2_table(&mut state, guest)?;
        let place = self.place_packed(&mut state, packed.len() as u64)?;
        let held = number..number + 1;
        engine.hold(&mut state, held.clone());
        drop(state);
        let written = self.storage.write_at(packed, place);
        engine.unsynced.store(true, Ordering::Release);
        // Nobody reads what was there before any more, but it may be remembered.
        self.unpacked.forget(place);
        let mut state = engine.lock();
        let outcome = match written {
            Ok(()) => self.map_packed(&mut state, guest, place, packed.len() as u64),
            Err(error) => {
                state.packing = None;
                self.give_back(&mut state, place, 1).and(Err(error))
            }
        };
        engine.release(&mut state, &held);
        outcome
    }

    fn map_packed(&self, state: &mut State, guest: u64, place: u64, len: u64) -> Result<()> {
        let table = self.own_l2_table(state, guest)?;
        let slot = self.slot(guest)?;
        let entry = L2Entry::compressed(place, len, self.rules.geometry.cluster_bits());
        self.set_slot(state, table, guest, (entry, SubclusterBits(0)))?;
        self.free_slot(state, &slot, false)
    }

    /// Finds a place for `len` packed bytes, fewer than a cluster has: behind those packed last if
    /// there is room, and if their cluster can be referred to once more.
    fn place_packed(&self, state: &mut State, len: u64) -> Result<u64> {
        let cluster = self.cluster_size();
        let behind = state.packing.filter(|at| len <= cluster - at % cluster);
        let place = match behind {
            Some(at)
                if state.refcounts.of(&self.pages, at / cluster)? < state.refcounts.largest() =>
            {
                state.refcounts.raise(&self.pages, at / cluster, 1)?;
                at
            }
            _ => self.allocate(state, 1)?.offset,
        };
        let limit = L2Entry::packed_limit(self.rules.geometry.cluster_bits());
        if place + len > limit {
            self.give_back(state, place, 1)?;
            let text = "packed clusters cannot lie so far from the start of the file";
            return Err(Error::new(ErrorKind::NoSpace, text));
        }
        let end = place + len;
        state.packing = (!end.is_multiple_of(cluster)).then_some(end);
        Ok(place)
    }
}
