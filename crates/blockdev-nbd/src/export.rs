//! A disk as clients see it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use blockdev_core::BlockDevice;

use crate::NbdError;
use crate::session::answer::Target;
use crate::session::offer::Offer;
use crate::session::status::Absent;

/// Longest name or description, in bytes ("Conventions").
const MAX_STRING: usize = 4096;

/// A disk under a name. Read-only unless [`writable`](Self::writable) says otherwise.
pub struct Export {
    pub(crate) name: String,
    description: String,
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) read_only: bool,
    depth: bool,
    absent: OnceLock<Absent>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("name", &self.name)
            .field("info", self.device.info())
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// `device` as the export `name`, which may be empty and has 4096 bytes at most.
    pub fn new(name: impl Into<String>, device: Arc<dyn BlockDevice>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            device,
            read_only: true,
            depth: true,
            absent: OnceLock::new(),
        }
    }

    /// With words for people who list exports, 4096 bytes at most.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Clients may write, if the device can be written to at all.
    #[must_use]
    pub fn writable(mut self) -> Self {
        let info = self.device.info();
        self.read_only = info.read_only || !info.caps.write;
        self
    }

    /// Whether clients may ask which layer of a chain decides, by `qemu:allocation-depth` (default true).
    #[must_use]
    pub fn allocation_depth(mut self, told: bool) -> Self {
        self.depth = told;
        self
    }

    pub(crate) fn check(&self) -> Result<(), NbdError> {
        let bad = |text: &str| text.len() > MAX_STRING || text.contains('\0');
        match bad(&self.name) || bad(&self.description) {
            true => Err(NbdError::Name),
            false => Ok(()),
        }
    }

    pub(crate) fn offer(&self, shared: bool) -> Offer {
        let offer = Offer::new(
            self.name.clone(),
            self.description.clone(),
            self.device.info(),
            self.read_only,
            shared,
        );
        Offer {
            depth: self.depth,
            ..offer
        }
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            device: &*self.device,
            absent: &self.absent,
        }
    }
}
