//! Names of exports where names of files are taken.

use std::path::Path;
use std::sync::Arc;

use blockdev_core::locate::{HostOpener, Opener};
use blockdev_core::{Error, ErrorKind, FileOptions, ReadAhead, ReadOnlyStorage, Result, Storage};

use crate::{ClientOptions, NbdStorage, uri};

/// Opens the exports of NBD servers by their names, and everything else as another opener does.
///
/// The names are those of [`NbdStorage::connect`], as the caller says them. One that an image gives is
/// followed under [`ChainPolicy::Any`](blockdev_core::locate::ChainPolicy::Any) alone: from an image of a
/// stranger no server is asked. A file that is called like an export is said with its directory:
/// `./nbd:host:1`.
///
/// Small reads that go on from each other, as of an image's tables, are asked for together ([`ReadAhead`]);
/// of what other clients write meanwhile may be read what was there before.
///
/// Nobody is kept from an export by another's use of it: NBD knows no locks.
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use blockdev_core::FileOptions;
/// use blockdev_core::locate::Opener;
/// use blockdev_nbd::NbdOpener;
///
/// // To be handed to whatever takes an opener, as `diskweave::OpenDisk` does.
/// let opener = Arc::new(NbdOpener::default());
/// let export = opener.open("nbd://127.0.0.1/disk".as_ref(), FileOptions::read_only())?;
/// println!("{} bytes", export.len()?);
/// # Ok::<(), blockdev_core::Error>(())
/// ```
#[derive(Clone)]
pub struct NbdOpener {
    options: ClientOptions,
    files: Arc<dyn Opener>,
}

impl std::fmt::Debug for NbdOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NbdOpener")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Default for NbdOpener {
    fn default() -> Self {
        Self::new(ClientOptions::default())
    }
}

impl NbdOpener {
    /// For servers that are borne with as `options` say, and files of the host.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self {
            options,
            files: Arc::new(HostOpener),
        }
    }

    /// The same, with `files` for whatever is no export.
    #[must_use]
    pub fn files(mut self, files: Arc<dyn Opener>) -> Self {
        self.files = files;
        self
    }

    /// True of what is the name of an export, sound or not.
    #[must_use]
    pub fn is_export(name: &Path) -> bool {
        // What is no Unicode cannot be said in a URI but by percent signs.
        uri::is_export(&name.to_string_lossy())
    }
}

impl Opener for NbdOpener {
    fn open(&self, path: &Path, options: FileOptions) -> Result<Arc<dyn Storage>> {
        if !Self::is_export(path) {
            return self.files.open(path, options);
        }
        let Some(uri) = path.to_str() else {
            let text = "the name of an export is Unicode; other bytes are said by percent signs";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        let export = Arc::new(NbdStorage::connect(uri, &self.options)?);
        let export: Arc<dyn Storage> = Arc::new(ReadAhead::new(export));
        match (options.writable, export.is_read_only()) {
            (false, _) => Ok(Arc::new(ReadOnlyStorage::new(export))),
            (true, false) => Ok(export),
            (true, true) => Err(Error::new(ErrorKind::ReadOnly, "the export is read-only")),
        }
    }

    fn open_beneath(
        &self,
        root: &Path,
        name: &Path,
        options: FileOptions,
    ) -> Result<Arc<dyn Storage>> {
        self.files.open_beneath(root, name, options)
    }

    fn is_remote(&self, name: &Path) -> bool {
        Self::is_export(name) || self.files.is_remote(name)
    }
}
