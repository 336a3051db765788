//! The random life of a chain: what is done to it, and what it must read then.

use std::fs;
use std::path::{Path, PathBuf};

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, ZeroFlags};
use diskweave::qcow2::Backing;
use diskweave::{
    CommitOptions, ConvertOptions, NewImage, NoProgress, OpenDisk, commit, convert, create, qcow2,
    rebase, resize, stream, vhdx, vhdx_child,
};
use testkit::Rng;
use testkit::oracle::QemuImg;
use testkit::stamp::stamped;

use crate::support::beneath;

/// Lives of a chain, each with so many operations.
const LIVES: u64 = 30;
const OPERATIONS: u32 = 14;

#[test]
fn a_chain_reads_as_the_model_whatever_is_done_to_it() {
    let qemu = QemuImg::find();
    for seed in 0..LIVES {
        live(seed, &ALL, qemu.as_ref());
    }
}

/// A VHDX knows a qcow2 below it by its file, which is written to when that qcow2 is told of another parent.
#[test]
fn a_child_knows_its_parent_again_when_that_refers_to_another_base() {
    let mut life = Life::new(0, &["qcow2"; 5]);
    while life.members.len() < 3 {
        life.child();
        life.guest();
    }
    life.formats = &["vhdx"; 5];
    life.child();
    for _ in 0..life.members.len() - 3 {
        let (top, middle) = (life.top().clone(), life.members[2].path.clone());
        let mut options = CommitOptions::default();
        options.top = Some(middle);
        commit(&top.path, &life.open(&top), &options, &NoProgress).unwrap();
        life.members.remove(2);
        life.members[2].content = None;
        life.check();
    }
}

/// As deep as the limit lets a chain be: written to at every depth, then moved into its base at once.
#[test]
fn a_chain_of_64_layers_is_written_through_and_merged() {
    let mut life = Life::new(1, &["vhdx", "qcow2", "vhdx", "qcow2", "qcow2"]);
    while life.members.len() < 64 {
        life.child();
        life.guest();
    }
    let open = life.open(life.top());
    assert_eq!(open.open(&life.top().path).unwrap().layer_count(), 64);
    life.check();
    let top = life.top().clone();
    let mut options = CommitOptions::default();
    options.base = Some(life.members[63].path.clone());
    commit(&top.path, &open, &options, &NoProgress).unwrap();
    let base = life.chain(&life.members[63]);
    let mut seen = vec![0xEE; usize::try_from(life.size()).unwrap()];
    base.read_at(&mut seen, 0).unwrap();
    assert!(seen == life.content(0));
    drop(base);
    for member in &mut life.members[1..] {
        member.content = None;
    }
    life.check();
}

/// The formats of a life's images, as often as they are to occur.
pub(crate) type Formats = [&'static str; 5];

pub(crate) const ALL: Formats = ["qcow2", "vhdx", "qcow2", "vhdx", "raw"];

/// What QEMU can open in chains.
pub(crate) const OF_QEMU: Formats = ["qcow2", "qcow2", "qcow2", "qcow2", "raw"];

/// One life of images of `formats`. QEMU looks at the end of it wherever it can open the chain.
pub(crate) fn live(seed: u64, formats: &'static Formats, qemu: Option<&QemuImg>) {
    let mut life = Life::new(seed, formats);
    for step in 0..OPERATIONS {
        life.step(step);
        life.check();
    }
    life.close(qemu);
}

/// One image of a chain.
#[derive(Debug, Clone)]
struct Member {
    path: PathBuf,
    format: &'static str,
    /// What its disk reads, where that is defined: below layers that were merged past an image, it reads
    /// what is below it now.
    content: Option<Vec<u8>>,
}

/// A chain under test, the top first.
struct Life {
    dir: tempfile::TempDir,
    rng: Rng,
    seed: u64,
    formats: &'static Formats,
    made: u32,
    written: u32,
    members: Vec<Member>,
    done: Vec<String>,
}

impl Life {
    fn new(seed: u64, formats: &'static Formats) -> Self {
        let mut life = Self {
            dir: tempfile::tempdir().unwrap(),
            rng: Rng::new(seed),
            seed,
            formats,
            made: 0,
            written: 0,
            members: Vec::new(),
            done: Vec::new(),
        };
        life.members = life.base();
        for _ in 0..life.rng.below(7) {
            life.child();
            life.guest();
        }
        life
    }

    /// What was done so far, for messages.
    fn story(&self) -> String {
        format!("seed {}: {}", self.seed, self.done.join("; "))
    }

    fn top(&self) -> &Member {
        &self.members[0]
    }

    fn size(&self) -> u64 {
        self.content(0).len() as u64
    }

    fn content(&self, at: usize) -> &[u8] {
        let content = self.members[at].content.as_deref();
        content.expect("the disk is defined")
    }

    fn open(&self, member: &Member) -> OpenDisk {
        beneath(&member.path).format(member.format)
    }

    fn chain(&self, member: &Member) -> Chain {
        let opened = self.open(member).open(&member.path);
        opened.unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
    }

    fn path(&mut self, format: &str) -> PathBuf {
        self.made += 1;
        self.dir.path().join(format!("{}.{format}", self.made))
    }

    fn some_size(&mut self) -> u64 {
        (self.rng.below(5 << 10) + 128) * 512
    }

    fn some_format(&mut self) -> &'static str {
        self.formats[self.rng.index(self.formats.len())]
    }

    /// Options of an image of `format`; a child's grain is any.
    fn options(&mut self, format: &str) -> NewImage {
        match format {
            "raw" => NewImage::raw(),
            "vhdx" => {
                let mut options = vhdx::CreateOptions::new(0);
                options.block_size = 1 << (20 + self.rng.below(2));
                NewImage::Vhdx(options)
            }
            _ => {
                let mut options = qcow2::CreateOptions::new(0);
                options.cluster_bits = *self.rng.pick(&[10, 12, 14, 16, 16, 18]);
                if self.rng.one_in(4) {
                    options.version = 2;
                } else {
                    options.extended_l2 = options.cluster_bits >= 14 && self.rng.one_in(3);
                    options.refcount_order = *self.rng.pick(&[3, 4, 6]);
                    options.lazy_refcounts = self.rng.one_in(4);
                }
                NewImage::Qcow2(options)
            }
        }
    }

    /// A new image without parent, with something in it.
    fn base(&mut self) -> Vec<Member> {
        let format = self.some_format();
        let path = self.path(format);
        let size = self.some_size();
        let image = self.options(format);
        create(&path, &image, Some(size), None).unwrap();
        let content = Some(vec![0; usize::try_from(size).unwrap()]);
        let mut member = Member {
            path,
            format,
            content,
        };
        self.write_into(&mut member);
        vec![member]
    }

    /// A few writes of the guest.
    fn write_into(&mut self, member: &mut Member) {
        let disk = self.open(member).writable().open(&member.path);
        let disk = disk.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        let content = member.content.as_mut().expect("the disk is defined");
        let size = disk.size();
        assert_eq!(size, content.len() as u64, "{}", self.story());
        for _ in 0..self.rng.below(5) + 1 {
            let at = self.rng.below(size);
            let most = *self.rng.pick(&[700, 5000, 100_000, 1 << 20]);
            let len = (self.rng.below(most) + 1).min(size - at);
            let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
            self.written += 1;
            match self.rng.below(5) {
                0 => {
                    let flags = ZeroFlags {
                        may_unmap: self.rng.one_in(2),
                        no_fallback: false,
                    };
                    disk.write_zeroes(at, len, flags).unwrap();
                    content[range].fill(0);
                }
                1 => {
                    disk.discard(at, len).unwrap();
                    let mut now = vec![0; range.len()];
                    disk.read_at(&mut now, at).unwrap();
                    for (new, old) in now.iter().zip(&mut content[range]) {
                        assert!(
                            *new == *old || *new == 0,
                            "{}",
                            "a discard shows what is foreign"
                        );
                        *old = *new;
                    }
                }
                _ => {
                    let bytes = stamped(at, range.len(), self.written);
                    disk.write_at(&bytes, at).unwrap();
                    content[range].copy_from_slice(&bytes);
                }
            }
        }
        disk.close().unwrap();
    }

    /// One more operation.
    fn step(&mut self, step: u32) {
        let deep = self.members.len();
        let what = match self.rng.below(10) {
            0..=1 if deep < 8 => self.child(),
            2 => self.resize(),
            3..=4 if deep > 1 => self.commit(),
            5 if deep > 1 => self.commit_middle(),
            6 if self.top().format != "raw" => self.rebase(),
            7 if deep > 1 => self.stream(),
            8 if step % 4 == 3 => self.flatten(),
            _ => self.guest(),
        };
        self.done.push(what);
    }

    fn guest(&mut self) -> String {
        let mut top = self.members.remove(0);
        self.write_into(&mut top);
        self.members.insert(0, top);
        "guest".into()
    }

    fn child(&mut self) -> String {
        let format = match self.some_format() {
            "raw" => "qcow2",
            format => format,
        };
        let path = self.path(format);
        let parent = self.chain(&self.members[0].clone());
        let name = self
            .top()
            .path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_string();
        let image = match self.options(format) {
            NewImage::Vhdx(options) => {
                let mut child = vhdx_child(&parent, &name, &path).unwrap();
                child.block_size = options.block_size;
                NewImage::Vhdx(child)
            }
            NewImage::Qcow2(mut options) => {
                let format = self.top().format.into();
                options.backing = Some(Backing { name, format });
                NewImage::Qcow2(options)
            }
            other => other,
        };
        let size = match self.rng.below(3) {
            0 => self.some_size(),
            _ => self.size(),
        };
        create(&path, &image, Some(size), Some(&parent)).unwrap();
        let mut content = self.content(0).to_vec();
        content.resize(usize::try_from(size).unwrap(), 0);
        let content = Some(content);
        self.members.insert(
            0,
            Member {
                path,
                format,
                content,
            },
        );
        format!("{format} child of {size}")
    }

    fn resize(&mut self) -> String {
        let size = self.some_size();
        let top = self.members[0].clone();
        let mut disk = self.open(&top).writable().open(&top.path).unwrap();
        resize(&mut disk, size).unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        disk.close().unwrap();
        let content = self.members[0].content.as_mut().unwrap();
        content.resize(usize::try_from(size).unwrap(), 0);
        format!("resize to {size}")
    }

    /// What is above `into` moved into it, from the top.
    fn commit(&mut self) -> String {
        let into = self.rng.index(self.members.len() - 1) + 1;
        let mut options = CommitOptions::default();
        options.base = Some(self.members[into].path.clone());
        options.keep = self.rng.one_in(2);
        let top = self.top().clone();
        let done = commit(&top.path, &self.open(&top), &options, &NoProgress);
        let done = done.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        assert_eq!(done.base, self.members[into].path);
        assert!(done.unneeded.is_empty());
        // What the base has past the end of the disk stays.
        let old = self.members[into].content.take();
        let new = self.content(0).to_vec();
        self.members[into].content = old.map(|old| over(new.clone(), &old)).or_else(|| {
            let disk = self.chain(&self.members[into].clone());
            (disk.size() == new.len() as u64).then_some(new)
        });
        for between in &mut self.members[1..into] {
            between.content = None;
        }
        if self.members[into].content.is_some() && self.rng.one_in(3) {
            // The upper images have served.
            self.members.drain(..into);
        }
        format!("commit into {into} {options:?}")
    }

    /// A run of layers below the top moved into the one below them.
    fn commit_middle(&mut self) -> String {
        let defined = |member: &Member| member.content.is_some();
        let last = self.members.len() - 1;
        let from = self.rng.index(last) + 1;
        if from >= last || !defined(&self.members[from]) {
            return self.guest();
        }
        let into = from + 1 + self.rng.index(last - from);
        let mut options = CommitOptions::default();
        options.top = Some(self.members[from].path.clone());
        options.base = Some(self.members[into].path.clone());
        let top = self.top().clone();
        let done = commit(&top.path, &self.open(&top), &options, &NoProgress);
        let done = done.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        let merged: Vec<PathBuf> = self.members.drain(from..into).map(|m| m.path).collect();
        assert_eq!(done.unneeded, merged);
        merged
            .iter()
            .for_each(|path| fs::remove_file(path).unwrap());
        self.members[from].content = None;
        format!("commit {from} into {into}")
    }

    fn rebase(&mut self) -> String {
        let top = self.top().clone();
        let open = self.open(&top);
        let new = match self.rng.below(3) {
            0 => Vec::new(),
            _ => self.base(),
        };
        let outcome = match new.first() {
            None => rebase(&top.path, &open, None, &NoProgress),
            Some(base) => {
                let chain = self.chain(base);
                let name = Path::new(base.path.file_name().unwrap());
                rebase(&top.path, &open, Some((&chain, name)), &NoProgress)
            }
        };
        outcome.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        self.members.truncate(1);
        self.members.extend(new);
        format!(
            "rebase of {} to {:?}",
            top.format,
            self.members.get(1).map(|m| m.format)
        )
    }

    fn stream(&mut self) -> String {
        let depth = self.rng.index(self.members.len() - 1) + 1;
        let base = self.rng.one_in(2).then(|| self.members[depth].path.clone());
        let top = self.top().clone();
        let outcome = stream(&top.path, &self.open(&top), base.as_deref(), &NoProgress);
        outcome.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        match base {
            Some(_) => drop(self.members.drain(1..depth)),
            None => self.members.truncate(1),
        }
        format!("stream to {depth} {}", base.is_some())
    }

    fn flatten(&mut self) -> String {
        let format = self.some_format();
        let path = self.path(format);
        let image = self.options(format);
        let disk = self.chain(&self.members[0].clone());
        convert(
            &disk,
            &path,
            &image,
            &ConvertOptions::default(),
            &NoProgress,
        )
        .unwrap();
        let content = self.members[0].content.take();
        self.members = vec![Member {
            path,
            format,
            content,
        }];
        format!("flatten to {format}")
    }

    /// Every image is sound, and every disk reads what it must.
    fn check(&self) {
        let disk = self.chain(self.top());
        let paths: Vec<_> = disk
            .links()
            .map(|link| link.path.unwrap().to_path_buf())
            .collect();
        let expected: Vec<_> = self
            .members
            .iter()
            .map(|member| member.path.clone())
            .collect();
        assert_eq!(paths, expected, "{}", self.story());
        for (depth, member) in (0..).zip(&self.members) {
            let checked = diskweave::check(&member.path, &self.open(member)).unwrap();
            if let Some(report) = checked.report {
                assert!(
                    report.corruptions == 0,
                    "{:?}\n{:?}\n{}",
                    member.path,
                    report.findings,
                    self.story()
                );
            }
            let Some(right) = &member.content else {
                continue;
            };
            let view = disk.view(depth).unwrap();
            assert_eq!(view.size(), right.len() as u64, "{}", self.story());
            let mut seen = vec![0xEE; right.len()];
            view.read_at(&mut seen, 0).unwrap();
            if let Some(at) = seen
                .iter()
                .zip(right)
                .position(|(seen, right)| seen != right)
            {
                panic!("layer {depth} reads otherwise at {at:#x}\n{}", self.story());
            }
        }
    }

    /// The last look, QEMU's as well where it can open the chain.
    fn close(self, qemu: Option<&QemuImg>) {
        let known = |member: &&Member| member.format != "vhdx";
        let Some(qemu) = qemu.filter(|_| self.members.iter().all(|member| known(&member))) else {
            return;
        };
        let raw = self.dir.path().join("flat");
        let top = self.top();
        qemu.to_raw(top.format, &top.path, &raw).unwrap();
        assert!(
            fs::read(&raw).unwrap() == self.content(0),
            "QEMU: {}",
            self.story()
        );
        for member in self
            .members
            .iter()
            .filter(|member| member.format == "qcow2")
        {
            let checked = qemu.check("qcow2", &member.path);
            assert!(
                checked.code == 0 || checked.code == 3,
                "{checked:?}\n{}",
                self.story()
            );
        }
    }
}

/// `new`, and what `old` has past its end.
fn over(mut new: Vec<u8>, old: &[u8]) -> Vec<u8> {
    let tail = old.get(new.len()..).unwrap_or_default();
    new.extend_from_slice(tail);
    new
}
