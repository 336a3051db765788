//! Disks for crates that know partition tables.

use blockdev_core::{BlockDevice, Error, ErrorKind, Result};
use gpt_disk_io::BlockIo;
use gpt_disk_io::gpt_disk_types::{BlockSize, Lba};

/// A disk as the blocks that [`gpt_disk_io`] reads and writes: its logical sectors.
///
/// # Example
///
/// ```no_run
/// use diskweave::{GptDisk, OpenDisk};
/// use gpt_disk_io::Disk;
///
/// let disk = OpenDisk::new().open("disk.vhdx")?;
/// let mut gpt = Disk::new(GptDisk::new(&disk)?)?;
/// let header = gpt.read_primary_gpt_header(&mut [0; 512]).expect("there is a table");
/// println!("{header}");
/// # Ok::<(), diskweave::core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct GptDisk<'a> {
    device: &'a dyn BlockDevice,
    block_size: BlockSize,
}

impl std::fmt::Debug for GptDisk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GptDisk")
            .field("info", self.device.info())
            .finish_non_exhaustive()
    }
}

impl<'a> GptDisk<'a> {
    /// The blocks of `device`.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a sector size that partition tables do not know.
    pub fn new(device: &'a dyn BlockDevice) -> Result<Self> {
        let sector = device.info().logical_sector_size;
        let block_size = BlockSize::new(sector).ok_or_else(|| {
            let text = format!("logical sectors of {sector} bytes in a partition table");
            Error::new(ErrorKind::Unsupported, text)
        })?;
        Ok(Self { device, block_size })
    }

    /// Where block `lba` begins, if `len` bytes from there are whole blocks.
    fn offset(&self, lba: Lba, len: usize) -> Result<u64> {
        if !self.block_size.is_multiple_of_block_size(len) {
            let text = format!("{len} bytes are not whole blocks");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let offset = lba.to_u64().checked_mul(self.block_size.to_u64());
        offset.ok_or_else(|| ErrorKind::OutOfRange.into())
    }
}

impl BlockIo for GptDisk<'_> {
    type Error = Error;

    fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn num_blocks(&mut self) -> Result<u64> {
        Ok(self.device.size() / self.block_size.to_u64())
    }

    fn read_blocks(&mut self, start_lba: Lba, dst: &mut [u8]) -> Result<()> {
        let offset = self.offset(start_lba, dst.len())?;
        self.device.read_at(dst, offset)
    }

    fn write_blocks(&mut self, start_lba: Lba, src: &[u8]) -> Result<()> {
        let offset = self.offset(start_lba, src.len())?;
        self.device.write_at(src, offset)
    }

    fn flush(&mut self) -> Result<()> {
        self.device.flush()
    }
}
