//! The checks themselves are checked: right devices pass, each kind of wrong one is caught.

use std::sync::Arc;

use blockdev_core::{
    BlockDevice, DeviceInfo, ErrorKind, Extent, ExtentKind, LoneLayer, MemoryStorage, RawLayer,
    ReadOnlyStorage, Result, Storage, ZeroFlags,
};

use super::*;
use crate::Rng;

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(5).fill(&mut bytes);
    bytes
}

fn raw(storage: Arc<dyn Storage>) -> LoneLayer {
    LoneLayer::new(Box::new(RawLayer::open(storage).unwrap()))
}

#[test]
fn raw_disks_of_odd_sizes_conform() {
    for len in [0, 1, 513, 65_536, (3 << 20) + 77] {
        let mut content = bytes(len);
        let storage = Arc::new(MemoryStorage::from(content.clone()));
        let fixed = raw(Arc::new(ReadOnlyStorage::new(storage.clone())));
        readable(&fixed, &content);
        refuses_changes(&fixed);
        writable(&raw(storage.clone()), &mut content);
        assert_eq!(storage.to_vec(), content);
    }
}

/// What a wrong device does.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    LeavesAByteUnfilled,
    ReadsPastTheEnd,
    CallsDataZero,
    AnswersMoreThanAsked,
    TakesWrites,
    None,
}

struct Device {
    info: DeviceInfo,
    content: Vec<u8>,
    flaw: Flaw,
}

impl Device {
    fn new(flaw: Flaw) -> Self {
        let content = bytes(2 << 20);
        let mut info = raw(Arc::new(MemoryStorage::from(content.clone())))
            .info()
            .clone();
        info.read_only = true;
        info.caps = blockdev_core::Caps::default();
        info.block_size = Some(1 << 20);
        Self {
            info,
            content,
            flaw,
        }
    }
}

impl BlockDevice for Device {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if !matches!(self.flaw, Flaw::ReadsPastTheEnd) {
            blockdev_core::fits(offset, buf.len() as u64, self.info.size)?;
        } else if offset >= self.info.size {
            return Ok(());
        }
        let spare = match self.flaw {
            Flaw::LeavesAByteUnfilled if buf.len() == 513 => 1,
            _ => 0,
        };
        let from = usize::try_from(offset).unwrap();
        let len = (buf.len() - spare).min(self.content.len() - from);
        buf[..len].copy_from_slice(&self.content[from..from + len]);
        Ok(())
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        if len == 0 {
            return Err(ErrorKind::InvalidInput.into());
        }
        blockdev_core::fits(offset, len, self.info.size)?;
        let border = 1 << 20;
        let run = match self.flaw {
            Flaw::CallsDataZero if offset >= border => {
                return Ok(Extent::new(ExtentKind::Zero, len));
            }
            Flaw::AnswersMoreThanAsked => border,
            _ => len,
        };
        let to_border = if offset < border {
            border - offset
        } else {
            len
        };
        Ok(Extent::data(run.min(to_border), offset))
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        match self.flaw {
            Flaw::TakesWrites => Ok(()),
            _ => Err(ErrorKind::ReadOnly.into()),
        }
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroFlags) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(ErrorKind::ReadOnly.into())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn every_flaw_is_caught() {
    let conforms = |flaw| {
        let device = Device::new(flaw);
        std::panic::catch_unwind(|| {
            readable(&device, &device.content);
            refuses_changes(&device);
        })
        .is_ok()
    };
    assert!(conforms(Flaw::None));
    for flaw in [
        Flaw::LeavesAByteUnfilled,
        Flaw::ReadsPastTheEnd,
        Flaw::CallsDataZero,
        Flaw::AnswersMoreThanAsked,
        Flaw::TakesWrites,
    ] {
        assert!(!conforms(flaw), "{flaw:?} went unseen");
    }
}

#[test]
fn huge_disks_are_looked_at_where_it_matters() {
    // A disk of zeros with one odd byte, by rule on one side and by hand on the other.
    let odd = (5u64 << 40) + 4097;
    let fill = move |buf: &mut [u8], offset: u64| {
        buf.fill(0);
        if let Some(at) = odd.checked_sub(offset)
            && at < buf.len() as u64
        {
            buf[usize::try_from(at).unwrap()] = 0xEE;
        }
    };
    let right = Model::new(8 << 40, fill);
    let device = Huge(odd, Device::new(Flaw::None));
    readable_at(&device, &right, &[odd]);
    let wrong = Model::new(8 << 40, |buf: &mut [u8], _| buf.fill(0));
    let seen = std::panic::catch_unwind(|| readable_at(&device, &wrong, &[odd]));
    assert!(seen.is_err());
}

struct Huge(u64, Device);

impl BlockDevice for Huge {
    fn info(&self) -> &DeviceInfo {
        static INFO: std::sync::OnceLock<DeviceInfo> = std::sync::OnceLock::new();
        INFO.get_or_init(|| DeviceInfo {
            size: 8 << 40,
            ..self.1.info.clone()
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        blockdev_core::fits(offset, buf.len() as u64, self.size())?;
        buf.fill(0);
        if let Some(at) = self.0.checked_sub(offset)
            && at < buf.len() as u64
        {
            buf[usize::try_from(at).unwrap()] = 0xEE;
        }
        Ok(())
    }

    fn block_status(&self, offset: u64, len: u64) -> Result<Extent> {
        if len == 0 {
            return Err(ErrorKind::InvalidInput.into());
        }
        blockdev_core::fits(offset, len, self.size())?;
        let page = self.0 / 4096 * 4096;
        Ok(if offset < page {
            Extent::new(ExtentKind::Zero, len.min(page - offset))
        } else if offset < page + 4096 {
            Extent::data(len.min(page + 4096 - offset), offset - page)
        } else {
            Extent::new(ExtentKind::Zero, len)
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.1.write_at(buf, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.1.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.1.discard(offset, len)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A layer that holds its first page and leaves the rest to a parent.
struct Child(DeviceInfo, Vec<blockdev_core::FileRef>, Option<u8>);

impl blockdev_core::Layer for Child {
    fn info(&self) -> &DeviceInfo {
        &self.0
    }

    fn file_refs(&self) -> &[blockdev_core::FileRef] {
        &self.1
    }

    fn next_extent(&self, offset: u64, len: u64) -> Result<Extent> {
        Ok(match 4096u64.checked_sub(offset) {
            Some(left) if left > 0 => Extent::data(len.min(left), offset),
            _ => Extent::new(ExtentKind::Absent, len),
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64, holes: &mut blockdev_core::Holes) -> Result<()> {
        let end = offset + buf.len() as u64;
        buf.fill(1);
        if end > 4096 && self.2.is_none() {
            let start = offset.max(4096);
            holes.push(blockdev_core::ByteRange::new(start, end - start).unwrap());
        }
        Ok(())
    }

    fn host(&self, _: blockdev_core::HostFile) -> Option<&dyn Storage> {
        None
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[test]
fn a_detached_disk_must_say_what_it_lacks() {
    let child = |invented| {
        let parent = blockdev_core::FileRef {
            role: blockdev_core::FileRole::Parent,
            names: Vec::new(),
            format: None,
            expected: Vec::new(),
            logical_sector_size: None,
        };
        let info = Device::new(Flaw::None).info;
        LoneLayer::new(Box::new(Child(info, vec![parent], invented)))
    };
    assert_eq!(detached(&child(None)), (2 << 20) - 4096);
    let zeros = child(Some(0));
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| detached(&zeros)));
    assert!(
        seen.is_err(),
        "zeros in place of the parent's bytes went unseen"
    );
}
