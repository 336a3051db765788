//! Reading guest bytes: one host read for each run.

use blockdev_core::{ByteRange, ExtentKind, Holes, Result};

use crate::image::VhdxImage;
use crate::meta::bat::ReadSemantics;

impl VhdxImage {
    /// Fills what this file holds of `buf` from guest byte `offset`, and notes the rest in `holes`.
    /// The range lies inside the disk.
    pub(crate) fn read_runs(
        &self,
        buf: &mut [u8],
        offset: u64,
        holes: &mut Holes,
        semantics: ReadSemantics,
    ) -> Result<()> {
        let _pin = self.pin();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let run = self.next_run(at, (buf.len() - done) as u64, semantics)?;
            let len = usize::try_from(run.len).expect("no longer than the buffer");
            let part = &mut buf[done..done + len];
            match (run.kind, run.host) {
                (ExtentKind::Data, Some(host)) => self.storage().read_at(part, host.offset)?,
                (ExtentKind::Zero, _) => part.fill(0),
                _ => holes.push(ByteRange::new(at, run.len).expect("inside the disk")),
            }
            done += len;
        }
        Ok(())
    }
}
