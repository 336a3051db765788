//! Looks at the order in which a story's writes and syncs came, and holds each against the rules of
//! [MS-VHDX] that it falls under. Headers, log and BAT are decoded here anew, from the text alone.
//!
//! ```text
//!   line by line:  now   the file with everything that was asked for
//!                  base  the file as the last completed sync left it for certain
//! ```
//!
//! The crash explorer shows that images survive; this shows why, and that the order is not right by
//! chance.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use blockdev_core::OpenOptions;
use testkit::crash::{Entry, Image, Mark, StateStorage, Told};
use vhdx_format::{Uuid, VhdxImage, known};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
const SLOTS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: Range<u64> = 192 << 10..320 << 10;

/// What came of the looking.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// By the number of the rule in the list of rules that implementers get wrong: how often it was
    /// looked at.
    pub(crate) looked: BTreeMap<u32, u64>,
    /// The rule, and how it is broken.
    pub(crate) broken: Vec<(u32, String)>,
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(le(bytes, at))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(le(bytes, at))
}

fn is_sealed(bytes: &[u8]) -> bool {
    let mut zeroed = bytes.to_vec();
    zeroed[4..8].fill(0);
    crc32c::crc32c(&zeroed) == le32(bytes, 4)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    slot: usize,
    sequence: u64,
    file_write: Uuid,
    data_write: Uuid,
    log: Uuid,
    log_length: u32,
    log_offset: u64,
}

impl Header {
    fn decode(bytes: &[u8], slot: usize) -> Option<Self> {
        let guid = |at| Uuid::from_bytes_le(le(bytes, at));
        (bytes.starts_with(b"head") && is_sealed(bytes)).then(|| Self {
            slot,
            sequence: le64(bytes, 8),
            file_write: guid(16),
            data_write: guid(32),
            log: guid(48),
            log_length: le32(bytes, 68),
            log_offset: le64(bytes, 72),
        })
    }

    fn both(image: &Image) -> [Option<Self>; 2] {
        [0, 1].map(|slot| Self::decode(&image.part(SLOTS[slot], PAGE), slot))
    }

    fn current(image: &Image) -> Self {
        let [first, second] = Self::both(image);
        match (first, second) {
            (Some(first), Some(second)) if second.sequence > first.sequence => second,
            (Some(first), _) => first,
            (None, second) => second.expect("one of two headers is valid"),
        }
    }
}

/// A valid entry in the log.
#[derive(Debug, Clone)]
struct Logged {
    at: u32,
    len: u32,
    sequence: u64,
    tail: u32,
    guid: Uuid,
    flushed: u64,
    last: u64,
    /// What it writes, page by page; what it makes zero is pages too.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Logged {
    fn decode(ring: &[u8], at: usize) -> Option<Self> {
        let len = le32(ring, at + 8) as usize;
        if !ring[at..].starts_with(b"loge")
            || len == 0
            || !len.is_multiple_of(PAGE)
            || len > ring.len()
        {
            return None;
        }
        let bytes: Vec<u8> = (at..at + len).map(|n| ring[n % ring.len()]).collect();
        if !is_sealed(&bytes) {
            return None;
        }
        let (sequence, count) = (le64(&bytes, 16), le32(&bytes, 24) as usize);
        let mut data = (64 + count * 32).div_ceil(PAGE) * PAGE;
        let mut pages = BTreeMap::new();
        for n in 0..count {
            let descriptor = &bytes[64 + n * 32..96 + n * 32];
            let offset = le64(descriptor, 16);
            if descriptor.starts_with(b"zero") {
                for at in (0..le64(descriptor, 8)).step_by(PAGE) {
                    pages.insert(offset + at, vec![0; PAGE]);
                }
            } else {
                let mut page = bytes[data..data + PAGE].to_vec();
                page[..8].copy_from_slice(&descriptor[8..16]);
                page[4092..].copy_from_slice(&descriptor[4..8]);
                pages.insert(offset, page);
                data += PAGE;
            }
        }
        Some(Self {
            at: u32::try_from(at).unwrap(),
            len: u32::try_from(len).unwrap(),
            sequence,
            tail: le32(&bytes, 12),
            guid: Uuid::from_bytes_le(le(&bytes, 32)),
            flushed: le64(&bytes, 48),
            last: le64(&bytes, 56),
            pages,
        })
    }

    /// Every valid entry in the ring, remains of older logs included.
    fn all(image: &Image, header: &Header) -> Vec<Self> {
        let ring = image.part(header.log_offset, header.log_length as usize);
        let sectors = (0..ring.len()).step_by(PAGE);
        sectors.filter_map(|at| Self::decode(&ring, at)).collect()
    }

    /// The sequence that a reader of `image` under `guid` replays, tail first.
    fn active(image: &Image, header: &Header, guid: Uuid) -> Vec<Self> {
        let found: BTreeMap<u32, Self> = Self::all(image, header)
            .into_iter()
            .filter(|entry| entry.guid == guid)
            .map(|entry| (entry.at, entry))
            .collect();
        let mut heads: Vec<&Self> = found.values().collect();
        heads.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
        for head in heads {
            let (mut at, mut chain): (u32, Vec<Self>) = (head.tail, Vec::new());
            while let Some(entry) = found.get(&at) {
                let expected = chain.last().map(|last| last.sequence + 1);
                if expected.is_some_and(|expected| expected != entry.sequence) {
                    break;
                }
                chain.push(entry.clone());
                if entry.at == head.at {
                    return chain;
                }
                at = (at + entry.len) % header.log_length;
            }
        }
        Vec::new()
    }

    /// Sectors of the ring that it takes.
    fn sectors(&self, log_length: u32) -> BTreeSet<u32> {
        let sectors = (0..self.len).step_by(PAGE);
        sectors.map(|by| (self.at + by) % log_length).collect()
    }
}

/// Where the tables are.
#[derive(Debug)]
struct Places {
    bat: Range<u64>,
    metadata: Range<u64>,
    block_size: u64,
    ratio: u64,
    has_parent: bool,
}

impl Places {
    fn of(image: &Image) -> Self {
        let storage = StateStorage::read_only(image.clone());
        let opened = VhdxImage::open(storage, &OpenOptions::read_only()).unwrap();
        let table = opened.region_tables().current().unwrap();
        let region = |guid| {
            let range = table.find(guid).unwrap().range().unwrap();
            range.start()..range.end()
        };
        Self {
            bat: region(known::BAT_REGION),
            metadata: region(known::METADATA_REGION),
            block_size: opened.geometry().block_size(),
            ratio: opened.geometry().chunk_ratio(),
            has_parent: opened.items().file_parameters.has_parent,
        }
    }

    /// The entries of the BAT that are not 0, by number.
    fn entries(&self, image: &Image) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        let mut at = self.bat.start;
        while at < self.bat.end.min(image.len()) {
            let (len, kept) = image.run(at);
            let end = (at + len).min(self.bat.end);
            if kept {
                let bytes = image.part(at, usize::try_from(end - at).unwrap());
                let entries = bytes.chunks_exact(8).map(|entry| le64(entry, 0));
                let numbered = ((at - self.bat.start) / 8..).zip(entries);
                found.extend(numbered.filter(|(_, entry)| *entry != 0));
            }
            at = end;
        }
        found
    }

    fn is_bitmap(&self, index: u64) -> bool {
        index % (self.ratio + 1) == self.ratio
    }

    /// What is present in the file by the BAT of `image`: entry and range.
    fn present(&self, image: &Image) -> Vec<(u64, Range<u64>)> {
        let entries = self.entries(image).into_iter();
        let present = entries.filter_map(|(index, entry)| {
            let (state, place) = (entry & 7, entry >> 20 << 20);
            let (is_there, len) = if self.is_bitmap(index) {
                (state == 6 && self.has_parent, MIB)
            } else {
                (state >= 6, self.block_size)
            };
            is_there.then_some((index, place..place + len))
        });
        present.collect()
    }
}

struct Walk<'a> {
    told: &'a Told,
    places: Places,
    now: Image,
    base: Image,
    /// The header of the file when it was opened.
    opened: Header,
    /// The header named a log when it was opened, and still does.
    replaying: bool,
    /// Headers written since the last sync.
    headers_pending: u32,
    /// The length that was durable when the log was last written to.
    stable_len: u64,
    log_pending: bool,
    /// By the last sync.
    active: Vec<Logged>,
    /// The same, under the identity that entries bear before the header names it.
    unnamed: Vec<Logged>,
    /// Entries that were in the ring already.
    seen: BTreeSet<(Uuid, u64)>,
    findings: Findings,
    line: usize,
    session_ends: bool,
    /// Something other than a hole was made since the last sync.
    unsynced: bool,
    /// The same, outside log and headers.
    loose: bool,
    /// The operation under way leaves alone what the disk reads.
    unseen: bool,
}

/// Looks at one story.
pub(crate) fn audit(told: &Told) -> Findings {
    let opened = Header::current(&told.images[0]);
    let mut walk = Walk {
        told,
        places: Places::of(&told.images[0]),
        now: told.images[0].clone(),
        base: told.images[0].clone(),
        opened,
        replaying: !opened.log.is_nil(),
        headers_pending: 0,
        stable_len: told.images[0].len(),
        log_pending: false,
        active: Logged::active(&told.images[0], &opened, opened.log),
        unnamed: Vec::new(),
        seen: Logged::all(&told.images[0], &opened)
            .iter()
            .map(|entry| (entry.guid, entry.sequence))
            .collect(),
        findings: Findings::default(),
        line: 0,
        session_ends: false,
        unsynced: false,
        loose: false,
        unseen: false,
    };
    for (n, line) in told.log.iter().enumerate() {
        walk.line = n;
        walk.step(&line.entry);
    }
    walk.ended();
    walk.findings
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Walk<'_> {
    fn must(&mut self, rule: u32, holds: bool, otherwise: impl FnOnce() -> String) {
        *self.findings.looked.entry(rule).or_default() += 1;
        if !holds {
            let text = format!("line {}: {}", self.line, otherwise());
            self.findings.broken.push((rule, text));
        }
    }

    fn step(&mut self, entry: &Entry) {
        self.unsynced |= entry.changes() && !matches!(entry, Entry::Punch { .. });
        match entry {
            Entry::Mark(mark) => self.mark(*mark),
            Entry::Sync { .. } => self.synced(),
            Entry::SyncFailed => panic!("no story fails"),
            Entry::SetLen { len } => {
                self.loose = true;
                if *len < self.now.len() {
                    self.changes(*len..self.now.len(), entry);
                }
                entry.apply(&mut self.now);
            }
            Entry::Write { offset, bytes } => {
                self.changes(*offset..*offset + bytes.len() as u64, entry);
                entry.apply(&mut self.now);
            }
            Entry::Punch { offset, len } | Entry::Zero { offset, len } => {
                self.changes(*offset..*offset + len, entry);
                entry.apply(&mut self.now);
            }
        }
    }

    /// A close ends a session: what comes next is an open.
    fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::End { op, .. } => {
                let name = &self.told.names[usize::try_from(op).unwrap()];
                if name == "close" {
                    self.ended();
                    self.session_ends = true;
                }
            }
            Mark::Begin(op) => {
                // A block that moves, another name of the parent: no child need notice.
                let name = &self.told.names[usize::try_from(op).unwrap()];
                self.unseen = name.starts_with("Other(");
            }
        }
    }

    /// After a close: a file that needs no replay, both headers alike.
    fn ended(&mut self) {
        let headers = Header::both(&self.now);
        let current = Header::current(&self.now);
        let changed = current.sequence != self.opened.sequence;
        self.must(13, current.log.is_nil(), || {
            "a closed file whose header names a log".into()
        });
        if changed {
            let alike = headers[0].zip(headers[1]).is_some_and(|(a, b)| {
                let same = Header {
                    slot: b.slot,
                    sequence: b.sequence,
                    ..a
                } == b;
                same && a.sequence.abs_diff(b.sequence) == 1
            });
            self.must(6, alike, || format!("after a close: {headers:?}"));
        }
        // Space that is free may become a hole at any time.
        let unsynced = self.unsynced;
        self.must(8, !unsynced, || {
            "a close that ends with unsynced changes".into()
        });
        self.opened = current;
        self.replaying = false;
    }

    fn synced(&mut self) {
        self.base = self.now.clone();
        self.headers_pending = 0;
        self.unsynced = false;
        self.loose = false;
        let header = Header::current(&self.base);
        if header.log.is_nil() {
            self.replaying = false;
        }
        if std::mem::take(&mut self.log_pending) {
            self.entry_is_stable(&header);
        } else {
            self.active.retain(|entry| entry.guid == header.log);
        }
    }

    /// The newest entry in the ring that was not there before, by whatever identity.
    fn newest(&self, header: &Header) -> Option<Logged> {
        let entries = Logged::all(&self.base, header).into_iter();
        entries
            .filter(|entry| !self.seen.contains(&(entry.guid, entry.sequence)))
            .max_by_key(|entry| (entry.guid == header.log, entry.sequence))
    }

    fn entry_is_stable(&mut self, header: &Header) {
        let Some(new) = self.newest(header) else {
            let text = || "the log was written to, and holds no new entry".into();
            return self.must(8, false, text);
        };
        self.seen.insert((new.guid, new.sequence));
        let chain = Logged::active(&self.base, header, new.guid);
        let is_head = chain.last().map(|head| head.sequence) == Some(new.sequence);
        self.must(12, is_head, || {
            format!("entry {} is not the head of a sequence", new.sequence)
        });
        let tables = |at: &u64| REGION_TABLES.contains(at) || self.places.metadata.contains(at);
        if new.pages.keys().any(tables) {
            self.places = Places::of(&self.replayed(&chain));
        }
        self.file_offsets(&new, &chain);
        self.retired(&chain);
        if new.guid == header.log {
            self.active = chain;
        } else {
            self.unnamed = chain;
        }
    }

    /// What a reader sees once `chain` is replayed.
    fn replayed(&self, chain: &[Logged]) -> Image {
        let mut image = self.base.clone();
        for entry in chain {
            for (at, page) in &entry.pages {
                image.write(*at, page);
            }
        }
        image
    }

    fn file_offsets(&mut self, new: &Logged, chain: &[Logged]) {
        let stable = self.stable_len;
        self.must(
            9,
            new.flushed <= stable && new.flushed.is_multiple_of(MIB),
            || format!("FlushedFileOffset {:#x} of {stable:#x}", new.flushed),
        );
        let image = self.replayed(chain);
        let present = self.places.present(&image);
        let end = present.iter().map(|(_, range)| range.end).max();
        let end = end.unwrap_or(0).max(self.places.bat.end);
        self.must(9, new.last >= end && new.last.is_multiple_of(MIB), || {
            format!("LastFileOffset {:#x}, structures to {end:#x}", new.last)
        });
        let entries: BTreeMap<u64, u64> = self.places.entries(&image).into_iter().collect();
        let ratio = self.places.ratio;
        for (index, entry) in &entries {
            if !self.places.is_bitmap(*index) && entry & 7 == 7 {
                let bitmap = index - index % (ratio + 1) + ratio;
                let there = entries.get(&bitmap).is_some_and(|entry| entry & 7 == 6);
                self.must(20, there, || {
                    format!("BAT entry {index} is partial, its bitmap is not there")
                });
            }
        }
        let mut ranges: Vec<&Range<u64>> = present.iter().map(|(_, range)| range).collect();
        ranges.sort_by_key(|range| range.start);
        for pair in ranges.windows(2) {
            self.must(17, pair[0].end <= pair[1].start, || {
                format!("blocks overlap: {pair:x?}")
            });
        }
    }

    /// What earlier entries changed and `chain` does not hold any more is stable in its place.
    fn retired(&mut self, chain: &[Logged]) {
        let before = std::mem::take(&mut self.active);
        let kept: BTreeSet<u64> = chain.iter().map(|entry| entry.sequence).collect();
        let mut gone: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let guid = chain.last().map(|head| head.guid);
        for entry in before
            .iter()
            .filter(|entry| Some(entry.guid) == guid && !kept.contains(&entry.sequence))
        {
            gone.extend(entry.pages.clone());
        }
        for (at, page) in gone {
            let again = chain.iter().any(|entry| entry.pages.contains_key(&at));
            let stable = self.base.differs(at, &page).is_none();
            self.must(8, again || stable, || {
                format!("page {at:#x} left the log before it was in its place")
            });
        }
        self.active = before;
    }

    /// A change of `range`, about to be made.
    fn changes(&mut self, range: Range<u64>, entry: &Entry) {
        if self.session_ends {
            self.session_ends = false;
            self.opened = Header::current(&self.now);
        }
        self.must(1, range.start >= SLOTS[0], || {
            format!("{entry}: the first 64 KiB")
        });
        let header = Header::current(&self.base);
        let log = header.log_offset..header.log_offset + u64::from(header.log_length);
        if overlap(&range, &(SLOTS[0]..REGION_TABLES.start)) {
            return self.header_changes(&range, entry, &header);
        }
        if overlap(&range, &log) {
            return self.log_changes(&range, entry, &header, &log);
        }
        self.loose |= !matches!(entry, Entry::Punch { .. });
        self.must(3, header.file_write != self.opened.file_write, || {
            format!("{entry}: before FileWriteGuid changed")
        });
        let tables = [&self.places.bat, &self.places.metadata, &REGION_TABLES];
        let in_tables = tables.into_iter().any(|table| overlap(&range, table));
        let replayed = self.replayed(&self.active);
        let present = self.places.present(&replayed);
        let in_bitmap = present
            .iter()
            .any(|(index, place)| self.places.is_bitmap(*index) && overlap(&range, place));
        if in_tables || in_bitmap {
            return self.table_changes(&range, entry, in_tables);
        }
        if self.replaying || self.unseen {
            return;
        }
        self.must(4, header.data_write != self.opened.data_write, || {
            format!("{entry}: before DataWriteGuid changed")
        });
        if let Entry::Punch { len, .. } = entry
            && *len >= self.places.block_size
        {
            let used = present.iter().find(|(_, place)| overlap(&range, place));
            self.must(21, used.is_none(), || {
                format!("{entry}: BAT entry {used:?} is stable there")
            });
        }
    }

    fn header_changes(&mut self, range: &Range<u64>, entry: &Entry, stable: &Header) {
        let slot = SLOTS.iter().position(|slot| *slot == range.start);
        let Entry::Write { bytes, .. } = entry else {
            return self.must(6, false, || format!("{entry}: a header"));
        };
        let new = slot.and_then(|slot| Header::decode(bytes, slot));
        let Some(new) = new.filter(|_| bytes.len() == PAGE) else {
            return self.must(6, false, || format!("{entry}: no header"));
        };
        let pending = self.headers_pending;
        self.headers_pending += 1;
        self.must(6, new.slot != stable.slot && pending == 0, || {
            format!("{entry}: over the current header, or before the other was stable")
        });
        self.must(6, new.sequence > stable.sequence, || {
            format!(
                "{entry}: sequence {} after {}",
                new.sequence, stable.sequence
            )
        });
        if new.log == stable.log {
            return;
        }
        if new.log.is_nil() {
            let active = self.active.clone();
            let mut last: BTreeMap<u64, &Vec<u8>> = BTreeMap::new();
            for entry in &active {
                last.extend(entry.pages.iter().map(|(at, page)| (*at, page)));
            }
            for (at, page) in last {
                let stable = self.base.differs(at, page).is_none();
                self.must(13, stable, || {
                    format!("the log is given up before page {at:#x} is in its place")
                });
            }
        } else {
            let chain = Logged::active(&self.base, stable, new.log);
            self.must(5, !chain.is_empty(), || {
                format!("{entry}: names a log without a stable entry")
            });
            self.active = chain;
        }
    }

    fn log_changes(
        &mut self,
        range: &Range<u64>,
        entry: &Entry,
        header: &Header,
        log: &Range<u64>,
    ) {
        self.must(3, header.file_write != self.opened.file_write, || {
            format!("{entry}: before FileWriteGuid changed")
        });
        if !self.replaying && !self.unseen {
            self.must(4, header.data_write != self.opened.data_write, || {
                format!("{entry}: before DataWriteGuid changed")
            });
        }
        self.must(5, log.start <= range.start && range.end <= log.end, || {
            format!("{entry}: across the border of the log")
        });
        let mine: BTreeSet<u32> = (range.start..range.end)
            .step_by(PAGE)
            .map(|at| u32::try_from(at - log.start).unwrap())
            .collect();
        let in_use = if header.log.is_nil() {
            None
        } else {
            self.active
                .iter()
                .find(|used| !used.sectors(header.log_length).is_disjoint(&mine))
                .map(|used| used.sequence)
        };
        self.must(8, in_use.is_none(), || {
            format!("{entry}: over entry {in_use:?}, which is still to be replayed")
        });
        // What an entry makes visible is stable before the entry is begun.
        let loose = !self.log_pending && self.loose;
        self.must(8, !loose, || {
            format!("{entry}: an entry before the bytes that it refers to are stable")
        });
        if !self.log_pending {
            self.stable_len = self.base.len();
        }
        self.log_pending = true;
    }

    /// A table is changed in place as a stable entry of the log has it, and in no other way.
    fn table_changes(&mut self, range: &Range<u64>, entry: &Entry, in_tables: bool) {
        let Entry::Write { offset, bytes } = entry else {
            // A reader's zero descriptors become holes.
            let replaying = self.replaying;
            return self.must(8, replaying, || {
                format!("{entry}: a table, without the log")
            });
        };
        let whole = offset.is_multiple_of(PAGE as u64) && bytes.len().is_multiple_of(PAGE);
        let active = self.active.clone();
        let logged = whole
            && (*offset..)
                .step_by(PAGE)
                .zip(bytes.chunks(PAGE))
                .all(|(at, page)| {
                    active
                        .iter()
                        .any(|entry| entry.pages.get(&at).is_some_and(|logged| logged == page))
                });
        let rule = if overlap(range, &REGION_TABLES) { 7 } else { 8 };
        self.must(rule, logged, || {
            let what = if in_tables { "a table" } else { "a bitmap" };
            format!("{entry}: {what}, which no stable entry of the log has so")
        });
    }
}
