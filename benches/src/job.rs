//! What is asked of each engine, and how it is timed.

use std::fs;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::engine::{Disk, Engine, Opened, text};
use crate::place::Place;
use crate::{Outcome, peak, qemu};

pub(crate) const SMALL: u64 = 4 << 10;
pub(crate) const LARGE: u64 = 1 << 20;

/// Who takes longer is stopped, and counts for what was done.
const LONGEST: Duration = Duration::from_secs(1);

/// `qemu-img bench` is not stopped; so many requests take it about as long.
pub(crate) const QEMU_REQUESTS: u64 = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Write,
    /// A write, and a flush after each.
    WriteFlush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// One request of a mebibyte behind the other.
    Sequential,
    /// 4K anywhere.
    Random,
    /// 4K at the beginning of each unit of so many bytes, once, in random order.
    Once(u64),
}

/// What is in the image before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Everything.
    Full,
    /// Everything of a smaller disk.
    Part,
    Fresh,
    /// Nothing of its own: all that is there is the parent's.
    Child,
    /// The same after the very requests of the job.
    WrittenChild,
}

/// What is done to an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) start: Start,
    pub(crate) verb: Verb,
    pub(crate) order: Order,
}

impl Start {
    fn task(self, verb: Verb, order: Order) -> Task {
        let start = self;
        Task { start, verb, order }
    }

    pub(crate) fn read(self, order: Order) -> Task {
        self.task(Verb::Read, order)
    }

    pub(crate) fn write(self, order: Order) -> Task {
        self.task(Verb::Write, order)
    }

    pub(crate) fn write_flush(self, order: Order) -> Task {
        self.task(Verb::WriteFlush, order)
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) task: Task,
    /// Bytes of one request.
    pub(crate) bytes: u64,
    /// Requests of all threads.
    pub(crate) count: u64,
    pub(crate) threads: u64,
}

impl Job {
    /// The job of `count` requests once for each number of threads.
    pub(crate) fn each(name: &str, task: Task, count: u64, threads: &[u64]) -> Vec<Self> {
        let bytes = match task.order {
            Order::Sequential => LARGE,
            Order::Random | Order::Once(_) => SMALL,
        };
        let jobs = threads.iter().map(|&threads| Self {
            name: format!("{name}, {threads} thr"),
            task,
            bytes,
            count,
            threads,
        });
        jobs.collect()
    }
}

/// What was done in which time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) time: Duration,
    /// Bytes of memory that this process held at most meanwhile; of another none is known.
    pub(crate) peak: Option<u64>,
}

impl Done {
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn rate(self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

/// What each engine did in each round, in the place's order. Nothing for who cannot do the job, or fails
/// in it: what it says then comes in `remarks`.
pub(crate) fn compare(
    place: &Place,
    job: &Job,
    rounds: u64,
    remarks: &mut Vec<String>,
) -> Vec<Vec<Done>> {
    let engines = place.engines;
    let mut all = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        for (&engine, all) in engines.iter().zip(&mut all) {
            match once(place, engine, job) {
                Ok(done) => all.extend(done),
                Err(error) => {
                    let remark = format!("{}, {}: {error}", engine.name(), job.name);
                    if !remarks.contains(&remark) {
                        remarks.push(remark);
                    }
                }
            }
        }
    }
    all
}

/// The median of each engine.
pub(crate) fn middle(done: &[Vec<Done>]) -> Vec<Option<Done>> {
    let middle = |done: &Vec<Done>| {
        let mut done = done.clone();
        done.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
        done.get(done.len() / 2).copied()
    };
    done.iter().map(middle).collect()
}

fn once(place: &Place, engine: Engine, job: &Job) -> Outcome<Option<Done>> {
    if job.threads > 1 && !engine.is_shared() {
        return Ok(None);
    }
    let Some(image) = place.ready(engine, job.task.start)? else {
        return Ok(None);
    };
    let (format, size) = (place.suite.format.name(), place.size_of(job.task.start));
    let done = if engine == Engine::QemuImg {
        let count = job.count.min(QEMU_REQUESTS);
        let job = &Job {
            count,
            ..job.clone()
        };
        let mut best = None;
        for way in qemu::WAYS {
            place.ready(engine, job.task.start)?;
            let done = Done {
                requests: job.count,
                time: qemu::bench(&image.path, format, size, job, way)?,
                peak: None,
            };
            best = best.into_iter().chain([done]).min_by_key(|done| done.time);
        }
        best
    } else {
        let reads = job.task.verb == Verb::Read;
        let path = match image.parent.as_ref() {
            // Below a plain file lies nothing.
            Some(parent) if engine == Engine::Plain && reads => parent,
            _ => &image.path,
        };
        let image = crate::place::Image {
            path: path.clone(),
            parent: image.parent.clone(),
        };
        peak::begin();
        let done = engine.with(place.suite.format, &image, reads, |opened| {
            run(place, &opened, job)
        })?;
        let peak = peak::bytes();
        Some(Done { peak, ..done })
    };
    if !matches!(job.task.start, Start::Full | Start::Part) {
        fs::remove_file(&image.path).map_err(text)?;
    }
    Ok(done)
}

fn run(place: &Place, opened: &Opened<'_>, job: &Job) -> Outcome<Done> {
    let mut offsets: Vec<_> = (0..job.threads)
        .map(|thread| offsets(place, job, thread))
        .collect();
    if job.task.start == Start::WrittenChild {
        for offsets in &mut offsets {
            let before = match opened {
                Opened::Alone(disk) => requests(*disk, job, offsets)?,
                Opened::Shared(disk) => requests(*disk, job, offsets)?,
            };
            offsets.truncate(usize::try_from(before.requests).map_err(text)?);
        }
    }
    match opened {
        Opened::Alone(disk) => alone(*disk, job, &offsets[0]),
        Opened::Shared(disk) if job.threads == 1 => alone(*disk, job, &offsets[0]),
        Opened::Shared(disk) => shared(*disk, job, &offsets),
    }
}

fn alone(disk: &dyn Disk, job: &Job, offsets: &[u64]) -> Outcome<Done> {
    let done = requests(disk, job, offsets)?;
    settle(disk, job)?;
    Ok(done)
}

fn shared(disk: &(dyn Disk + Sync), job: &Job, offsets: &[Vec<u64>]) -> Outcome<Done> {
    let ready = Barrier::new(offsets.len());
    let spans = std::thread::scope(|scope| {
        let threads: Vec<_> = offsets
            .iter()
            .map(|offsets| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    let start = Instant::now();
                    let done = requests(disk, job, offsets)?;
                    Ok((done.requests, start, Instant::now()))
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.collect::<Result<Vec<_>, _>>()
    });
    let spans = spans.map_err(|_| "a thread panicked")?;
    let spans = spans.into_iter().collect::<Outcome<Vec<_>>>()?;
    settle(disk, job)?;
    // From the first one's start to the last one's end.
    let start = spans.iter().map(|(_, start, _)| *start).min();
    let end = spans.iter().map(|(_, _, end)| *end).max();
    let (start, end) = start.zip(end).ok_or("no threads")?;
    Ok(Done {
        requests: spans.iter().map(|(requests, ..)| requests).sum(),
        time: end - start,
        peak: None,
    })
}

/// Where the requests of one thread go. The same for every engine.
fn offsets(place: &Place, job: &Job, thread: u64) -> Vec<u64> {
    let size = place.size_of(job.task.start);
    let share = job.count / job.threads;
    let mine = thread * share..(thread + 1) * share;
    let places = size / job.bytes;
    match job.task.order {
        Order::Sequential => mine.map(|number| number % places * job.bytes).collect(),
        Order::Random => {
            let mut random = Random::new(thread + 1);
            mine.map(|_| random.below(places) * job.bytes).collect()
        }
        Order::Once(unit) => {
            let mut all: Vec<u64> = (0..size / unit).collect();
            let mut random = Random::new(1);
            for at in (1..all.len()).rev() {
                all.swap(at, index(random.below(at as u64 + 1)));
            }
            let mine = &all[index(mine.start)..index(mine.end)];
            mine.iter().map(|number| number * unit).collect()
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("no more requests than memory")
}

/// Makes an image stable that the next engine uses. One that is removed now need never get to the
/// disk, where a scattered file is slow to lay out and to remove.
fn settle(disk: &dyn Disk, job: &Job) -> Outcome {
    if job.task.start == Start::Part && job.task.verb != Verb::Read {
        return disk.flush();
    }
    Ok(())
}

/// Does the requests to `offsets` one after the other.
pub(crate) fn requests(disk: &dyn Disk, job: &Job, offsets: &[u64]) -> Outcome<Done> {
    let mut buf = vec![0x5A; index(job.bytes)];
    // The clock costs something beside a small request.
    let between = if job.bytes == SMALL && job.task.verb != Verb::WriteFlush {
        32
    } else {
        1
    };
    let start = Instant::now();
    let mut requests = 0;
    for some in offsets.chunks(between) {
        for &offset in some {
            match job.task.verb {
                Verb::Read => disk.read(&mut buf, offset)?,
                Verb::Write => disk.write(&buf, offset)?,
                Verb::WriteFlush => {
                    disk.write(&buf, offset)?;
                    disk.flush()?;
                }
            }
        }
        requests += some.len() as u64;
        if start.elapsed() > LONGEST {
            break;
        }
    }
    Ok(Done {
        requests,
        time: start.elapsed(),
        peak: None,
    })
}

/// Xorshift: the same numbers in every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let mut mixed = self.0;
        mixed ^= mixed >> 32;
        mixed = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ mixed >> 32) % end
    }
}
