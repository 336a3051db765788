//! Another parent locator: the parent has moved, or is another file with the same content.

use blockdev_core::{Error, ErrorKind, Result};

use crate::image::VhdxImage;
use crate::known::PARENT_LOCATOR;
use crate::meta::locator::ParentLocator;
use crate::meta::metadata_edit::ItemChange;
use crate::{Linkage, ParentLink, VhdxError};

impl VhdxImage {
    /// Makes the image refer to the parent that `link` tells of, which is stable when this returns.
    /// Keys of the old locator that this library does not know are kept.
    ///
    /// Whether that parent's content is the one the image was made from is for the caller to see to:
    /// nothing else of the image changes, its identity included, so that its own children find it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an image that has no parent, and for what a
    /// locator cannot say; [`LimitExceeded`](ErrorKind::LimitExceeded) when there is no room for it;
    /// those of writing.
    pub fn relink(&mut self, link: &ParentLink) -> Result<()> {
        self.engine()?;
        let Some(old) = self.parent_locator() else {
            return Err(no_parent());
        };
        let mut new = locator_of(link)?;
        new.keep_unknown_of(old);
        self.announce_unseen(self.engine()?)?;
        self.change_items(&[ItemChange::Put(PARENT_LOCATOR, new.encode())])
    }

    /// Has the image know its parent again by `linkage`, which is stable when this returns; where the
    /// parent is stays as it was (§2.6.2.6.3).
    ///
    /// # Errors
    /// As [`relink`](Self::relink).
    pub fn set_linkage(&mut self, linkage: Linkage) -> Result<()> {
        self.engine()?;
        let Some(old) = self.parent_locator() else {
            return Err(no_parent());
        };
        let new = old.linked(linkage).map_err(invalid)?;
        if new == *old {
            return Ok(());
        }
        self.announce_unseen(self.engine()?)?;
        self.change_items(&[ItemChange::Put(PARENT_LOCATOR, new.encode())])
    }
}

fn no_parent() -> Error {
    let text = "the image is not differencing: it refers to no parent";
    Error::new(ErrorKind::InvalidInput, text)
}

fn invalid(error: VhdxError) -> Error {
    Error::new(ErrorKind::InvalidInput, error.to_string())
}

/// The locator that tells of `link`.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for what a locator cannot say.
pub(crate) fn locator_of(link: &ParentLink) -> Result<ParentLocator> {
    ParentLocator::of_link(link).map_err(invalid)
}
