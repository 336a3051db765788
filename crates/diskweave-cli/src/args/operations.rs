//! Arguments of what changes chains, and of what tells them apart.

use std::path::PathBuf;

use clap::Args;

use super::{Cache, Image, Open, Output, ProgressStyle, WriteCache};
use crate::output::size;

/// How a long operation is watched.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Show progress
    #[arg(short, long = "show-progress")]
    pub(crate) progress: bool,
    /// How to show progress; a bar on a terminal if not said
    #[arg(long = "progress", value_enum, value_name = "HOW")]
    pub(crate) progress_style: Option<ProgressStyle>,
    /// Show nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Amend {
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    write_cache: WriteCache,
    /// What is changed: KEY=VALUE, several with commas between. Of a qcow2: compat, lazy_refcounts,
    /// refcount_bits, data_file, size; of a VHDX: subformat, size
    #[arg(short, long = "options", required = true, value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Accepted, as nothing is shown anyway
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    write_cache: WriteCache,
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// The image that is moved into, one of the parents; the nearest if not said
    #[arg(short, long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// The uppermost of the images that are moved, if that is not the image itself; the one above it
    /// refers to the base then
    #[arg(long, value_name = "FILE")]
    pub(crate) top: Option<PathBuf>,
    /// Leave in the image what was moved; of an image that was moved further than into its own parent
    /// that is so anyway
    #[arg(short = 'd', long)]
    pub(crate) keep: bool,
    /// Write no more than so many bytes a second
    #[arg(short, long, value_name = "BYTES", value_parser = size::parse)]
    pub(crate) rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rebase {
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    write_cache: WriteCache,
    /// Accepted: the page cache is used, whatever is said
    #[arg(short = 'T', long = "source-cache", value_enum, value_name = "MODE")]
    source_cache: Option<Cache>,
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// The new parent, "" for none. A relative name starts from the image's directory
    #[arg(short, long, value_name = "FILE")]
    pub(crate) backing: Option<String>,
    /// Format of the new parent
    #[arg(short = 'F', long = "backing-format", value_name = "FMT")]
    pub(crate) backing_format: Option<String>,
    /// Only refer to it: nothing is read or copied, and what the disk reads then is for you to know
    #[arg(short, long = "unsafe")]
    pub(crate) unchecked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stream {
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// The parent that the image is to refer to then; none if not said
    #[arg(short, long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Flatten {
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// Format of the source; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the new image; that of the source if not said
    #[arg(short = 'O', long = "output-format", value_name = "FMT")]
    pub(crate) output_format: Option<String>,
    /// Options of that format: KEY=VALUE, several with commas between
    #[arg(short, long = "options", value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// The top of the chain
    pub(crate) source: PathBuf,
    /// The image to write; replaced when the new one is whole
    pub(crate) destination: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// Format of the first image; guessed if not said
    #[arg(short, long = "a-format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the second image; guessed if not said
    #[arg(short = 'F', long = "b-format", value_name = "FMT")]
    pub(crate) second_format: Option<String>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// Write the differences to this new image, a child of the old disk, for `apply`
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Format of that image
    #[arg(
        short = 'O',
        long = "output-format",
        default_value = "qcow2",
        value_name = "FMT",
        requires = "to"
    )]
    pub(crate) output_format: String,
    /// Options of that format: KEY=VALUE, several with commas between
    #[arg(short, long = "options", value_name = "OPTIONS", requires = "to")]
    pub(crate) options: Vec<String>,
    /// The old disk; of one image alone its parent is taken for the old disk
    #[arg(value_name = "OLD")]
    pub(crate) first: PathBuf,
    /// The new disk
    #[arg(value_name = "NEW")]
    pub(crate) second: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// Format of the differences; guessed if not said
    #[arg(short, long = "diff-format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the disk; guessed if not said
    #[arg(short = 'F', long = "disk-format", value_name = "FMT")]
    pub(crate) disk_format: Option<String>,
    /// The differences: any child image
    pub(crate) diff: PathBuf,
    /// The disk that they are written into
    pub(crate) file: PathBuf,
}
