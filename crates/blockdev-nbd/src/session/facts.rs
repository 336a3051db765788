//! What a client is told of the export it asks for.

use super::offer::MAX_REQUEST;
use crate::wire::fields::Fields;
use crate::wire::flags::transmission::{READ_ONLY, SEND_FLUSH, SEND_WRITE_ZEROES};
use crate::wire::info;

/// Longest smallest request that a server may demand ("Block size constraints"), in bytes.
const MOST_MINIMUM: u32 = 64 << 10;

/// Facts about an export, as far as they were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    size: Option<u64>,
    flags: u16,
    /// Requests must lie on multiples of it, in bytes: a power of two up to 64 KiB.
    pub(crate) minimum: u32,
    /// Longest read or write, in bytes: a multiple of the minimum.
    pub(crate) maximum: u32,
    /// Reads are answered in chunks.
    pub(crate) structured: bool,
    /// The server's number for `base:allocation`, if it tells that.
    pub(crate) context: Option<u32>,
}

impl Facts {
    /// Of an export that nothing is known of: what holds unless something else is said.
    pub(crate) fn unknown() -> Self {
        Self {
            size: None,
            flags: 0,
            minimum: 1,
            maximum: MAX_REQUEST,
            structured: false,
            context: None,
        }
    }

    /// Takes note of one piece of information; false when it is malformed.
    pub(crate) fn learn(&mut self, data: &[u8]) -> bool {
        self.try_learn(data).is_some()
    }

    fn try_learn(&mut self, data: &[u8]) -> Option<()> {
        let mut fields = Fields(data);
        match fields.u16()? {
            info::EXPORT => {
                self.size = Some(fields.u64()?);
                self.flags = fields.u16()?;
            }
            info::BLOCK_SIZE => {
                let (minimum, _preferred) = (fields.u32()?, fields.u32()?);
                let maximum = fields.u32()?;
                let sound = minimum.is_power_of_two() && minimum <= MOST_MINIMUM;
                if !sound || maximum < minimum {
                    return None;
                }
                self.minimum = minimum;
                // Never longer than memory is to be taken for at once, whatever the server would bear.
                self.maximum = maximum.min(MAX_REQUEST) / minimum * minimum;
            }
            // "Clients MUST ignore" what they do not know.
            _ => return Some(()),
        }
        fields.is_empty().then_some(())
    }

    /// Size of the disk in bytes, if it was told.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }

    pub(crate) fn flushes(&self) -> bool {
        self.flags & SEND_FLUSH != 0
    }

    pub(crate) fn zeroes(&self) -> bool {
        self.flags & SEND_WRITE_ZEROES != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_is_understood_and_bounded() {
        let mut facts = Facts::unknown();
        assert!(facts.learn(&info::export(5, SEND_FLUSH | READ_ONLY)));
        assert!(facts.learn(&info::block_size(512, 4096, u32::MAX)));
        assert!(facts.learn(&[0xff, 0xff, 1]), "what nobody knows");
        assert_eq!((facts.size(), facts.minimum), (Some(5), 512));
        assert!(facts.is_read_only() && facts.flushes() && !facts.zeroes());
        assert_eq!(facts.maximum, MAX_REQUEST);
        for bad in [&[][..], &[0], &[0, 0, 1], &[0, 3, 0, 0, 0, 1]] {
            assert!(!facts.learn(bad), "{bad:?}");
        }
    }

    /// Requests that are cut to a length of none would never come to an end.
    #[test]
    fn block_sizes_that_no_request_could_meet_are_refused() {
        let mut facts = Facts::unknown();
        for (minimum, maximum) in [
            (0, 4096),
            (3, 4096),
            (1 << 17, 1 << 20),
            (4096, 512),
            (1, 0),
        ] {
            let told = info::block_size(minimum, 4096, maximum);
            assert!(!facts.learn(&told), "{minimum} to {maximum}");
        }
        assert!(facts.learn(&info::block_size(4096, 4096, 10_000)));
        assert_eq!(facts.maximum, 8192);
    }
}
