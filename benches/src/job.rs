//! What is asked of each engine, and how it is timed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::engine::{ALL, Disk, Engine, Opened};
use crate::{Outcome, qemu};

pub(crate) const CLUSTER: u64 = 64 << 10;
const SMALL: usize = 4 << 10;
const LARGE: usize = 1 << 20;
/// Bytes of the disk that is overwritten: as much as the host does not begin to write out meanwhile,
/// which would measure the disk below.
const OVERWRITTEN: u64 = 128 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Write,
    /// A write, and a flush after each.
    WriteFlush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// One request behind the other.
    Sequential,
    /// Anywhere.
    Random,
    /// Each cluster once, in random order.
    OncePerCluster,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) verb: Verb,
    pub(crate) order: Order,
    /// The image holds nothing before.
    pub(crate) is_fresh: bool,
    /// Bytes of one request.
    pub(crate) bytes: usize,
    /// Requests of all threads.
    pub(crate) count: u64,
    pub(crate) threads: u64,
}

/// The jobs, for a disk of `size` bytes.
pub(crate) fn all(size: u64) -> Vec<Job> {
    use Order::{OncePerCluster, Random, Sequential};
    use Verb::{Read, Write, WriteFlush};
    let clusters = size / CLUSTER;
    let large = size / LARGE as u64;
    let mut jobs = Vec::new();
    let mut add = |name: &str, verb, order, is_fresh, bytes, count, threads: &[u64]| {
        for &threads in threads {
            let name = format!("{name}, {threads} thr");
            jobs.push(Job {
                name,
                verb,
                order,
                is_fresh,
                bytes,
                count,
                threads,
            });
        }
    };
    let some = [1, 2, 4];
    add("4K random read", Read, Random, false, SMALL, 400_000, &some);
    add(
        "4K random overwrite",
        Write,
        Random,
        false,
        SMALL,
        300_000,
        &some,
    );
    add(
        "4K random fresh write",
        Write,
        OncePerCluster,
        true,
        SMALL,
        clusters,
        &some,
    );
    add(
        "4K overwrite + flush",
        WriteFlush,
        Random,
        false,
        SMALL,
        400,
        &[1],
    );
    add(
        "4K fresh write + flush",
        WriteFlush,
        OncePerCluster,
        true,
        SMALL,
        clusters.min(400),
        &[1],
    );
    add(
        "1M sequential read",
        Read,
        Sequential,
        false,
        LARGE,
        4 * large,
        &some,
    );
    add(
        "1M sequential overwrite",
        Write,
        Sequential,
        false,
        LARGE,
        4 * (OVERWRITTEN >> 20),
        &[1],
    );
    add(
        "1M sequential fresh",
        Write,
        Sequential,
        true,
        LARGE,
        large.min(256),
        &[1, 2],
    );
    jobs
}

/// The images, and where they lie.
pub(crate) struct Bench {
    dir: PathBuf,
    size: u64,
}

impl Bench {
    /// Makes the allocated images in `dir`.
    pub(crate) fn prepare(dir: &Path, size: u64) -> Outcome<Self> {
        let bench = Self {
            dir: dir.to_owned(),
            size,
        };
        let zeros = vec![0; LARGE];
        for (kind, size) in [("full", size), ("part", OVERWRITTEN)] {
            let path = bench.dir.join(kind);
            let options = ["-o", "preallocation=full"];
            create(&path.with_extension("qcow2"), size, &options)?;
            let raw = File::create(path.with_extension("raw")).map_err(|e| e.to_string())?;
            for _ in 0..size / LARGE as u64 {
                let written = (&raw).write_all(&zeros);
                written.map_err(|error| error.to_string())?;
            }
        }
        Ok(bench)
    }

    /// The least time of each of [`ALL`]; `None` for who cannot do the job.
    pub(crate) fn compare(&self, job: &Job, rounds: u64) -> Outcome<[Option<Duration>; ALL.len()]> {
        let mut least = [None; ALL.len()];
        for _ in 0..rounds {
            for (engine, least) in ALL.into_iter().zip(&mut least) {
                let time = self.once(engine, job);
                let time = time.map_err(|error| format!("{engine:?}, {}: {error}", job.name))?;
                if let Some(time) = time {
                    *least = Some(least.map_or(time, |least: Duration| least.min(time)));
                }
            }
        }
        Ok(least)
    }

    fn once(&self, engine: Engine, job: &Job) -> Outcome<Option<Duration>> {
        let path = self.ready(engine, job)?;
        let time = self.on(&path, engine, job);
        if job.is_fresh {
            fs::remove_file(&path).map_err(|error| error.to_string())?;
        }
        time
    }

    fn on(&self, path: &Path, engine: Engine, job: &Job) -> Outcome<Option<Duration>> {
        let opened = engine.open(path)?;
        match opened {
            Some(Opened::Alone(_)) if job.threads > 1 => Ok(None),
            Some(Opened::Alone(disk)) => self.alone(&*disk, job).map(Some),
            Some(Opened::Shared(disk)) => self.shared(&*disk, job).map(Some),
            None => {
                let times = qemu::WAYS.map(|way| qemu::bench(&self.ready(engine, job)?, job, way));
                let least = times.iter().flatten().min().copied();
                let [first, ..] = times;
                least.map_or(first, Ok).map(Some)
            }
        }
    }

    /// The file that `engine` does `job` on, with nothing in it left to be written by the host:
    /// whoever comes now would pay for that.
    fn ready(&self, engine: Engine, job: &Job) -> Outcome<PathBuf> {
        let is_plain = engine == Engine::Plain;
        let kind = match job.verb {
            _ if job.is_fresh => "fresh",
            Verb::Read => "full",
            Verb::Write | Verb::WriteFlush => "part",
        };
        let format = if is_plain { "raw" } else { "qcow2" };
        let path = self.dir.join(format!("{kind}.{format}"));
        let file = if job.is_fresh && is_plain {
            File::create(&path).and_then(|file| file.set_len(self.size).map(|()| file))
        } else {
            if job.is_fresh {
                // Its clusters are not given to the new one.
                let _ = fs::remove_file(&path);
                create(&path, self.size, &[])?;
            }
            OpenOptions::new().write(true).open(&path)
        };
        let stable = file.and_then(|file| {
            // Images end where their last entry does; qcow2-rs reads whole blocks, and complains.
            file.set_len(file.metadata()?.len().next_multiple_of(CLUSTER))?;
            file.sync_all()
        });
        stable.map(|()| path).map_err(|error| error.to_string())
    }

    fn alone(&self, disk: &dyn Disk, job: &Job) -> Outcome<Duration> {
        let offsets = self.offsets(job, 0);
        let start = Instant::now();
        requests(disk, job, &offsets)?;
        let time = start.elapsed();
        settle(disk, job)?;
        Ok(time)
    }

    fn shared(&self, disk: &(dyn Disk + Sync), job: &Job) -> Outcome<Duration> {
        if job.threads == 1 {
            return self.alone(disk, job);
        }
        let ready = Barrier::new(usize::try_from(job.threads + 1).map_err(|e| e.to_string())?);
        let time = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..job.threads)
                .map(|thread| {
                    let (ready, offsets) = (&ready, self.offsets(job, thread));
                    scope.spawn(move || {
                        ready.wait();
                        requests(disk, job, &offsets)
                    })
                })
                .collect();
            ready.wait();
            let start = Instant::now();
            for thread in threads {
                thread.join().map_err(|_| "a thread panicked")??;
            }
            Ok::<_, String>(start.elapsed())
        })?;
        settle(disk, job)?;
        Ok(time)
    }

    /// Where the requests of one thread go. The same for every engine.
    fn offsets(&self, job: &Job, thread: u64) -> Vec<u64> {
        let bytes = job.bytes as u64;
        let size = match job.verb {
            Verb::Write | Verb::WriteFlush if !job.is_fresh => OVERWRITTEN,
            _ => self.size,
        };
        let places = match job.order {
            Order::Sequential | Order::Random => size / bytes,
            Order::OncePerCluster => size / CLUSTER,
        };
        let share = job.count / job.threads;
        let mine = thread * share..(thread + 1) * share;
        match job.order {
            Order::Sequential => mine.map(|number| number % places * bytes).collect(),
            Order::Random => {
                let mut random = Random(thread + 1);
                mine.map(|_| random.below(places) * bytes).collect()
            }
            Order::OncePerCluster => {
                let mut all: Vec<u64> = (0..places).collect();
                let mut random = Random(1);
                for at in (1..places).rev() {
                    all.swap(index(at), index(random.below(at + 1)));
                }
                let mine = &all[index(mine.start)..index(mine.end)];
                mine.iter().map(|cluster| cluster * CLUSTER).collect()
            }
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("no more clusters than memory")
}

fn create(path: &Path, size: u64, options: &[&str]) -> Outcome {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]).args(options);
    command.arg(path).arg(size.to_string());
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    Err("qemu-img cannot create the image".into())
}

/// Makes an image stable that the next engine uses. One that is removed now need never get to the
/// disk, where a scattered file is slow to lay out and to remove.
fn settle(disk: &dyn Disk, job: &Job) -> Outcome {
    if job.is_fresh {
        return Ok(());
    }
    disk.flush()
}

fn requests(disk: &dyn Disk, job: &Job, offsets: &[u64]) -> Outcome {
    let mut buf = vec![0x5A; job.bytes];
    for &offset in offsets {
        match job.verb {
            Verb::Read => disk.read(&mut buf, offset)?,
            Verb::Write => disk.write(&buf, offset)?,
            Verb::WriteFlush => {
                disk.write(&buf, offset)?;
                disk.flush()?;
            }
        }
    }
    Ok(())
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let mut mixed = self.0;
        mixed ^= mixed >> 32;
        mixed = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ mixed >> 32) % end
    }
}
