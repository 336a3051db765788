//! The image that a chain begins with.

use std::path::PathBuf;
use std::sync::Arc;

use blockdev_core::{Layer, Storage};

/// The image that a chain begins with.
pub struct Top {
    pub(crate) source: Source,
    pub(crate) path: Option<PathBuf>,
}

pub(crate) enum Source {
    Layer(Box<dyn Layer>),
    Storage {
        storage: Arc<dyn Storage>,
        format: String,
    },
}

impl std::fmt::Debug for Top {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Top")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Top {
    /// An image that is to be opened as `format`, by the builder's options.
    #[must_use]
    pub fn storage(storage: Arc<dyn Storage>, format: impl Into<String>) -> Self {
        let format = format.into();
        Self {
            source: Source::Storage { storage, format },
            path: None,
        }
    }

    /// An image that is open already.
    #[must_use]
    pub fn layer(layer: Box<dyn Layer>) -> Self {
        Self {
            source: Source::Layer(layer),
            path: None,
        }
    }

    /// The same, known to lie at `path`: the relative names it gives are followed from there.
    ///
    /// Without a path, relative names are followed from the policy's directory, if it has one.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }
}
