//! Another parent locator: the parent has moved, or is another file with the same content.

use blockdev_core::{Error, ErrorKind, Result};

use crate::image::VhdxImage;
use crate::known::PARENT_LOCATOR;
use crate::meta::locator::ParentLocator;
use crate::meta::metadata_edit::ItemChange;
use crate::parent_link::ParentLink;

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
            let text = "the image is not differencing: it refers to no parent";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        let mut new = locator_of(link)?;
        new.keep_unknown_of(old);
        self.announce_unseen(self.engine()?)?;
        self.change_items(&[ItemChange::Put(PARENT_LOCATOR, new.encode())])
    }
}

/// The locator that tells of `link`.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for what a locator cannot say.
pub(crate) fn locator_of(link: &ParentLink) -> Result<ParentLocator> {
    ParentLocator::of_link(link)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))
}
