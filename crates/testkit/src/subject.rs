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

/// A format's engine under proof. All files are in memory, in the order in which the scenario names
/// them; an engine of one file looks at the first.
pub trait CrashSubject {
    /// The open disk.
    type Device: BlockDevice;

    /// Name of the format for the closing line.
    fn format(&self) -> &str;

    /// Opens the image in `files` as a whole disk, with its parents where the scenario has any.
    /// A writable open recovers what a crash left; one for reading changes no byte.
    ///
    /// # Errors
    /// Whatever the engine says; here always a finding.
    fn open(&self, files: &[Arc<dyn Storage>], writable: bool) -> Result<Self::Device>;

    /// Checks the image in `files` without changing a byte.
    ///
    /// # Errors
    /// Whatever the engine says; here always a finding.
    fn check(&self, files: &[Arc<dyn Storage>]) -> Result<CheckReport>;

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
    /// same `files`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] by default.
    fn control(
        &self,
        device: Self::Device,
        files: &[Arc<dyn Storage>],
        control: Control,
    ) -> Result<Self::Device> {
        let _ = (device, files);
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} knows no {control:?}", self.format()),
        ))
    }

    /// Carries `control` out again on `files`, in which a crash cut it short, if rerunning is how such
    /// an operation is finished. It may have been begun only, or be all but over.
    ///
    /// # Errors
    /// Whatever the engine says; here always a finding.
    fn resume(&self, files: &[Arc<dyn Storage>], control: Control) -> Result<Option<Self::Device>> {
        let _ = (files, control);
        Ok(None)
    }
}
