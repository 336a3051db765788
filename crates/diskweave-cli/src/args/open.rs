//! How images are opened: by what trust, in what state, and past the page cache or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_nbd::NbdOpener;
use clap::{Args, ValueEnum};
use diskweave::OpenDisk;
use diskweave::core::locate::{ChainPolicy, DirectOpener, Opener};
use diskweave::core::{LockMode, OpenOptions, Recovery};

/// How images are opened.
#[derive(Debug, Args)]
pub(crate) struct Open {
    /// Read an image that another process is writing to
    #[arg(short = 'U', long = "force-share")]
    force_share: bool,

    /// Which files an image may name as its parents
    #[arg(long, value_enum, default_value_t = Parents::Beneath, value_name = "WHICH")]
    parents: Parents,

    /// Accept a parent that is not the one the child was made from
    #[arg(long)]
    any_parent: bool,

    /// Format of parents whose child declares none; with --any-parent also of a VHDX child's
    #[arg(long, value_name = "FMT")]
    parent_format: Option<String>,

    /// What to do with an image that was not closed cleanly; no file is changed
    #[arg(long, value_enum, default_value_t = Unclean::Auto, value_name = "HOW")]
    recovery: Unclean,

    /// Refuse what the format's specification reserves or this program does not know
    #[arg(long)]
    strict_format: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Parents {
    /// None: only the image itself is opened
    None,
    /// Those below the directory of the image, by relative names
    Beneath,
    /// Any file at all
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unclean {
    /// Recover it in memory
    Auto,
    /// Refuse it
    Refuse,
    /// Show it as it lies on disk
    Ignore,
}

impl Open {
    /// As QEMU opens images: with whatever file they name.
    pub(crate) fn trusting(force_share: bool) -> Self {
        Self {
            force_share,
            parents: Parents::Any,
            any_parent: false,
            parent_format: None,
            recovery: Unclean::Auto,
            strict_format: false,
        }
    }

    /// True when an image that is being written to may be read.
    pub(crate) fn shared(&self) -> bool {
        self.force_share
    }

    /// How one image is opened, apart from its parents.
    pub(crate) fn image_options(&self) -> OpenOptions {
        let recovery = match self.recovery {
            Unclean::Auto => Recovery::Auto,
            Unclean::Refuse => Recovery::Refuse,
            Unclean::Ignore => Recovery::Ignore,
        };
        OpenOptions::read_only()
            .with_recovery(recovery)
            .with_strict(self.strict_format)
    }

    /// The library's options for the image at `path`, of `format` if one was said.
    pub(crate) fn disk(&self, path: &Path, format: Option<&String>) -> OpenDisk {
        let directory = match path.parent() {
            // It has no directory, and no relative name is followed from it.
            _ if NbdOpener::is_export(path) => PathBuf::from("."),
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let policy = match self.parents {
            Parents::None => ChainPolicy::Deny,
            Parents::Beneath => ChainPolicy::Beneath(directory),
            Parents::Any => ChainPolicy::Any,
        };
        let mut disk = OpenDisk::new()
            .policy(policy)
            .options(self.image_options())
            .opener(Arc::new(NbdOpener::default()))
            .verify_linkage(!self.any_parent);
        if self.force_share {
            disk = disk.lock(LockMode::Unprotected);
        }
        if let Some(format) = &self.parent_format {
            disk = disk.parent_format(format);
        }
        match format {
            Some(format) => disk.format(format),
            None => disk,
        }
    }
}

/// How files are cached. What writes is on stable storage at the end, whatever is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    None,
    Off,
    Directsync,
    Writeback,
    Writethrough,
    Unsafe,
}

impl Cache {
    /// Past the page cache.
    pub(crate) fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::Off | Self::Directsync)
    }
}

/// The cache mode of what is written.
#[derive(Debug, Args)]
pub(crate) struct WriteCache {
    /// Accepted: everything is on stable storage at the end, whatever is said
    #[arg(short = 't', long = "cache", value_enum, value_name = "MODE")]
    cache: Option<Cache>,
}

/// The cache mode of what is read.
#[derive(Debug, Args)]
pub(crate) struct ReadCache {
    /// none, off and directsync read past the page cache
    #[arg(short = 'T', long = "source-cache", value_enum, value_name = "MODE")]
    source_cache: Option<Cache>,
}

impl ReadCache {
    /// `disk`, opened as was said.
    pub(crate) fn open(&self, disk: OpenDisk) -> OpenDisk {
        match self.source_cache {
            Some(cache) if cache.is_direct() => disk.opener(by(DirectOpener)),
            _ => disk,
        }
    }
}

/// Exports of servers, and files of the host by `files`.
pub(crate) fn by(files: impl Opener + 'static) -> Arc<NbdOpener> {
    Arc::new(NbdOpener::default().files(Arc::new(files)))
}
