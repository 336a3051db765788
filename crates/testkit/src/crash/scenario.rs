//! A story to crash in: the files, what the disk reads at its start, and what the guest does.

use std::fmt;

use blockdev_core::Result;

use super::{Allowed, CrashSubject, Driver, Image};

type Script<'a, S> = Box<dyn Fn(&mut Driver<'_, S>) -> Result<()> + 'a>;

/// One story. It must do the same each time it is told, so that a state can be shown again.
pub struct Scenario<'a, S: CrashSubject> {
    /// For reports.
    pub name: String,
    /// The files at the start, all of them durable.
    pub images: Vec<Image>,
    pub(crate) content: Option<Image>,
    pub(crate) allowed: Allowed,
    pub(crate) script: Script<'a, S>,
}

impl<S: CrashSubject> fmt::Debug for Scenario<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .field(
                "image_bytes",
                &self.images.iter().map(Image::len).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl<'a, S: CrashSubject> Scenario<'a, S> {
    /// The story that `script` tells, beginning with `image`.
    pub fn new(
        name: impl Into<String>,
        image: impl Into<Image>,
        script: impl Fn(&mut Driver<'_, S>) -> Result<()> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            images: vec![image.into()],
            content: None,
            allowed: Allowed::default(),
            script: Box::new(script),
        }
    }

    /// The same, with one more file beside the first.
    #[must_use]
    pub fn beside(mut self, image: impl Into<Image>) -> Self {
        self.images.push(image.into());
        self
    }

    /// The same, told what the disk reads at the start (parents included). Otherwise the subject's
    /// own reading of the whole and clean image is believed.
    #[must_use]
    pub fn content(mut self, content: impl Into<Image>) -> Self {
        self.content = Some(content.into());
        self
    }

    /// The same, with what the format permits beyond the strict rule.
    #[must_use]
    pub fn allowed(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }
}
