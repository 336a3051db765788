//! The file that holds an image's guest data, where that is not the image itself.

use blockdev_core::locate::{ChainPolicy, Found, Wanted};
use blockdev_core::{Error, ErrorKind, FileRef, FileRole, OpenMode, Result};

use crate::builder::ChainBuilder;
use crate::link::Link;
use crate::refusal::Refusals;
use crate::verify;

impl ChainBuilder<'_> {
    /// Opens the data file that `link`, below the images of `above`, refers to, and hands it over.
    /// Nothing is done where it refers to none, or where no file may be opened: then what is in the
    /// data file cannot be read, and all else can.
    pub(crate) fn attach_data(&self, above: &[Link], link: &mut Link) -> Result<()> {
        let mut refs = link.layer.file_refs().iter();
        let Some(reference) = refs.find(|reference| reference.role == FileRole::Data) else {
            return Ok(());
        };
        // The guest's bytes are written where they are.
        let mode = match link.layer.info().read_only {
            true => OpenMode::ReadOnly,
            false => OpenMode::ReadWrite,
        };
        let mut path = None;
        let found = match &self.policy {
            ChainPolicy::Deny => return Ok(()),
            ChainPolicy::Handles(resolver) => {
                let child = link.layer.info();
                resolver.resolve(&Wanted { reference, child })?
            }
            _ => {
                let found = self.data_by_name(reference, link, mode)?;
                path = Some(found.path);
                Some(found.storage)
            }
        };
        let storage = found.ok_or_else(|| {
            let message = format!("no file was supplied for the data file of {link}");
            Error::new(ErrorKind::NeedsParent, message)
        })?;
        let named = |error: Error| error.context(format_args!("data file of {link}"));
        let identity = storage.identity();
        verify::no_ring(above, identity).map_err(named)?;
        verify::no_ring(std::slice::from_ref(link), identity).map_err(named)?;
        if !matches!(self.policy, ChainPolicy::Handles(_)) {
            storage.lock(self.lock_for(mode)).map_err(named)?;
        }
        link.data_path = path;
        link.layer.attach(FileRole::Data, storage)
    }

    fn data_by_name(&self, reference: &FileRef, link: &Link, mode: OpenMode) -> Result<Found> {
        let mut refusals = Refusals::default();
        for name in &reference.names {
            match self.follow_name(name, link, mode) {
                Ok(found) => return Ok(found),
                Err(refusal) => refusals.push(name, refusal),
            }
        }
        Err(refusals.into_error("data file", link))
    }
}
