//! A layer in memory, of any grain, that notes what is asked of it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use blockdev_core::{
    Below, ByteRange, Caps, ContentId, DeviceInfo, DiscardMode, ErrorKind, Extent, ExtentKind,
    FileRef, Holes, HostFile, HostPlace, Layer, MemoryStorage, PageCache, Result, Storage,
    ZeroFlags,
};

/// One unit of a layer; what is in no map is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    Zero,
    Data(Vec<u8>),
}

/// What was asked of a layer, to be looked at after the layer has gone into a chain.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Offset and length of each read.
    pub(super) reads: Mutex<Vec<(u64, usize)>>,
    pub(super) statuses: AtomicUsize,
    pub(super) flushes: AtomicUsize,
}

pub(super) struct SparseLayer {
    pub(super) info: DeviceInfo,
    pub(super) refs: Vec<FileRef>,
    pub(super) id: Option<ContentId>,
    pub(super) cache: Option<Arc<PageCache>>,
    pub(super) host: Arc<dyn Storage>,
    pub(super) asked: Arc<Asked>,
    /// Every look at it fails.
    pub(super) broken: bool,
    grain: u64,
    units: Mutex<BTreeMap<u64, Unit>>,
}

impl SparseLayer {
    /// A read-only layer that holds nothing.
    pub(super) fn new(size: u64, grain: u64) -> Self {
        Self {
            info: DeviceInfo {
                size,
                logical_sector_size: 512,
                physical_sector_size: 512,
                block_size: None,
                read_only: true,
                format: "sparse",
                caps: Caps::default(),
            },
            refs: Vec::new(),
            id: None,
            cache: None,
            host: Arc::new(MemoryStorage::default()),
            asked: Arc::default(),
            broken: false,
            grain,
            units: Mutex::default(),
        }
    }

    pub(super) fn writable(mut self) -> Self {
        self.info.read_only = false;
        self.info.caps = Caps {
            write: true,
            write_zeroes: true,
            discard: true,
        };
        self
    }

    /// The same holding `byte` in all units that begin in `start..end`.
    pub(super) fn with(self, start: u64, end: u64, byte: u8) -> Self {
        for unit in start.div_ceil(self.grain)..end.div_ceil(self.grain) {
            let len = usize::try_from(self.unit_end(unit) - unit * self.grain).unwrap();
            self.set(unit, Unit::Data(vec![byte; len]));
        }
        self
    }

    pub(super) fn set(&self, unit: u64, content: Unit) {
        self.units.lock().unwrap().insert(unit, content);
    }

    pub(super) fn boxed(self) -> Box<dyn Layer> {
        Box::new(self)
    }

    /// What byte `offset` is to this layer alone.
    pub(super) fn byte(&self, offset: u64) -> (ExtentKind, u8) {
        let unit = offset / self.grain;
        match self.units.lock().unwrap().get(&unit) {
            None => (ExtentKind::Absent, 0),
            Some(Unit::Zero) => (ExtentKind::Zero, 0),
            Some(Unit::Data(bytes)) => {
                let within = usize::try_from(offset - unit * self.grain).unwrap();
                (ExtentKind::Data, bytes[within])
            }
        }
    }

    fn unit_end(&self, unit: u64) -> u64 {
        ((unit + 1) * self.grain).min(self.info.size)
    }

    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(ErrorKind::Io.into());
        }
        Ok(())
    }

    /// The run of one kind that starts at `offset`, up to `end`.
    fn run(&self, offset: u64, end: u64) -> (ExtentKind, u64) {
        let kind = self.byte(offset).0;
        let mut at = self.unit_end(offset / self.grain);
        while at < end && self.byte(at).0 == kind {
            at = self.unit_end(at / self.grain);
        }
        (kind, at.min(end) - offset)
    }
}

impl Layer for SparseLayer {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn file_refs(&self) -> &[FileRef] {
        &self.refs
    }

    fn content_id(&self) -> Option<ContentId> {
        self.id
    }

    fn next_extent(&self, offset: u64, len: u64) -> Result<Extent> {
        assert!(
            len > 0 && offset + len <= self.info.size,
            "inside the layer"
        );
        self.check()?;
        self.asked.statuses.fetch_add(1, Ordering::Relaxed);
        let (kind, len) = self.run(offset, offset + len);
        let host = (kind == ExtentKind::Data).then_some(HostPlace {
            file: HostFile::Image,
            offset: offset + (1 << 20),
        });
        Ok(Extent {
            host,
            ..Extent::new(kind, len)
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64, holes: &mut Holes) -> Result<()> {
        let end = offset + buf.len() as u64;
        assert!(!buf.is_empty() && end <= self.info.size, "inside the layer");
        self.check()?;
        self.asked.reads.lock().unwrap().push((offset, buf.len()));
        let mut at = offset;
        while at < end {
            let (kind, len) = self.run(at, end);
            let range = ByteRange::new(at, len).unwrap();
            if kind == ExtentKind::Absent {
                holes.push(range);
            } else {
                for (at, byte) in (at..).zip(range.slice_of(buf, offset)) {
                    *byte = self.byte(at).1;
                }
            }
            at += len;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let end = offset + buf.len() as u64;
        let mut at = offset;
        while at < end {
            let unit = at / self.grain;
            let (start, stop) = (unit * self.grain, self.unit_end(unit));
            let mut bytes = vec![0; usize::try_from(stop - start).unwrap()];
            let held = self.units.lock().unwrap().get(&unit).cloned();
            match held {
                Some(Unit::Data(held)) => bytes = held,
                Some(Unit::Zero) => {}
                None => below.read_at(&mut bytes, start)?,
            }
            let piece = ByteRange::new(at, stop.min(end) - at).unwrap();
            let from = usize::try_from(at - offset).unwrap();
            let to = piece.slice_of(&mut bytes, start);
            to.copy_from_slice(&buf[from..from + to.len()]);
            self.set(unit, Unit::Data(bytes));
            at = piece.end();
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _: ZeroFlags, below: &dyn Below) -> Result<()> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let unit = at / self.grain;
            let stop = self.unit_end(unit).min(end);
            if at == unit * self.grain && stop == self.unit_end(unit) {
                self.set(unit, Unit::Zero);
            } else {
                let zeros = vec![0; usize::try_from(stop - at).unwrap()];
                self.write_at(&zeros, at, below)?;
            }
            at = stop;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64, mode: DiscardMode) -> Result<()> {
        assert_eq!(mode, DiscardMode::Best);
        for unit in offset.div_ceil(self.grain)..(offset + len) / self.grain {
            self.set(unit, Unit::Zero);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.asked.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn host(&self, file: HostFile) -> Option<&dyn Storage> {
        (file == HostFile::Image).then_some(&*self.host)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
