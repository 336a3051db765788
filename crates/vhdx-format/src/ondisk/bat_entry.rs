//! BAT entry: state and place of one block, 8 bytes ([MS-VHDX] §2.5.1).

/// A BAT entry.
///
/// ```text
///    63                               20 19                    3 2     0
///   ┌───────────────────────────────────┬───────────────────────┬───────┐
///   │ FileOffsetMB                      │ reserved              │ state │
///   └───────────────────────────────────┴───────────────────────┴───────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatEntry(pub u64);

impl BatEntry {
    /// The entry whose eight bytes are `bytes`.
    #[must_use]
    pub fn from_le_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// The entry of a payload block in `state` whose place is byte `file_offset`, a multiple of 1 MiB;
    /// 0 for a block without one.
    #[must_use]
    pub fn payload(state: PayloadState, file_offset: u64) -> Self {
        debug_assert!(file_offset & 0xF_FFFF == 0, "blocks lie on whole MiB");
        Self(file_offset | state as u64)
    }

    /// The entry of a sector bitmap block that lies at byte `file_offset`, a multiple of 1 MiB.
    #[must_use]
    pub fn bitmap(file_offset: u64) -> Self {
        debug_assert!(file_offset & 0xF_FFFF == 0, "blocks lie on whole MiB");
        Self(file_offset | BitmapState::Present as u64)
    }

    /// The three state bits; what they mean depends on whether the entry is for a payload block or
    /// for a sector bitmap block.
    #[must_use]
    pub fn state_bits(self) -> u8 {
        self.0.to_le_bytes()[0] & 0b111
    }

    /// Byte offset of the block in the file; 0 where it has none.
    #[must_use]
    pub fn file_offset(self) -> u64 {
        // The top 44 bits count MiB, so masking off the rest leaves bytes.
        self.0 & !0xF_FFFF
    }

    /// The 17 reserved bits, which must be 0.
    #[must_use]
    pub fn reserved_bits(self) -> u32 {
        u32::try_from((self.0 >> 3) & 0x1_FFFF).expect("17 bits")
    }

    /// The state as that of a payload block; `None` for the reserved values 4 and 5.
    #[must_use]
    pub fn payload_state(self) -> Option<PayloadState> {
        Some(match self.state_bits() {
            0 => PayloadState::NotPresent,
            1 => PayloadState::Undefined,
            2 => PayloadState::Zero,
            3 => PayloadState::Unmapped,
            6 => PayloadState::FullyPresent,
            7 => PayloadState::PartiallyPresent,
            _ => return None,
        })
    }

    /// The state as that of a sector bitmap block; `None` for reserved values.
    #[must_use]
    pub fn bitmap_state(self) -> Option<BitmapState> {
        match self.state_bits() {
            0 => Some(BitmapState::NotPresent),
            6 => Some(BitmapState::Present),
            _ => None,
        }
    }
}

/// State of a payload block (§2.5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadState {
    /// Nothing here: zeros, or the parent's bytes in a differencing disk.
    NotPresent = 0,
    /// Anything may be read; the parent is not asked. This library reads zeros.
    Undefined = 1,
    /// Zeros, whatever the parent holds.
    Zero = 2,
    /// Given back by the guest; the parent is not asked. This library reads zeros.
    Unmapped = 3,
    /// All in this file; the sector bitmap is not looked at.
    FullyPresent = 6,
    /// In this file where the sector bitmap says so, else in the parent.
    PartiallyPresent = 7,
}

impl PayloadState {
    /// The state in the specification's words, without its common prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPresent => "not-present",
            Self::Undefined => "undefined",
            Self::Zero => "zero",
            Self::Unmapped => "unmapped",
            Self::FullyPresent => "fully-present",
            Self::PartiallyPresent => "partially-present",
        }
    }
}

/// State of a sector bitmap block (§2.5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitmapState {
    /// Not allocated.
    NotPresent = 0,
    /// At the entry's offset, 1 MiB long.
    Present = 6,
}

impl BitmapState {
    /// The state in the specification's words, without its common prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPresent => "not-present",
            Self::Present => "present",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_mebibytes_in_the_top_44_bits() {
        let entry = BatEntry(0x0000_0000_0030_0006);
        assert_eq!(entry.file_offset(), 3 << 20);
        assert_eq!(entry.payload_state(), Some(PayloadState::FullyPresent));
        assert_eq!(entry.bitmap_state(), Some(BitmapState::Present));
        assert_eq!(entry.reserved_bits(), 0);
        assert_eq!(BatEntry(0xF_FFF8).reserved_bits(), 0x1_FFFF);
        assert_eq!(BatEntry(u64::MAX).file_offset(), u64::MAX << 20);
    }

    #[test]
    fn reserved_states_have_no_name() {
        assert_eq!(BatEntry(4).payload_state(), None);
        assert_eq!(BatEntry(5).payload_state(), None);
        for state in [1, 2, 3, 4, 5, 7] {
            assert_eq!(BatEntry(state).bitmap_state(), None);
        }
    }
}
