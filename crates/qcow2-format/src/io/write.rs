//! Writing guest bytes: in place where the place is this disk's alone, else to a new one.

use std::ops::Range;

use blockdev_core::{Below, Error, ErrorKind, Result, StorageExt};

use super::decompress::Packed;
use super::engine::{Engine, State};
use crate::image::Qcow2Image;
use crate::meta::cluster::Source;
use crate::meta::known::Known;
use crate::meta::write_plan::{Slot, Target};
use crate::sync::atomic::Ordering;

/// Guest bytes that get a new place at a time.
const MOST_NEW_BYTES: u64 = 4 << 20;

/// Bytes that are gathered for one write of the host.
const MOST_GATHERED: u64 = 1 << 20;

/// What a write does next.
enum Step {
    InPlace { host: u64, len: u64 },
    Move(Move),
}

/// Guest bytes that go the same way.
struct Run {
    target: Target,
    /// Where they end.
    end: u64,
    /// Entries of the first and of the last cluster.
    ends: [Slot; 2],
}

/// Guest clusters on their way to another host place; they are held busy.
struct Move {
    /// Guest bytes that are written.
    guest: Range<u64>,
    /// The first of the clusters, as guest byte, and where it goes.
    first: u64,
    host: u64,
    target: Target,
    /// The place reads as zeros.
    is_fresh: bool,
    /// Entries of the first and of the last cluster, as they were.
    ends: [Slot; 2],
}

impl Qcow2Image {
    /// Writes `buf` at guest byte `offset`; the range lies inside the disk.
    pub(crate) fn write_guest(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let engine = self.engine()?;
        let mut done = 0;
        while done < buf.len() {
            let _pin = engine.pins.enter();
            let at = offset + done as u64;
            let left = &buf[done..];
            let step = match self.owned_place(at, left.len() as u64) {
                Some(step) => step,
                None => self.next_step(at, left.len() as u64)?,
            };
            let written = match step {
                Step::InPlace { host, len } => {
                    let len = usize::try_from(len).expect("no longer than the buffer");
                    let outcome = self.data()?.write_at(&left[..len], host);
                    engine.unsynced.store(true, Ordering::Release);
                    outcome?;
                    len
                }
                Step::Move(job) => {
                    let len = job.guest.end - job.guest.start;
                    let len = usize::try_from(len).expect("no longer than the buffer");
                    self.carry_out(engine, &job, &left[..len], below)?;
                    len
                }
            };
            done += written;
        }
        self.flush_if_much()
    }

    /// Where `len` bytes at guest byte `guest`, in one cluster, are written in place, if that is
    /// remembered.
    ///
    /// It takes no lock, though those who change entries hold one:
    ///
    /// - Whoever changes the entry has it forgotten before the change is acknowledged. Who finds it
    ///   nevertheless began before that, and the two requests may come in either order; this one first.
    /// - The bytes may be on their way into a place that was given up by then. The caller's pin keeps that
    ///   from being used again, just as for a write that was mapped under the lock, which lets go of it.
    /// - Nobody copies the cluster meanwhile, and misses these bytes: only what is not COPIED, or not
    ///   stored whole, is given another place along with what it held, and COPIED is cleared by those who
    ///   have the image for themselves. Packing replaces all of the cluster, whichever way it held it.
    /// - None of the image's structures lies there, as was found under the lock; who makes one has
    ///   everything forgotten.
    fn owned_place(&self, guest: u64, len: u64) -> Option<Step> {
        let cluster = self.cluster_size();
        let within = guest % cluster;
        if len > cluster - within {
            return None;
        }
        let known = Known(self.tables.known.find(guest / cluster)?);
        let host = known.owned_host()? + within;
        Some(Step::InPlace { host, len })
    }

    /// Decides what to do with the first of `len` bytes at guest byte `guest`, and with as many
    /// behind it as go the same way.
    fn next_step(&self, guest: u64, len: u64) -> Result<Step> {
        let engine = self.engine()?;
        let cluster = self.cluster_size();
        let geometry = &self.rules.geometry;
        let first = guest / cluster;
        // Within one L2 table, and not for too long.
        let table_end = (guest / geometry.l2_coverage() + 1) * geometry.l2_coverage();
        let len = len.min(table_end - guest).min(MOST_NEW_BYTES.max(cluster));
        let count = (guest + len).div_ceil(cluster) - first;
        let end = |idle: u64| (guest + len).min((first + idle) * cluster);
        let mut seen = None;
        {
            let state = engine.look();
            let idle = state.idle(first, count);
            if state.is_announced() && idle > 0 {
                let run = self.learn_run(&state, guest, end(idle))?;
                if let Target::InPlace(host) = run.target {
                    return self.in_place(&state, host, run.end - guest);
                }
                seen = Some((run, state.turns() + 1));
            }
        }
        let (mut state, idle) = engine.idle(engine.lock(), first, count);
        self.announce(&mut state)?;
        let run = match seen {
            Some((run, turns)) if turns == state.turns() => run,
            _ => self.learn_run(&state, guest, end(idle))?,
        };
        if let Target::InPlace(host) = run.target {
            return self.in_place(&state, host, run.end - guest);
        }
        self.prepare_move(&mut state, guest..run.end, run.target, run.ends)
            .map(Step::Move)
    }

    fn in_place(&self, state: &State, host: u64, len: u64) -> Result<Step> {
        self.check_guest_place(state, host, len)?;
        Ok(Step::InPlace { host, len })
    }

    /// The [`run`](Self::run) at `guest`; its first cluster is remembered if it is written in place.
    fn learn_run(&self, state: &State, guest: u64, end: u64) -> Result<Run> {
        let cluster = self.cluster_size();
        let worth = |run: &Run| {
            let known = self.rules.known(&run.ends[0])?;
            let host = known.host()?;
            let apart = self.rules.has_data_file || state.reserved.find(host, cluster).is_none();
            let owned = apart && matches!(run.target, Target::InPlace(_));
            owned.then(|| known.owned().0)
        };
        let look = || self.run(guest, end);
        self.tables.known.learn(guest / cluster, look, worth)
    }

    /// How far from guest byte `guest` on, before `end`, clusters go the same way as the first of
    /// them, to places that follow. The state is held by the caller.
    fn run(&self, guest: u64, end: u64) -> Result<Run> {
        let cluster = self.cluster_size();
        let first = guest / cluster;
        let range_in = |number: u64| {
            let start = number * cluster;
            guest.max(start) - start..end.min(start + cluster) - start
        };
        let slot = self.slot(guest)?;
        let target = self
            .rules
            .target(&slot, first * cluster, &range_in(first))?;
        let mut last = (first, slot);
        for number in first + 1..end.div_ceil(cluster) {
            let next = self.slot(number * cluster)?;
            let to = self
                .rules
                .target(&next, number * cluster, &range_in(number));
            let follows = match (target, to) {
                (Target::InPlace(a), Ok(Target::InPlace(b))) => {
                    a.checked_add(number * cluster - guest) == Some(b)
                }
                (Target::SetAside(a), Ok(Target::SetAside(b))) => {
                    a.checked_add((number - first) * cluster) == Some(b)
                }
                (Target::New, Ok(Target::New)) => true,
                _ => false,
            };
            if !follows {
                break;
            }
            last = (number, next);
        }
        Ok(Run {
            target,
            end: end.min((last.0 + 1) * cluster),
            ends: [slot, last.1],
        })
    }

    /// Finds the place, sees to the L2 table, and holds the clusters.
    fn prepare_move(
        &self,
        state: &mut State,
        guest: Range<u64>,
        target: Target,
        [slot, mut last]: [Slot; 2],
    ) -> Result<Move> {
        let cluster = self.cluster_size();
        let first = guest.start / cluster;
        let mut count = guest.end.div_ceil(cluster) - first;
        self.own_l2_table(state, guest.start)?;
        let (host, is_fresh) = match target {
            Target::SetAside(host) => {
                self.check_guest_place(state, host, count * cluster)?;
                (host, false)
            }
            _ => {
                let found = self.allocate(state, count)?;
                if found.count < count {
                    count = found.count;
                    last = self.slot((first + count - 1) * cluster)?;
                }
                (found.offset, found.is_fresh)
            }
        };
        self.engine()?.hold(state, first..first + count);
        Ok(Move {
            guest: guest.start..guest.end.min((first + count) * cluster),
            first: first * cluster,
            host,
            target,
            is_fresh,
            ends: [slot, last],
        })
    }

    /// Refuses guest bytes where the image's own structures are.
    fn check_guest_place(&self, state: &State, host: u64, len: u64) -> Result<()> {
        if self.rules.has_data_file {
            return Ok(());
        }
        match state.reserved.find(host, len) {
            None => Ok(()),
            Some(name) => Err(self.condemn(host, &format!("a data cluster shares it with {name}"))),
        }
    }

    /// Writes what goes to the new place, then makes the entries say so.
    fn carry_out(&self, engine: &Engine, job: &Move, buf: &[u8], below: &dyn Below) -> Result<()> {
        // Whatever happens, the clusters are let go of: others wait for them.
        let moved = self.fill(job, buf, below);
        engine.unsynced.store(true, Ordering::Release);
        let cluster = self.cluster_size();
        let numbers = job.first / cluster..job.guest.end.div_ceil(cluster);
        let mut state = engine.lock();
        let outcome = match moved {
            Ok(()) => self.map_moved(&mut state, job, &numbers),
            Err(error) => {
                let given_back = match job.target {
                    Target::New => {
                        let count = numbers.end - numbers.start;
                        self.give_back(&mut state, job.host, count)
                    }
                    _ => Ok(()),
                };
                given_back.and(Err(error))
            }
        };
        engine.release(&mut state, &numbers);
        outcome
    }

    fn map_moved(&self, state: &mut State, job: &Move, numbers: &Range<u64>) -> Result<()> {
        let cluster = self.cluster_size();
        let table = self.own_l2_table(state, job.first)?;
        for number in numbers.clone() {
            let guest = number * cluster;
            let range =
                job.guest.start.max(guest) - guest..job.guest.end.min(guest + cluster) - guest;
            // Those at the ends are as they were found, because they are held.
            let slot = match number {
                first if first == numbers.start => job.ends[0],
                last if last + 1 == numbers.end => job.ends[1],
                _ => self.slot(guest)?,
            };
            let host = job.host + (guest - job.first);
            self.set_slot(state, table, guest, self.rules.written(&slot, &range, host))?;
            if job.target == Target::New {
                self.free_slot(state, &slot, false)?;
            }
        }
        Ok(())
    }

    /// Writes the guest's bytes and all that they carry along to the new place.
    fn fill(&self, job: &Move, buf: &[u8], below: &dyn Below) -> Result<()> {
        let cluster = self.cluster_size();
        let last = (job.guest.end - 1) / cluster * cluster;
        if job.is_fresh && job.ends.iter().all(|slot| self.holds_nothing(slot)) {
            return self
                .data()?
                .write_at(buf, job.host + (job.guest.start - job.first));
        }
        let mut lead = Vec::new();
        let mut trail = Vec::new();
        let ends = if last == job.first { 1 } else { 2 };
        for (slot, start) in job.ends.iter().zip([job.first, last]).take(ends) {
            let range =
                job.guest.start.max(start) - start..job.guest.end.min(start + cluster) - start;
            for carried in self.rules.carried(slot, &range, job.target)? {
                let piece = (start + carried.from..start + carried.to, carried.source);
                // What is zeros needs no writing where zeros are.
                if job.is_fresh && self.reads_zero(carried.source) {
                    continue;
                }
                if piece.0.end <= job.guest.start {
                    lead.push(piece);
                } else {
                    trail.push(piece);
                }
            }
        }
        // What touches the guest's bytes goes with them in one write, if it is not too much.
        let mut span = job.guest.clone();
        let mut gathered = Vec::new();
        let mut apart = Vec::new();
        for piece in lead.into_iter().rev() {
            if piece.0.end == span.start && span.end - piece.0.start <= MOST_GATHERED {
                span.start = piece.0.start;
                gathered.push(piece);
            } else {
                apart.push(piece);
            }
        }
        for piece in trail {
            if piece.0.start == span.end && piece.0.end - span.start <= MOST_GATHERED {
                span.end = piece.0.end;
                gathered.push(piece);
            } else {
                apart.push(piece);
            }
        }
        let host = |guest: u64| job.host + (guest - job.first);
        let data = self.data()?;
        for (range, source) in apart {
            let mut bytes = buffer(range.end - range.start);
            self.read_source(&mut bytes, range.start, source, below)?;
            data.write_at(&bytes, host(range.start))?;
        }
        if gathered.is_empty() {
            return data.write_at(buf, host(job.guest.start));
        }
        let mut bytes = buffer(span.end - span.start);
        let within = |guest: u64| usize::try_from(guest - span.start).expect("in the buffer");
        for (range, source) in gathered {
            let part = &mut bytes[within(range.start)..within(range.end)];
            self.read_source(part, range.start, source, below)?;
        }
        bytes[within(job.guest.start)..within(job.guest.end)].copy_from_slice(buf);
        data.write_at(&bytes, host(span.start))
    }

    /// True when all of the cluster reads as zeros for certain.
    fn holds_nothing(&self, slot: &Slot) -> bool {
        let part = self.rules.part(slot.entry, slot.bits, 0, slot.place);
        part.is_ok_and(|part| part.len == self.cluster_size() && self.reads_zero(part.source))
    }

    /// True when `source` is zeros for certain, without asking what is below.
    pub(crate) fn reads_zero(&self, source: Source) -> bool {
        match source {
            Source::Zero(_) => true,
            Source::Absent => !self.has_backing_file(),
            Source::Data(_) | Source::Compressed { .. } => false,
        }
    }

    /// Fills `buf`, which is for guest byte `guest`, with what `source` holds.
    fn read_source(
        &self,
        buf: &mut [u8],
        guest: u64,
        source: Source,
        below: &dyn Below,
    ) -> Result<()> {
        match source {
            Source::Zero(_) => buf.fill(0),
            Source::Absent => {
                // A cluster may reach past the end of the disk; a longer backing file does not show.
                let inside = self.info.size.saturating_sub(guest).min(buf.len() as u64);
                let inside = usize::try_from(inside).expect("no more than the buffer");
                buf[inside..].fill(0);
                if self.has_backing_file() {
                    below.read_at(&mut buf[..inside], guest)?;
                } else {
                    buf[..inside].fill(0);
                }
            }
            Source::Data(place) => self.data()?.read_zero_padded(buf, place)?,
            Source::Compressed { offset, len } => {
                let cluster = self.cluster_size();
                let within = usize::try_from(guest % cluster).expect("at most 2 MiB");
                let guest = guest - guest % cluster;
                let packed = Packed { offset, len, guest };
                self.unpacked.read(&*self.storage, packed, within, buf)?;
            }
        }
        Ok(())
    }

    /// True when what this image does not hold is another image's.
    pub(crate) fn has_backing_file(&self) -> bool {
        self.first.backing_file.is_some()
    }
}

fn buffer(len: u64) -> Vec<u8> {
    vec![0; usize::try_from(len).expect("at most a cluster and a write")]
}

/// The refusal of zeros that would have to be written byte by byte.
pub(crate) fn only_by_bytes() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the range can be made zeros only byte by byte",
    )
}
