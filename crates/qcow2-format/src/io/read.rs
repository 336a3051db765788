//! Reading guest bytes: one host read for each run, and one call for those of several.

use std::mem::take;

use blockdev_core::{ByteRange, Error, ErrorKind, Holes, Result, Scattered, Storage, StorageExt};

use super::decompress::Packed;
use crate::image::Qcow2Image;
use crate::meta::cluster::Source;

impl Qcow2Image {
    /// Fills what this image holds of `buf` from guest byte `offset`, and notes the rest in `holes`.
    /// The range lies inside the disk.
    pub(crate) fn read_runs(&self, buf: &mut [u8], offset: u64, holes: &mut Holes) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        let mut scattered: Option<Scattered<'_, dyn Storage>> = None;
        while !rest.is_empty() {
            let run = self.next_run(at, rest.len() as u64)?;
            let len = usize::try_from(run.len).expect("no longer than the buffer");
            let (part, after) = take(&mut rest).split_at_mut(len);
            match run.source {
                Source::Absent => {
                    holes.push(ByteRange::new(at, run.len).expect("inside the disk"));
                }
                Source::Zero(_) => part.fill(0),
                // A file that ends inside a cluster is normal: the missing bytes are zeros.
                // Nearly every request has one run, for which nothing is gathered.
                Source::Data(place) if after.is_empty() && scattered.is_none() => {
                    self.data()?.read_zero_padded(part, place)?;
                }
                Source::Data(place) => match &mut scattered {
                    Some(scattered) => scattered.add(part, place)?,
                    None => scattered
                        .insert(Scattered::zero_padded(self.data()?))
                        .add(part, place)?,
                },
                Source::Compressed { offset, len } => {
                    let cluster = self.rules.geometry.cluster_size();
                    let within = usize::try_from(at % cluster).expect("at most 2 MiB");
                    let packed = Packed {
                        offset,
                        len,
                        guest: at - at % cluster,
                    };
                    self.unpacked.read(&*self.storage, packed, within, part)?;
                }
            }
            rest = after;
            at += run.len;
        }
        scattered.map_or(Ok(()), Scattered::read)
    }

    /// The file that holds guest data.
    pub(crate) fn data(&self) -> Result<&dyn Storage> {
        match &self.data_file {
            Some(file) => Ok(&**file),
            None if self.rules.has_data_file => Err(Error::new(
                ErrorKind::NeedsParent,
                "the bytes are in the external data file, which is not open",
            )),
            None => Ok(&*self.storage),
        }
    }
}
