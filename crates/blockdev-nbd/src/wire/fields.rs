//! Numbers and strings taken off the front of a message, as far as it reaches.

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string after its length of 32 bits.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// True when nothing is left: a message that is longer than its fields is malformed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_ends_early_gives_nothing() {
        assert_eq!(Fields(&[1]).u16(), None);
        assert_eq!(Fields(&[0, 0, 0, 3, b'a', b'b']).string(), None);
        assert_eq!(Fields(&[0xff; 4]).string(), None, "a length of 2^32 - 1");
        let mut fields = Fields(&[0, 0, 0, 1, b'a', 0, 7]);
        assert_eq!(fields.string(), Some(&b"a"[..]));
        assert_eq!(fields.u16(), Some(7));
        assert!(fields.is_empty());
    }
}
