//! Arguments of what copies parts of disks, and of what measures requests.

use std::num::NonZeroU64;

use clap::{Args, ValueEnum};
use diskweave::OpenDisk;
use diskweave::core::locate::DirectOpener;
#[cfg(target_os = "linux")]
use diskweave::core::locate::UringOpener;

use super::{Cache, Image, Open, by};
use crate::output::size;

#[derive(Debug, Args)]
pub(crate) struct Dd {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the source; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the destination
    #[arg(
        short = 'O',
        long = "output-format",
        default_value = "raw",
        value_name = "FMT"
    )]
    pub(crate) output_format: String,
    /// if=SOURCE, of=DESTINATION, bs=BYTES of a block (512), count=BLOCKS from the start of the disk, and
    /// skip=BLOCKS of these which are passed over
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub(crate) operands: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) image: Image,
    /// The cache mode: none, off and directsync pass the page cache by
    #[arg(short = 't', long = "cache", value_enum, value_name = "MODE")]
    cache: Option<Cache>,
    /// How the parts of one request get to the host
    #[arg(
        short = 'i',
        long,
        value_enum,
        default_value = "threads",
        value_name = "HOW"
    )]
    aio: Aio,
    /// How many requests
    #[arg(short, long, default_value = "75000", value_name = "N")]
    pub(crate) count: NonZeroU64,
    /// How many of them are under way at once; no more than 64 threads send them
    #[arg(short, long, default_value = "64", value_name = "N")]
    pub(crate) depth: NonZeroU64,
    /// Where the first one starts
    #[arg(short, long, default_value = "0", value_name = "BYTES", value_parser = size::parse)]
    pub(crate) offset: u64,
    /// How long each is
    #[arg(short = 's', long, default_value = "4k", value_name = "BYTES", value_parser = size::parse)]
    pub(crate) buffer_size: u64,
    /// How much further each next one starts; as far as it is long if not said
    #[arg(short = 'S', long, value_name = "BYTES", value_parser = size::parse)]
    pub(crate) step_size: Option<u64>,
    /// Write, over what is there
    #[arg(short, long)]
    pub(crate) write: bool,
    /// The byte that is written
    #[arg(long, default_value = "0", value_name = "BYTE", requires = "write")]
    pub(crate) pattern: u8,
    /// Flush after each so many requests
    #[arg(long, default_value = "0", value_name = "N")]
    pub(crate) flush_interval: u64,
    /// Do not wait for the others before a flush
    #[arg(long)]
    pub(crate) no_drain: bool,
    /// Show nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Aio {
    /// One after the other
    Threads,
    /// All at once, where Linux lets them
    #[cfg(target_os = "linux")]
    #[value(name = "io_uring")]
    IoUring,
}

impl Bench {
    /// The library's options for the image.
    pub(crate) fn disk(&self) -> OpenDisk {
        let disk = match self.write {
            true => self.image.disk().writable(),
            false => self.image.disk(),
        };
        let direct = self.cache.is_some_and(Cache::is_direct);
        match self.aio {
            #[cfg(target_os = "linux")]
            Aio::IoUring => disk.opener(by(UringOpener { direct })),
            Aio::Threads if direct => disk.opener(by(DirectOpener)),
            Aio::Threads => disk,
        }
    }
}
