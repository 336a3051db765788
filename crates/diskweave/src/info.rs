//! What an image is made of.

use std::path::{Path, PathBuf};

use blockdev_chain::{Chain, FoundBy};
use blockdev_core::{ErrorKind, FileRef, FileRole, HostFile, Layer, Result, Storage};

use crate::registry;

/// What there is to say about one image of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The image's file.
    pub path: PathBuf,
    /// Name of its format.
    pub format: &'static str,
    /// Size of its virtual disk in bytes.
    pub virtual_size: u64,
    /// Length of its file in bytes.
    pub file_len: u64,
    /// Bytes that the host has set aside for its file; `None` where nobody can tell, as of a server's export.
    pub allocated_len: Option<u64>,
    /// Unit of allocation in bytes, where the format has one.
    pub block_size: Option<u32>,
    /// The parent as the image names it.
    pub parent: Option<FileRef>,
    /// The parent's file, where it was found.
    pub parent_path: Option<PathBuf>,
    /// How the image itself was found.
    pub found: FoundBy,
    /// The image was not closed cleanly.
    pub dirty: bool,
}

impl ImageInfo {
    /// Tells about every image of `chain`, the top first.
    ///
    /// # Errors
    /// [`Io`](blockdev_core::ErrorKind::Io) when the host cannot tell about a file.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use diskweave::{ImageInfo, OpenDisk};
    ///
    /// let disk = OpenDisk::new().open("disk.vhdx")?;
    /// for image in ImageInfo::of_chain(&disk)? {
    ///     println!("{}: {} bytes of {}", image.path.display(), image.virtual_size, image.format);
    /// }
    /// # Ok::<(), diskweave::core::Error>(())
    /// ```
    pub fn of_chain(chain: &Chain) -> Result<Vec<Self>> {
        let links: Vec<_> = chain.links().collect();
        links
            .iter()
            .zip(chain.layers())
            .enumerate()
            .map(|(depth, (link, layer))| {
                let below = links.get(depth + 1).and_then(|link| link.path);
                Self::of_layer(layer, link.path, link.found, below)
            })
            .collect()
    }

    fn of_layer(
        layer: &dyn Layer,
        path: Option<&Path>,
        found: &FoundBy,
        parent_path: Option<&Path>,
    ) -> Result<Self> {
        let info = layer.info();
        let host = layer.host(HostFile::Image);
        let parent = layer
            .file_refs()
            .iter()
            .find(|file| file.role == FileRole::Parent);
        Ok(Self {
            path: path.unwrap_or(Path::new("")).to_path_buf(),
            format: info.format,
            virtual_size: info.size,
            file_len: host.map_or(Ok(0), |file| file.len())?,
            allocated_len: host.map_or(Ok(Some(0)), allocated_len)?,
            block_size: info.block_size,
            parent: parent.cloned(),
            parent_path: parent_path.map(Path::to_path_buf),
            found: found.clone(),
            dirty: registry::is_dirty(layer),
        })
    }
}

fn allocated_len(file: &dyn Storage) -> Result<Option<u64>> {
    match file.allocated_len() {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        other => other.map(Some),
    }
}
