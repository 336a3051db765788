//! The command line's arguments.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use diskweave::{OpenDisk, SnapshotName};

use crate::output::size;
use crate::snapshot_name;

mod open;
mod operations;
mod requests;
mod serve;

pub(crate) use open::{Cache, Open, ReadCache, WriteCache, by};
pub(crate) use operations::{Amend, Apply, Commit, Diff, Flatten, Rebase, Stream, Watch};
pub(crate) use requests::{Bench, Dd};
pub(crate) use serve::Serve;

/// Disk images: raw, qcow2 and VHDX, alone and in chains.
#[derive(Debug, Parser)]
#[command(
    name = "diskweave",
    version,
    propagate_version = true,
    after_help = "Called qemu-img or qemu-nbd, or as 'diskweave --compat=qemu-img …', it takes the place of that \
                  tool: its arguments, its messages, and its trust in what images name."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell what an image is
    #[command(
        after_help = "Examples:\n  diskweave info disk.qcow2\n  diskweave info --backing-chain --output json child.vhdx"
    )]
    Info(Info),
    /// Show what each part of a disk is, and where it is stored
    Map(Map),
    /// Make an empty image, or one over a backing file
    #[command(
        after_help = "Examples:\n  diskweave create -f qcow2 disk.qcow2 64G\n  diskweave create -f vhdx -b base.qcow2 -F qcow2 child.vhdx"
    )]
    Create(Create),
    /// Tell how much space an image will take, before it is made
    Measure(Measure),
    /// Write a disk out as another image
    #[command(
        after_help = "Examples:\n  diskweave convert -p -O vhdx disk.qcow2 disk.vhdx\n  diskweave convert -c -O qcow2 disk.raw packed.qcow2\n  diskweave convert -n -O raw disk.vhdx nbd://localhost/disk"
    )]
    Convert(Convert),
    /// Compare what two disks read: exit code 0 the same, 1 different, 2 failed
    Compare(Compare),
    /// Check an image: exit code 0 clean, 1 failed, 2 corrupt, 3 leaks, 63 nothing to check
    Check(Check),
    /// Show an image's structures, field by field
    Sections(Sections),
    /// List, take, apply or delete internal snapshots of an image
    Snapshot(Snapshot),
    /// List the bitmaps of a qcow2 image
    Bitmap(Bitmap),
    /// Write a part of a disk out as another image: if=SOURCE of=DESTINATION [bs=] [count=] [skip=]
    Dd(Dd),
    /// Send an image many requests, and tell how long they took
    Bench(Bench),
    /// Give a disk another size
    Resize(Resize),
    /// Change what an image is: version, names, type; the disk stays what it reads
    Amend(Amend),
    /// Make a VHDX as short as it can be, in place
    Compact(Compact),
    /// Have a child refer to its parent where that is now
    Relink(Relink),
    /// Move what an image holds into one of its parents
    #[command(
        after_help = "Examples:\n  diskweave commit child.qcow2\n  diskweave commit -b base.qcow2 --top middle.qcow2 top.qcow2"
    )]
    Commit(Commit),
    /// Put another disk below an image, which reads the same over it
    #[command(
        after_help = "Examples:\n  diskweave rebase -b other.vhdx -F vhdx child.qcow2\n  diskweave rebase -u -b moved/base.qcow2 -F qcow2 child.qcow2"
    )]
    Rebase(Rebase),
    /// Copy what an image has from its parents into it, so that it needs them no more
    Stream(Stream),
    /// Write a chain out as one image that needs no other
    Flatten(Flatten),
    /// Show where two disks differ: exit code 0 nowhere, 1 somewhere, 2 failed
    #[command(
        after_help = "Examples:\n  diskweave diff old.qcow2 new.vhdx\n  diskweave diff --to changes.qcow2 old.qcow2 new.vhdx"
    )]
    Diff(Diff),
    /// Write differences into a disk
    Apply(Apply),
    /// Write what can be read of a damaged image out as another one; takes what convert takes
    Salvage(Convert),
    /// Show an image and its parents: how each was found, and whether it belongs
    Chain(Chain),
    /// Make a child that reads as its base until it is written to
    Clone(Child),
    /// Give a disk another name, and put a child of it in its place
    #[command(after_help = "Examples:\n  diskweave fork disk.qcow2 disk-base.qcow2")]
    Fork(Fork),
    /// Let NBD clients read a disk, and write to it if they may
    #[command(
        after_help = "Examples:\n  diskweave serve -t -k disk.sock disk.qcow2 &\n  nbdcopy nbd+unix:///?socket=disk.sock copy.raw"
    )]
    Serve(Serve),
    /// List the images in a directory that need a file: exit code 0 none, 1 failed, 2 some do or it
    /// could not be told
    Dependents(Dependents),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Human,
    /// For programs
    Json,
}

/// One image, and how it is opened.
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the image; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    format: Option<String>,
    /// The image
    pub(crate) file: PathBuf,
}

impl Image {
    /// The image at `file`, of `format` if one was said.
    pub(crate) fn new(open: Open, format: Option<String>, file: &Path) -> Self {
        Self {
            open,
            format,
            file: file.to_path_buf(),
        }
    }

    /// The library's options for it.
    pub(crate) fn disk(&self) -> OpenDisk {
        self.open.disk(&self.file, self.format.as_ref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    pub(crate) image: Image,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// Tell about the parents as well
    #[arg(long)]
    pub(crate) backing_chain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Map {
    #[command(flatten)]
    pub(crate) image: Image,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// First byte to tell about
    #[arg(short, long, default_value = "0", value_name = "BYTES", value_parser = size::parse)]
    pub(crate) start_offset: u64,
    /// How many bytes to tell about
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = size::parse)]
    pub(crate) max_length: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the image
    #[arg(short, long = "format", default_value = "raw", value_name = "FMT")]
    pub(crate) format: String,
    /// Options of the format: KEY=VALUE, several with commas between
    #[arg(short, long = "options", value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// The image that is read where the new one holds nothing; a relative name starts from the new
    /// image's directory
    #[arg(short, long = "backing", value_name = "FILE")]
    pub(crate) backing: Option<String>,
    /// Format of the backing file; need not be said of a VHDX over a VHDX
    #[arg(short = 'F', long = "backing-format", value_name = "FMT")]
    pub(crate) backing_format: Option<String>,
    /// Do not open the backing file, as is possible for a qcow2
    #[arg(short, long = "backing-unsafe")]
    pub(crate) unopened: bool,
    /// Accepted, as nothing is shown anyway
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The image; replaced when the new one is whole
    pub(crate) file: PathBuf,
    /// Size of the disk; that of the backing file if not said
    #[arg(value_parser = size::parse)]
    pub(crate) size: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    write_cache: WriteCache,
    #[command(flatten)]
    pub(crate) read_cache: ReadCache,
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
    /// Options of the destination's format: KEY=VALUE, several with commas between
    #[arg(short, long = "options", value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Store only what differs from this image, which the new one names as its backing file;
    /// a relative name starts from the new image's directory
    #[arg(short = 'B', long = "backing", value_name = "FILE")]
    pub(crate) backing: Option<String>,
    /// Format of the backing file; need not be said of a VHDX over a VHDX
    #[arg(short = 'F', long = "backing-format", value_name = "FMT")]
    pub(crate) backing_format: Option<String>,
    /// Pack the clusters of a qcow2 that get shorter by it
    #[arg(short, long)]
    pub(crate) compress: bool,
    /// Show progress
    #[arg(short, long = "show-progress")]
    pub(crate) progress: bool,
    /// How to show progress; a bar on a terminal if not said
    #[arg(long = "progress", value_enum, value_name = "HOW")]
    pub(crate) progress_style: Option<ProgressStyle>,
    /// Show nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make holes of zeros that are at least so long; 0 for none
    #[arg(short = 'S', long = "sparse-size", default_value = "4k", value_name = "BYTES",
          value_parser = size::parse)]
    pub(crate) sparse_size: u64,
    /// How many parts of the disk are dealt with at once
    #[arg(short = 'm', long = "parallel", value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Read the disk as this internal snapshot has it: an id or a name, or snapshot.id=ID,
    /// snapshot.name=NAME or both
    #[arg(short = 'l', long = "snapshot", value_name = "SNAPSHOT", value_parser = snapshot_name::parse)]
    pub(crate) snapshot: Option<SnapshotName>,
    /// Write into the destination, an image that is there and long enough. Nothing is made beside
    /// it: a failure leaves a part of the new content
    #[arg(short = 'n', long = "no-create")]
    pub(crate) existing: bool,
    /// The destination reads as zeros already, which need not be written
    #[arg(long, requires = "existing")]
    pub(crate) target_is_zero: bool,
    /// Take zeros for what cannot be read, and tell what that was
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Accepted, as parts of the disk are always written in any order
    #[arg(short = 'W', long = "oob")]
    pub(crate) out_of_order: bool,
    /// The disk to read; of several each follows the one before, on whole sectors of 512 bytes
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<PathBuf>,
    /// The image to write; replaced when the new one is whole
    #[arg(required = true)]
    pub(crate) destination: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// A bar with rate and time left
    Bar,
    /// One JSON object a line, on standard error
    Json,
    /// Nothing
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) read_cache: ReadCache,
    /// Format of the first image; guessed if not said
    #[arg(short, long = "a-format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the second image; guessed if not said
    #[arg(short = 'F', long = "b-format", value_name = "FMT")]
    pub(crate) second_format: Option<String>,
    /// Sizes and allocation must be the same too
    #[arg(short, long)]
    pub(crate) strict: bool,
    /// Show progress
    #[arg(short, long = "show-progress")]
    pub(crate) progress: bool,
    /// Show nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The first image
    pub(crate) first: PathBuf,
    /// The second image
    pub(crate) second: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    pub(crate) read_cache: ReadCache,
    /// Repair the image: leaks alone, or all that takes no guess
    #[arg(short, long, value_enum, value_name = "WHAT")]
    pub(crate) repair: Option<Repair>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// Show nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Repair {
    /// Space to which nothing refers
    Leaks,
    /// Everything that can be repaired without a guess
    All,
}

#[derive(Debug, Args)]
pub(crate) struct Sections {
    #[command(flatten)]
    pub(crate) open: Open,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// The image
    pub(crate) file: PathBuf,
    /// Which structure
    #[arg(value_enum)]
    pub(crate) section: Section,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// File type identifier and both headers
    Header,
    /// Both region tables
    Region,
    /// Metadata table and items
    Metadata,
    /// Block allocation table: the entries that are not 0
    Bat,
    /// Log entries
    Log,
}

#[derive(Debug, Args)]
pub(crate) struct Chain {
    #[command(flatten)]
    pub(crate) image: Image,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) image: Image,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// List them, which is done if nothing else is said
    #[arg(short, long, group = "what")]
    list: bool,
    /// Take one of this name
    #[arg(short, long, value_name = "NAME", group = "what")]
    pub(crate) create: Option<String>,
    /// Make the disk what it was when the one of this id or name was taken
    #[arg(short, long, value_name = "NAME", group = "what")]
    pub(crate) apply: Option<String>,
    /// Delete the one of this id or name
    #[arg(short, long, value_name = "NAME", group = "what")]
    pub(crate) delete: Option<String>,
    /// Show nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bitmap {
    #[command(flatten)]
    pub(crate) image: Image,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, Args)]
pub(crate) struct Relink {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the parent; that which the child declares if not said
    #[arg(short = 'F', long = "backing-format", value_name = "FMT")]
    pub(crate) backing_format: Option<String>,
    /// Format of the child; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Show nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The child
    pub(crate) file: PathBuf,
    /// The parent; a relative name starts from the child's directory. If not said, the one that is
    /// found, of which all names are made right
    pub(crate) parent: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Resize {
    #[command(flatten)]
    pub(crate) image: Image,
    /// Allow a smaller size, by which the disk's end is lost
    #[arg(long)]
    pub(crate) shrink: bool,
    /// Show nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The new size; with + or - before it, how much larger or smaller
    #[arg(allow_hyphen_values = true)]
    pub(crate) size: String,
}

#[derive(Debug, Args)]
pub(crate) struct Measure {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the source; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the image to be made
    #[arg(
        short = 'O',
        long = "output-format",
        default_value = "raw",
        value_name = "FMT"
    )]
    pub(crate) output_format: String,
    /// Options of that format: KEY=VALUE, several with commas between
    #[arg(short, long = "options", value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// Of an empty disk of so many bytes
    #[arg(long, value_name = "BYTES", value_parser = size::parse, conflicts_with = "file",
          required_unless_present = "file")]
    pub(crate) size: Option<u64>,
    /// Of the disk as this internal snapshot has it: an id or a name, or snapshot.id=ID,
    /// snapshot.name=NAME or both
    #[arg(short = 'l', long = "snapshot", value_name = "SNAPSHOT", conflicts_with = "size",
          value_parser = snapshot_name::parse)]
    pub(crate) snapshot: Option<SnapshotName>,
    /// The disk to be written out
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Child {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the base; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the child; the base's if not said, and qcow2 over a raw one
    #[arg(short = 'O', long = "output-format", value_name = "FMT")]
    pub(crate) output_format: Option<String>,
    /// Options of the child's format: KEY=VALUE, several with commas between
    #[arg(short, long = "options", value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Replace the child if it is there, unless it is one of the base's own files
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The disk that the child reads as, and which must not be written to from then on
    pub(crate) base: PathBuf,
    /// The child
    pub(crate) child: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    #[command(flatten)]
    pub(crate) open: Open,
    /// Format of the disk; guessed if not said
    #[arg(short, long = "format", value_name = "FMT")]
    pub(crate) format: Option<String>,
    /// Format of the child; the disk's if not said, but one must be said of a raw disk
    #[arg(short = 'O', long = "output-format", value_name = "FMT")]
    pub(crate) output_format: Option<String>,
    /// Show nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The disk; its name is the child's then
    pub(crate) disk: PathBuf,
    /// The name that what is there now gets, on the same file system
    pub(crate) base: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Dependents {
    #[command(flatten)]
    pub(crate) open: Open,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// Look into the directories below as well
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// The file
    pub(crate) file: PathBuf,
    /// Where to look; the file's own directory if not said
    pub(crate) directory: Option<PathBuf>,
}
