//! What the header says while an image is written to (qcow2 specification, "Header").

use blockdev_core::{Error, ErrorKind, Result};

use super::State;
use crate::image::Qcow2Image;
use crate::ondisk::features;
use crate::ondisk::header::FEATURES;

impl Qcow2Image {
    /// Before the first change: says that the image is being written to, where refcounts are kept
    /// lazily, and withdraws what a writer that does not keep it up would make untrue.
    pub(crate) fn announce(&self, state: &mut State) -> Result<()> {
        if state.announced {
            return Ok(());
        }
        let header = &self.first.header;
        if header.version >= 3 {
            let known = features::BITMAPS | features::RAW_EXTERNAL_DATA;
            let autoclear = header.autoclear_features & known;
            let marked = autoclear & features::BITMAPS != 0 && self.mark_bitmaps_in_use()?;
            state.dirty = header.has_lazy_refcounts();
            let incompatible =
                header.incompatible_features | if state.dirty { features::DIRTY } else { 0 };
            if (incompatible, autoclear)
                != (header.incompatible_features, header.autoclear_features)
            {
                self.write_features(incompatible, autoclear)?;
            } else if marked {
                self.sync_image()?;
            }
        }
        state.announced = true;
        Ok(())
    }

    /// Says that refcounts are not to be believed for now; version 2 cannot say it.
    pub(crate) fn mark_dirty(&self, state: &mut State) -> Result<()> {
        let header = &self.first.header;
        if header.version < 3 || state.dirty {
            return Ok(());
        }
        let known = features::BITMAPS | features::RAW_EXTERNAL_DATA;
        let incompatible = header.incompatible_features | features::DIRTY;
        self.write_features(incompatible, header.autoclear_features & known)?;
        state.dirty = true;
        Ok(())
    }

    /// After the last change: everything is in the file, refcounts included.
    pub(crate) fn withdraw(&self, state: &mut State) -> Result<()> {
        if state.dirty {
            let header = &self.first.header;
            let known = features::BITMAPS | features::RAW_EXTERNAL_DATA;
            let incompatible = header.incompatible_features & !features::DIRTY;
            self.write_features(incompatible, header.autoclear_features & known)?;
            state.dirty = false;
        }
        Ok(())
    }

    fn write_features(&self, incompatible: u64, autoclear: u64) -> Result<()> {
        let compatible = self.first.header.compatible_features;
        let words = [incompatible, compatible, autoclear].map(u64::to_be_bytes);
        self.pages.write_through(FEATURES, &words.concat())?;
        self.sync_image()
    }

    /// The error for metadata that contradicts itself at byte `offset`; the image is marked corrupt,
    /// and nothing more is written to it.
    pub(crate) fn condemn(&self, offset: u64, problem: &str) -> Error {
        if let Some(engine) = &self.engine
            && engine.check().is_ok()
        {
            engine.poison();
            let header = &self.first.header;
            if header.version >= 3 {
                let incompatible = header.incompatible_features | features::CORRUPT;
                // Whether or not it can be marked, the caller learns of the damage.
                let _ = self.write_features(incompatible, header.autoclear_features);
            }
        }
        Error::new(ErrorKind::Corrupt, problem.to_owned()).at("metadata", offset)
    }
}
