//! Reading guest bytes: one host read for each run.

use blockdev_core::{ByteRange, Error, ErrorKind, Holes, Result, Storage, StorageExt};

use super::decompress::Packed;
use crate::image::Qcow2Image;
use crate::meta::cluster::Source;

impl Qcow2Image {
    /// Fills what this image holds of `buf` from guest byte `offset`, and notes the rest in `holes`.
    /// The range lies inside the disk.
    pub(crate) fn read_runs(&self, buf: &mut [u8], offset: u64, holes: &mut Holes) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let run = self.next_run(at, (buf.len() - done) as u64)?;
            let len = usize::try_from(run.len).expect("no longer than the buffer");
            let part = &mut buf[done..done + len];
            match run.source {
                Source::Absent => {
                    holes.push(ByteRange::new(at, run.len).expect("inside the disk"));
                }
                Source::Zero(_) => part.fill(0),
                // A file that ends inside a cluster is normal: the missing bytes are zeros.
                Source::Data(place) => self.data()?.read_zero_padded(part, place)?,
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
            done += len;
        }
        Ok(())
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
