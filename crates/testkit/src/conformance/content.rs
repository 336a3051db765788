//! The content a disk is expected to have.

/// The right bytes of a disk: a slice, or a rule for disks too large to hold.
pub trait Content: Sync {
    /// Size of the disk in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes from `offset`; the range lies inside the disk.
    fn fill(&self, buf: &mut [u8], offset: u64);
}

impl Content for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn fill(&self, buf: &mut [u8], offset: u64) {
        let from = usize::try_from(offset).expect("inside a slice");
        buf.copy_from_slice(&self[from..from + buf.len()]);
    }
}

impl Content for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn fill(&self, buf: &mut [u8], offset: u64) {
        self.as_slice().fill(buf, offset);
    }
}

/// A disk of any size whose bytes a closure knows: `|buf, offset| …` fills `buf`.
#[derive(Debug)]
pub struct Model<F> {
    size: u64,
    fill: F,
}

impl<F: Fn(&mut [u8], u64) + Sync> Model<F> {
    /// A disk of `size` bytes.
    #[must_use]
    pub fn new(size: u64, fill: F) -> Self {
        Self { size, fill }
    }
}

impl<F: Fn(&mut [u8], u64) + Sync> Content for Model<F> {
    fn size(&self) -> u64 {
        self.size
    }

    fn fill(&self, buf: &mut [u8], offset: u64) {
        (self.fill)(buf, offset);
    }
}
