//! Making everything that was acknowledged stable.

use std::ops::Range;

use blockdev_core::{ErrorKind, Result, SyncKind};

use super::{Engine, Freed, State};
use crate::image::Qcow2Image;
use crate::io::pages::Stage;
use crate::sync::atomic::Ordering;

/// Changed pages kept in memory between flushes: 16 MiB.
const MOST_PENDING: usize = 4096;

impl Qcow2Image {
    /// Returns when everything acknowledged is stable: one barrier when no table changed, else two.
    /// Threads that wait for another's flush share the next.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        engine.flushes.share(|| self.flush_alone(engine))
    }

    fn flush_alone(&self, engine: &Engine) -> Result<()> {
        let _turn = engine.turn()?;
        if self.pages.has_closing() {
            // What could not be written before says nothing of what came after it.
            self.flush_batch(engine)?;
        }
        self.flush_batch(engine)
    }

    /// Flushes when much is waiting to be written.
    pub(crate) fn flush_if_much(&self) -> Result<()> {
        if self.pages.pending() > MOST_PENDING {
            return self.flush_all();
        }
        Ok(())
    }

    /// Flushes until nothing is left to write, and says that the image is closed.
    pub(crate) fn finish(&self) -> Result<()> {
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        let _turn = engine.turn()?;
        // The first makes room that the second accounts for.
        self.flush_batch(engine)?;
        while self.pages.pending() > 0 {
            self.flush_batch(engine)?;
        }
        self.withdraw(&mut engine.lock())
    }

    fn flush_batch(&self, engine: &Engine) -> Result<()> {
        if !self.pages.has_closing() {
            let mut state = engine.lock();
            self.pages.close_batch();
            state.new_tables.clear();
            state.freed_closing = std::mem::take(&mut state.freed);
        }
        // A batch whose writing failed, for want of space perhaps, is written again.
        self.write_batch(engine)?;
        let discarded = {
            let mut state = engine.lock();
            self.pages.settle();
            let epoch = engine.pins.epoch();
            let closing = std::mem::take(&mut state.freed_closing);
            let dated = closing.into_iter().map(|freed| Freed { epoch, ..freed });
            state.draining.extend(dated);
            engine.pins.pass();
            self.drain(engine, &mut state)?
        };
        self.punch(engine, &discarded)
    }

    fn write_batch(&self, engine: &Engine) -> Result<()> {
        let [early, middle, late] =
            [Stage::Early, Stage::Middle, Stage::Late].map(|stage| self.pages.is_closing(stage));
        let mut behind = engine.unsynced.load(Ordering::Acquire);
        let barrier = || {
            // What is written from here on is for the next one.
            engine.unsynced.store(false, Ordering::Release);
            self.barrier(engine)
        };
        if early {
            self.pages.write_out(Stage::Early)?;
            behind = true;
        }
        if middle {
            if behind {
                barrier()?;
            }
            self.pages.write_out(Stage::Middle)?;
            behind = true;
        }
        if late {
            if behind {
                barrier()?;
            }
            self.pages.write_out(Stage::Late)?;
            behind = true;
        }
        if behind {
            barrier()?;
        }
        Ok(())
    }

    fn barrier(&self, engine: &Engine) -> Result<()> {
        let data = self
            .data_file
            .as_ref()
            .map_or(Ok(()), |file| file.sync(SyncKind::Data));
        if data.is_err() {
            engine.poison();
        }
        data.and_then(|()| self.sync_image())
    }

    /// Waits until the image's own file is stable.
    pub(crate) fn sync_image(&self) -> Result<()> {
        let outcome = self.storage.sync(SyncKind::Data);
        if let (Err(_), Some(engine)) = (&outcome, &self.engine) {
            // What the host dropped, it will not report again.
            engine.poison();
        }
        outcome
    }

    /// Lowers the refcounts of what nobody reads any more; gives the part that is to be punched out
    /// before that.
    fn drain(&self, engine: &Engine, state: &mut State) -> Result<Vec<Freed>> {
        let (past, left): (Vec<_>, Vec<_>) = std::mem::take(&mut state.draining)
            .into_iter()
            .partition(|freed| engine.pins.is_past(freed.epoch));
        state.draining = left;
        let (discarded, others): (Vec<_>, Vec<_>) =
            past.into_iter().partition(|freed| freed.is_discarded);
        let mut others = others.into_iter();
        while let Some(freed) = others.next() {
            if let Err(error) = self.lower_run(state, freed) {
                state.draining.extend(others.chain(discarded));
                return Err(error);
            }
        }
        Ok(discarded)
    }

    /// Gives the space of clusters back to the host, and only then lets them be used again.
    fn punch(&self, engine: &Engine, discarded: &[Freed]) -> Result<()> {
        for (n, freed) in discarded.iter().enumerate() {
            if let Err(error) = self.punch_run(engine, freed) {
                engine.lock().draining.extend(&discarded[n + 1..]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn punch_run(&self, engine: &Engine, freed: &Freed) -> Result<()> {
        let (mut runs, size): (Vec<Range<u64>>, u64) = (Vec::new(), self.cluster_size());
        {
            let mut state = engine.lock();
            for cluster in freed.first..freed.first + freed.count {
                // What a snapshot refers to as well stays.
                match state.refcounts.of(&self.pages, cluster) {
                    Ok(1) => {}
                    Ok(_) => continue,
                    Err(error) => {
                        state.draining.push(*freed);
                        return Err(error);
                    }
                }
                match runs.last_mut() {
                    Some(run) if run.end == cluster => run.end += 1,
                    _ => runs.push(cluster..cluster + 1),
                }
            }
        }
        for run in runs {
            // A host that cannot loses nothing but space.
            let _ = self
                .storage
                .punch_hole(run.start * size, (run.end - run.start) * size);
        }
        self.lower_run(&mut engine.lock(), *freed)
    }

    /// Lowers the refcounts of a run. What the host fails at is left for the next flush.
    fn lower_run(&self, state: &mut State, freed: Freed) -> Result<()> {
        let end = freed.first + freed.count;
        for cluster in freed.first..end {
            match state.refcounts.lower(&self.pages, cluster) {
                Ok(0) => state.vacate(cluster),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    let offset = cluster * state.refcounts.cluster_size();
                    return Err(self.condemn(offset, error.message()));
                }
                Err(error) => {
                    let (first, count) = (cluster, end - cluster);
                    state.draining.push(Freed {
                        first,
                        count,
                        ..freed
                    });
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
