//! What a write engine implements once, so that the model, the crash explorer and the fault
//! injector can drive it.

use std::sync::Arc;

use blockdev_core::{BlockDevice, CheckReport, Error, ErrorKind, Result, Storage};

/// A change of the whole disk, made by the engine's concrete types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// Change the virtual size to so many bytes; new bytes read as zeros.
    Resize(u64),
    /// Keep the present content under a number.
    SnapshotCreate(u32),
    /// Make the kept content (and its size) the disk's own.
    SnapshotApply(u32),
    /// Forget kept content; the disk itself stays.
    SnapshotDelete(u32),
    /// Anything else that leaves size and content as they are: repair, a bitmap, a new name.
    Other(&'static str),
}

/// A format's engine under proof. All images are in memory.
pub trait CrashSubject {
    /// The open disk.
    type Device: BlockDevice;

    /// Name of the format for the closing line.
    fn format(&self) -> &str;

    /// Opens the image in `storage` as a whole disk, with its parents where the scenario has any.
    /// A writable open recovers what a crash left; one for reading changes no byte.
    ///
    /// # Errors
    /// Whatever the engine says; here always a finding.
    fn open(&self, storage: Arc<dyn Storage>, writable: bool) -> Result<Self::Device>;

    /// Checks the image in `storage` without changing a byte.
    ///
    /// # Errors
    /// Whatever the engine says; here always a finding.
    fn check(&self, storage: Arc<dyn Storage>) -> Result<CheckReport>;

    /// True when a crash may leave space that nothing refers to.
    fn leaks_allowed(&self) -> bool {
        true
    }

    /// Makes everything stable and gives the device up. A plain flush by default.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn close(&self, device: Self::Device) -> Result<()> {
        device.flush()
    }

    /// Carries out `control` on an open device and gives it back, or another one opened on the
    /// same `storage`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] by default.
    fn control(
        &self,
        device: Self::Device,
        storage: &Arc<dyn Storage>,
        control: Control,
    ) -> Result<Self::Device> {
        let _ = (device, storage);
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} knows no {control:?}", self.format()),
        ))
    }
}
