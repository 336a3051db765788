//! Reading guest bytes: one host read for each run, and one call for those of several.

use std::mem::take;

use blockdev_core::{ByteRange, ExtentKind, Holes, Result, Scattered, Storage};

use super::extents::Walk;
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
        let mut walk = Walk::new(self, semantics);
        let mut rest = buf;
        let mut at = offset;
        let mut scattered: Option<Scattered<'_, dyn Storage>> = None;
        while !rest.is_empty() {
            let run = walk.next_run(at, rest.len() as u64)?;
            let len = usize::try_from(run.len).expect("no longer than the buffer");
            let (part, after) = take(&mut rest).split_at_mut(len);
            match (run.kind, run.host) {
                // Nearly every request has one run, for which nothing is gathered.
                (ExtentKind::Data, Some(host)) if after.is_empty() && scattered.is_none() => {
                    self.storage().read_at(part, host.offset)?;
                }
                (ExtentKind::Data, Some(host)) => scattered
                    .get_or_insert_with(|| Scattered::new(self.storage()))
                    .add(part, host.offset)?,
                (ExtentKind::Zero, _) => part.fill(0),
                _ => holes.push(ByteRange::new(at, run.len).expect("inside the disk")),
            }
            rest = after;
            at += run.len;
        }
        scattered.map_or(Ok(()), Scattered::read)
    }
}
