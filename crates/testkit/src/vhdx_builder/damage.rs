//! Deliberate damage to a structure that exists twice.

/// Which of the two copies of a header or region table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Header 1 at 64 KiB, region table 1 at 192 KiB.
    First,
    /// Header 2 at 128 KiB, region table 2 at 256 KiB.
    Second,
}

impl Slot {
    /// Both slots in file order.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// File offset of this slot's header ([MS-VHDX] §2.2.2).
    pub fn header_offset(self) -> u64 {
        match self {
            Self::First => 64 << 10,
            Self::Second => 128 << 10,
        }
    }

    /// File offset of this slot's region table ([MS-VHDX] §2.2.3).
    pub fn region_table_offset(self) -> u64 {
        match self {
            Self::First => 192 << 10,
            Self::Second => 256 << 10,
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// What happened to a copy of a header or region table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit of the stored checksum is wrong.
    Checksum,
    /// One bit of the signature is wrong, the checksum is right for what is there.
    Signature,
    /// The structure was never written.
    Zeroed,
    /// Only this many bytes reached the disk; what follows is old content.
    TornAt(usize),
}

impl Damage {
    pub(super) fn apply(self, bytes: &mut [u8]) {
        match self {
            Self::Checksum => bytes[4] ^= 1,
            Self::Signature => {
                bytes[0] ^= 1;
                super::bytes::seal(bytes);
            }
            Self::Zeroed => bytes.fill(0),
            Self::TornAt(written) => bytes[written..].fill(0xA5),
        }
    }
}
