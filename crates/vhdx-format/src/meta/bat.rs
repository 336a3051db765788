//! What a BAT entry means for reading ([MS-VHDX] §2.5.1).

use crate::VhdxError;
use crate::ondisk::HEADER_SECTION_BYTES;
use crate::ondisk::bat_entry::{BatEntry, BitmapState, PayloadState};

/// Whose view of a block is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadSemantics {
    /// What a guest reads: unmapped, undefined and zero blocks are zeros.
    #[default]
    Effective,
    /// The bytes on disk wherever the block has a place, whatever its state says of them.
    Raw,
}

/// Where a block's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Not from this file: the parent, or zeros where there is none.
    Absent,
    /// Zeros.
    Zero,
    /// This file, from byte `0`.
    Data(u64),
    /// This file from byte `0` where the sector bitmap says so.
    Partial(u64),
}

impl Source {
    /// The bits below those of a place, which is on a whole MiB.
    const KIND: u64 = 0b11;

    /// This as one word, for remembering; `None` for a place that no good entry has.
    pub(crate) fn to_word(self) -> Option<u64> {
        let (place, kind) = match self {
            Self::Absent => (0, 0),
            Self::Zero => (0, 1),
            Self::Data(place) => (place, 2),
            Self::Partial(place) => (place, 3),
        };
        (place & Self::KIND == 0).then_some(place | kind)
    }

    /// What [`to_word`](Self::to_word) made a word of.
    pub(crate) fn from_word(word: u64) -> Self {
        let place = word & !Self::KIND;
        match word & Self::KIND {
            0 => Self::Absent,
            1 => Self::Zero,
            2 => Self::Data(place),
            _ => Self::Partial(place),
        }
    }
}

/// The facts about a file against which an entry is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) file_len: u64,
    pub(crate) has_parent: bool,
}

/// Decides where payload block `block` is read from. The entry lies at `entry_offset`; `needed` is
/// how many bytes of the block are inside the disk.
///
/// # Errors
/// [`VhdxError::Block`] when the state is reserved, or not one for this type of disk, or the place
/// is impossible.
pub(crate) fn payload_source(
    entry: BatEntry,
    entry_offset: u64,
    block: u64,
    needed: u64,
    frame: Frame,
    semantics: ReadSemantics,
) -> Result<Source, VhdxError> {
    let place = entry.file_offset();
    let problem = |problem: &'static str| VhdxError::Block {
        offset: entry_offset,
        what: format!("payload block {block}"),
        place,
        problem: problem.into(),
    };
    let placed = || {
        if place < HEADER_SECTION_BYTES {
            return Err(problem("lies in the header section"));
        }
        if place
            .checked_add(needed)
            .is_none_or(|end| end > frame.file_len)
        {
            return Err(problem("reaches past the end of the file"));
        }
        Ok(place)
    };
    let state = entry
        .payload_state()
        .ok_or_else(|| problem("has a reserved state"))?;
    match state {
        PayloadState::NotPresent => Ok(Source::Absent),
        PayloadState::FullyPresent => Ok(Source::Data(placed()?)),
        PayloadState::PartiallyPresent if frame.has_parent => Ok(Source::Partial(placed()?)),
        PayloadState::PartiallyPresent => {
            Err(problem("is partially present in a disk that has no parent"))
        }
        PayloadState::Undefined | PayloadState::Zero | PayloadState::Unmapped => match semantics {
            ReadSemantics::Effective => Ok(Source::Zero),
            ReadSemantics::Raw => Ok(placed().map_or(Source::Zero, Source::Data)),
        },
    }
}

/// Where the sector bitmap block of `chunk` lies, for a partially present block that needs it.
///
/// # Errors
/// [`VhdxError::Block`] when it is not there, or its place is impossible.
pub(crate) fn bitmap_place(
    entry: BatEntry,
    entry_offset: u64,
    chunk: u64,
    file_len: u64,
) -> Result<u64, VhdxError> {
    let place = entry.file_offset();
    let problem = |problem: &'static str| VhdxError::Block {
        offset: entry_offset,
        what: format!("sector bitmap block {chunk}"),
        place,
        problem: problem.into(),
    };
    match entry.bitmap_state() {
        Some(BitmapState::Present) if place < HEADER_SECTION_BYTES => {
            Err(problem("lies in the header section"))
        }
        Some(BitmapState::Present)
            if place
                .checked_add(BITMAP_BLOCK_BYTES)
                .is_none_or(|end| end > file_len) =>
        {
            Err(problem("reaches past the end of the file"))
        }
        Some(BitmapState::Present) => Ok(place),
        Some(BitmapState::NotPresent) => Err(problem(
            "is not present, yet one of its blocks is partially present",
        )),
        None => Err(problem("has a reserved state")),
    }
}

/// Bytes of a sector bitmap block.
pub(crate) const BITMAP_BLOCK_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: Frame = Frame {
        file_len: 16 << 20,
        has_parent: true,
    };
    const LONE: Frame = Frame {
        file_len: 16 << 20,
        has_parent: false,
    };

    fn source(entry: u64, frame: Frame, semantics: ReadSemantics) -> Result<Source, VhdxError> {
        payload_source(BatEntry(entry), 0, 0, 1 << 20, frame, semantics)
    }

    #[test]
    fn only_not_present_falls_through_to_the_parent() {
        for (entry, expected) in [
            (0, Source::Absent),
            (0x0030_0000, Source::Absent),
            (1, Source::Zero),
            (2, Source::Zero),
            (0x0030_0003, Source::Zero),
            (0x0030_0006, Source::Data(3 << 20)),
            (0x0030_0007, Source::Partial(3 << 20)),
        ] {
            assert_eq!(
                source(entry, CHILD, ReadSemantics::Effective).unwrap(),
                expected
            );
        }
        assert!(source(0x0030_0007, LONE, ReadSemantics::Effective).is_err());
    }

    #[test]
    fn a_source_comes_back_from_its_word() {
        let place = u64::MAX << 20;
        for source in [
            Source::Absent,
            Source::Zero,
            Source::Data(3 << 20),
            Source::Partial(3 << 20),
            Source::Data(place),
            Source::Partial(place),
        ] {
            assert_eq!(Source::from_word(source.to_word().unwrap()), source);
        }
        assert_eq!(Source::Data(1).to_word(), None);
    }

    #[test]
    fn raw_reading_shows_what_unmapped_blocks_left_behind() {
        for state in [1, 2, 3] {
            let kept = source(0x0030_0000 | state, LONE, ReadSemantics::Raw).unwrap();
            assert_eq!(kept, Source::Data(3 << 20));
            assert_eq!(
                source(state, LONE, ReadSemantics::Raw).unwrap(),
                Source::Zero
            );
            let outside = source(0x7FFF_FFFF_FFF0_0000 | state, LONE, ReadSemantics::Raw);
            assert_eq!(
                outside.unwrap(),
                Source::Zero,
                "a stale place outside the file"
            );
        }
    }

    #[test]
    fn no_block_lies_in_the_header_section_or_past_the_end() {
        for entry in [6, 7, 0x00F8_0006 << 1, u64::MAX << 20 | 6, 0x0100_0006] {
            assert!(
                source(entry, CHILD, ReadSemantics::Effective).is_err(),
                "{entry:#x}"
            );
        }
        source(0x00F0_0006, CHILD, ReadSemantics::Effective).unwrap();
        for entry in [6, 0x0100_0006, 0x0030_0000, 0x0030_0003] {
            assert!(
                bitmap_place(BatEntry(entry), 0, 0, 16 << 20).is_err(),
                "{entry:#x}"
            );
        }
        assert_eq!(
            bitmap_place(BatEntry(0x0030_0006), 0, 0, 16 << 20).unwrap(),
            3 << 20
        );
    }
}
