//! Reads through chains of 1, 8 and 64 images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use diskweave::chain::Chain;
use diskweave::core::BlockDevice;

use super::images::{KINDS, Kind, Layout, make, open};
use crate::engine::{Disk, imago, text};
use crate::job::{Done, Job, LARGE, Order, QEMU_REQUESTS, Random, SMALL, Start, requests};
use crate::results::{self, Value};
use crate::{Outcome, peak, qemu};

const DEPTHS: [usize; 3] = [1, 8, 64];

const SMALL_READS: u64 = 200_000;

/// One pass over the disk is repeated so much more often than what takes longer.
const SHORT_ROUNDS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Ours,
    /// The top opened for writing, as under a running guest.
    OursWritable,
    Imago,
    QemuImg,
    /// The same bytes by plain reads of the files they lie in, whose places were found out before: what the
    /// host allows.
    Plain,
}

impl Reader {
    const ALL: [Self; 5] = [
        Self::Ours,
        Self::OursWritable,
        Self::Imago,
        Self::QemuImg,
        Self::Plain,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursWritable => "ours, rw",
            Self::Imago => "imago",
            Self::QemuImg => "qemu-img",
            Self::Plain => "plain",
        }
    }

    pub(crate) fn can(self, kind: &Kind) -> bool {
        !matches!(self, Self::Imago | Self::QemuImg) || kind.name == "qcow2"
    }
}

/// An image to open.
pub(crate) struct Top {
    pub(crate) path: PathBuf,
    pub(crate) format: &'static str,
}

pub(super) fn run(dir: &Path, size: u64, rounds: u64) -> Outcome {
    println!(
        "{:<44}{:>10}{:>10}{:>10}{:>7}{:>7}",
        "chain of", 1, 8, 64, "8/1", "64/1"
    );
    let mut remarks = Vec::new();
    for kind in &KINDS {
        for layout in Layout::ALL {
            let mut tops = Vec::new();
            for depth in DEPTHS {
                let dir = dir.join(format!("{}-{}-{depth}", kind.name, layout.name()));
                let path = make(kind, layout, depth, &dir, size)?;
                let format = kind.format(depth - 1);
                tops.push(Top { path, format });
            }
            // What is still to be written out would be paid for by whoever reads meanwhile.
            let _ = std::process::Command::new("sync").status();
            for job in jobs(size) {
                rows(kind, layout, &tops, &job, (size, rounds), &mut remarks)?;
            }
            for top in tops {
                fs::remove_dir_all(top.path.parent().ok_or("no directory")?).map_err(text)?;
            }
        }
    }
    println!(
        "\nMB a second for 1M, requests a second for 4K; the median of all rounds, each with an open of its\n\
         own. first: each mebibyte once, when nothing is known of the chain yet. rw: the top is opened for\n\
         writing, which is never done to those below. plain: the same bytes by pread, from where they are\n\
         known to lie. qemu-img has no random order but far steps."
    );
    for remark in remarks {
        println!("failed: {remark}");
    }
    println!();
    Ok(())
}

pub(crate) fn jobs(size: u64) -> Vec<Job> {
    let job = |name: &str, order, bytes, count| Job {
        name: name.into(),
        task: Start::Full.read(order),
        bytes,
        count,
        threads: 1,
    };
    let large = size / LARGE;
    vec![
        job("1M first", Order::Sequential, LARGE, large),
        job(
            "1M sequential",
            Order::Sequential,
            LARGE,
            (4 * large).max(2048),
        ),
        job("4K random", Order::Random, SMALL, SMALL_READS),
    ]
}

/// A row for each reader, all in turn.
fn rows(
    kind: &Kind,
    layout: Layout,
    tops: &[Top],
    job: &Job,
    (size, rounds): (u64, u64),
    remarks: &mut Vec<String>,
) -> Outcome {
    let readers = Reader::ALL.into_iter().filter(|reader| reader.can(kind));
    let mut all: Vec<_> = readers
        .map(|reader| (reader, DEPTHS.map(|_| Vec::new())))
        .collect();
    // What is over soon is easily disturbed.
    let rounds = if job.count == size / LARGE {
        SHORT_ROUNDS * rounds
    } else {
        rounds
    };
    for _ in 0..rounds {
        for (reader, all) in &mut all {
            for (top, all) in tops.iter().zip(all) {
                match once(*reader, top, job, size) {
                    Ok(done) => all.push(done),
                    Err(error) => {
                        let name = reader.name();
                        remarks.push(format!("{name}, {}: {error}", top.path.display()));
                    }
                }
            }
        }
    }
    let (unit, scale) = results::unit(job);
    let plain = all.iter().find(|(reader, _)| *reader == Reader::Plain);
    let plain = plain.map(|(_, all)| all.each_ref().map(|done| Value::of(done, scale)));
    for (reader, all) in all {
        let (kind, layout) = (kind.name, layout.name());
        print!("{kind:<7}{layout:<8}{:<18}{:<11}", job.name, reader.name());
        let middle = crate::job::middle(&all);
        row(job, &[middle[0], middle[1], middle[2]]);
        if reader == Reader::Ours {
            let values = all.map(|done| Value::of(&done, scale));
            for (number, (depth, deep)) in DEPTHS.into_iter().zip(values).enumerate().skip(1) {
                let work = format!("{kind}, {layout}, {}, {depth} images", job.name);
                if let (Some(deep), one @ Some(_)) = (deep, values[0]) {
                    results::row("chain", &work, unit, deep, "1 image", one)?;
                    let plain = plain.and_then(|values| values[number]);
                    results::row("chain", &work, unit, deep, "plain, as deep", plain)?;
                }
            }
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn row(job: &Job, rates: &[Option<Done>; 3]) {
    let unit = if job.bytes >= LARGE {
        job.bytes as f64 / 1e6
    } else {
        1.0
    };
    for done in rates {
        match done {
            Some(done) => print!("{:>10.0}", done.rate() * unit),
            None => print!("{:>10}", "-"),
        }
    }
    for deep in &rates[1..] {
        match (rates[0], deep) {
            (Some(one), Some(deep)) => print!("{:>7.2}", deep.rate() / one.rate()),
            _ => print!("{:>7}", "-"),
        }
    }
    println!();
}

pub(crate) fn once(reader: Reader, top: &Top, job: &Job, size: u64) -> Outcome<Done> {
    let places = size / job.bytes;
    let mut random = Random::new(1);
    let offsets: Vec<u64> = (0..job.count)
        .map(|number| match job.task.order {
            Order::Random => random.below(places) * job.bytes,
            _ => number % places * job.bytes,
        })
        .collect();
    let (path, format) = (&top.path, top.format);
    peak::begin();
    let done = match reader {
        Reader::Ours => requests(&Ours(open(path, format, false)?), job, &offsets),
        Reader::OursWritable => requests(&Ours(open(path, format, true)?), job, &offsets),
        Reader::Plain => requests(&Plain::new(&open(path, format, false)?)?, job, &offsets),
        Reader::Imago => requests(&imago::open(path)?, job, &offsets),
        Reader::QemuImg => {
            // It is not stopped when it takes long.
            let count = job.count.min(QEMU_REQUESTS);
            let job = &Job {
                count,
                ..job.clone()
            };
            let times = qemu::WAYS.map(|way| qemu::bench(path, format, size, job, way));
            let times = times.into_iter().collect::<Outcome<Vec<_>>>()?;
            let time = times.into_iter().min().ok_or("no way")?;
            Ok(Done {
                requests: count,
                time,
                peak: None,
            })
        }
    }?;
    let peak = (reader != Reader::QemuImg).then(peak::bytes).flatten();
    Ok(Done { peak, ..done })
}

struct Ours(Chain);

impl Disk for Ours {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        self.0.read_at(buf, offset).map_err(text)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Outcome {
        self.0.write_at(buf, offset).map_err(text)
    }

    fn flush(&self) -> Outcome {
        self.0.flush().map_err(text)
    }
}

/// The files of a chain, and which of them holds each run of the disk, by where the run ends.
struct Plain {
    files: Vec<File>,
    runs: BTreeMap<u64, Run>,
}

struct Run {
    start: u64,
    file: usize,
    place: u64,
}

impl Plain {
    fn new(chain: &Chain) -> Outcome<Self> {
        let paths = chain.links().map(|link| link.path.map(File::open));
        let files: Option<Result<Vec<File>, _>> = paths.collect();
        let files = files.ok_or("a layer has no path")?.map_err(text)?;
        let mut runs = BTreeMap::new();
        for extent in chain.extents(0, chain.size()) {
            let (start, extent) = extent.map_err(text)?;
            let host = extent.host.ok_or("a run is nowhere")?;
            let file = usize::try_from(extent.depth).map_err(text)?;
            let place = host.offset;
            runs.insert(start + extent.len, Run { start, file, place });
        }
        Ok(Self { files, runs })
    }
}

impl Disk for Plain {
    fn read(&self, buf: &mut [u8], offset: u64) -> Outcome {
        let (mut rest, mut at) = (buf, offset);
        for (end, run) in self.runs.range(offset + 1..) {
            let len = (end - at).min(rest.len() as u64);
            let (part, after) = rest.split_at_mut(usize::try_from(len).map_err(text)?);
            let place = run.place + (at - run.start);
            let file = &self.files[run.file];
            file.read_exact_at(part, place).map_err(text)?;
            (rest, at) = (after, *end);
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, _: &[u8], _: u64) -> Outcome {
        Err("opened for reading".into())
    }

    fn flush(&self) -> Outcome {
        Ok(())
    }
}
