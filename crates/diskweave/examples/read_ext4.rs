//! A file out of an ext4 file system, in a partition, in a chain of a qcow2 over a VHDX over a VHDX.
//!
//! ```text
//!   /etc/motd ◄─ ext4-view ◄─ partition 1 ◄─ top.qcow2 ─► middle.vhdx ─► base.vhdx
//! ```
//!
//! `cargo run --example read_ext4` makes the chain from an image that the project ships, so that nothing
//! needs to be installed.

// An example shows what it does.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use diskweave::core::locate::ChainPolicy;
use diskweave::core::{BlockDevice, ZeroFlags};
use diskweave::{
    ChildImage, CloneOptions, ConvertOptions, DeviceCursor, NewImage, NoProgress, OpenDisk,
    clone_disk, convert, vhdx,
};
use ext4_view::{Ext4, Ext4Read};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let motd = run(dir.path())?;
    print!("{motd}");
    Ok(())
}

/// Makes the chain in `dir`, and reads the file.
pub fn run(dir: &Path) -> Result<String, Box<dyn Error>> {
    let top = make_chain(dir)?;
    let open = OpenDisk::new().policy(ChainPolicy::Beneath(dir.to_path_buf()));
    let disk: Arc<dyn BlockDevice> = Arc::new(open.open(top)?);
    let start = first_linux_partition(&disk)?;
    let partition = Partition { disk, start };
    let ext4 = Ext4::load(Box::new(partition))?;
    // Through a symbolic link of the guest's, which leads nowhere on the host.
    Ok(ext4.read_to_string("/motd")?)
}

/// A part of a disk, as the file system wants it: this is all that stands between the two libraries.
struct Partition {
    disk: Arc<dyn BlockDevice>,
    start: u64,
}

impl Ext4Read for Partition {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let at = self.start.checked_add(start_byte).ok_or("too far out")?;
        Ok(self.disk.read_at(dst, at)?)
    }
}

/// Where the first partition with a Linux file system begins, by the MBR: four entries of 16 bytes from
/// byte 446, each with its type in byte 4 and its first sector in bytes 8 to 11.
fn first_linux_partition(disk: &Arc<dyn BlockDevice>) -> Result<u64, Box<dyn Error>> {
    const LINUX: u8 = 0x83;
    // As `std::io` has it; `disk.read_at` would do as well.
    let mut cursor = DeviceCursor::new(Arc::clone(disk));
    let mut entries = [0; 66];
    cursor.seek(SeekFrom::Start(446))?;
    cursor.read_exact(&mut entries)?;
    if entries[64..] != [0x55, 0xaa] {
        return Err("the disk has no MBR".into());
    }
    let mut entries = entries[..64].chunks_exact(16);
    let entry = entries.find(|entry| entry[4] == LINUX);
    let entry = entry.ok_or("no partition for Linux")?;
    let sector = u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]);
    Ok(u64::from(sector) * 512)
}

/// A VHDX with the shipped disk, a VHDX child and a qcow2 child of that, which both hide what is in no
/// file of the guest's; the path of the last.
fn make_chain(dir: &Path) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let shipped = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/qcow2/guest.qcow2"
    );
    let (base, middle, top) = (
        dir.join("base.vhdx"),
        dir.join("middle.vhdx"),
        dir.join("top.qcow2"),
    );
    let mut image = vhdx::CreateOptions::new(0);
    image.block_size = 1 << 20;
    convert(
        &OpenDisk::new().open(shipped)?,
        &base,
        &NewImage::Vhdx(image),
        &ConvertOptions::default(),
        &NoProgress,
    )?;
    clone_disk(&base, &middle, &OpenDisk::new(), &CloneOptions::new())?;
    let qcow2 = CloneOptions::new().image(ChildImage::Format("qcow2".into()));
    // What is written into a parent is written before it has children.
    write_past_the_partition(dir, &middle)?;
    clone_disk(&middle, &top, &OpenDisk::new(), &qcow2)?;
    write_past_the_partition(dir, &top)?;
    Ok(top)
}

fn write_past_the_partition(dir: &Path, image: &Path) -> Result<(), Box<dyn Error>> {
    let open = OpenDisk::new().policy(ChainPolicy::Beneath(dir.to_path_buf()));
    let disk = open.writable().open(image)?;
    let last = disk.size() - 4096;
    disk.write_at(b"a guest's last sectors", last)?;
    disk.write_zeroes(last - 8192, 4096, ZeroFlags::default())?;
    disk.flush()?;
    Ok(disk.close()?)
}
