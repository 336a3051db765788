//! Extents: what a run of a disk is made of, without reading it.

/// What a run of guest bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored bytes.
    Data,
    /// Reads as zeros by the layer's own word; whatever lies below is hidden.
    Zero,
    /// The layer says nothing of it: the parent rules, or zeros where there is none.
    Absent,
    /// Stored, but packed: one host place does not map to one guest place.
    Compressed,
}

/// Which of a layer's host files a place is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostFile {
    /// The image file itself.
    Image,
    /// The external data file.
    Data,
}

/// A place in one of a layer's host files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostPlace {
    /// Which file.
    pub file: HostFile,
    /// Byte offset in it.
    pub offset: u64,
}

/// A run of guest bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Bytes in the run, at least one.
    pub len: u64,
    /// What the run is.
    pub kind: ExtentKind,
    /// Which layer of the chain decides it: 0 is the top.
    pub depth: u32,
    /// Where the first byte is stored; the rest follow it. Zero runs may have a place too
    /// (allocated, but to be read as zeros).
    pub host: Option<HostPlace>,
}

impl Extent {
    /// A run of `len` bytes with no host place, decided by the top layer.
    #[must_use]
    pub const fn new(kind: ExtentKind, len: u64) -> Self {
        Self {
            len,
            kind,
            depth: 0,
            host: None,
        }
    }

    /// A run of `len` stored bytes from `offset` of the image file.
    #[must_use]
    pub const fn data(len: u64, offset: u64) -> Self {
        let host = Some(HostPlace {
            file: HostFile::Image,
            offset,
        });
        Self {
            len,
            kind: ExtentKind::Data,
            depth: 0,
            host,
        }
    }

    /// The same run cut to at most `len` bytes.
    #[must_use]
    pub fn cut(mut self, len: u64) -> Self {
        self.len = self.len.min(len);
        self
    }

    /// True when `next`, which starts where this run ends, can be joined to it: same kind, same
    /// layer, and stored right behind it where it is stored at all.
    #[must_use]
    pub fn joins(&self, next: &Self) -> bool {
        self.kind == next.kind
            && self.depth == next.depth
            && self.kind != ExtentKind::Compressed
            && match (self.host, next.host) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    a.file == b.file && a.offset.checked_add(self.len) == Some(b.offset)
                }
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_in_the_host_file_join() {
        let a = Extent::data(4096, 0x10_0000);
        assert!(a.joins(&Extent::data(512, 0x10_1000)));
        assert!(!a.joins(&Extent::data(512, 0x20_0000)));
        assert!(!a.joins(&Extent::new(ExtentKind::Zero, 512)));
        let deep = Extent {
            depth: 1,
            ..Extent::data(512, 0x10_1000)
        };
        assert!(!a.joins(&deep));
    }
}
