//! What `INFO` and `GO` ask for and are told.

use super::fields::Fields;

pub(crate) const EXPORT: u16 = 0;
pub(crate) const NAME: u16 = 1;
pub(crate) const DESCRIPTION: u16 = 2;
pub(crate) const BLOCK_SIZE: u16 = 3;

/// The data of `INFO` and `GO`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InfoRequest<'a> {
    pub(crate) name: &'a [u8],
    /// What is asked for, apart from what is told anyway.
    pub(crate) wanted: Vec<u16>,
}

impl<'a> InfoRequest<'a> {
    /// `None` when the lengths in it do not add up.
    pub(crate) fn decode(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = fields.u16()?;
        let wanted: Option<Vec<u16>> = (0..count).map(|_| fields.u16()).collect();
        let wanted = wanted?;
        fields.is_empty().then_some(Self { name, wanted })
    }
}

/// A string after its length, as the data of options have it.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("names of exports and contexts are short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// The data of `GO` for the export `name`, whose block sizes are to be told.
pub(crate) fn request(name: &str) -> Vec<u8> {
    let mut data = string(name);
    data.extend(1u16.to_be_bytes());
    data.extend(BLOCK_SIZE.to_be_bytes());
    data
}

/// Size of the disk and what can be asked of it.
pub(crate) fn export(size: u64, flags: u16) -> Vec<u8> {
    let mut data = EXPORT.to_be_bytes().to_vec();
    data.extend(size.to_be_bytes());
    data.extend(flags.to_be_bytes());
    data
}

/// A name or a description.
pub(crate) fn text(kind: u16, text: &str) -> Vec<u8> {
    let mut data = kind.to_be_bytes().to_vec();
    data.extend(text.as_bytes());
    data
}

/// Smallest, preferred and largest size of requests, in bytes.
pub(crate) fn block_size(minimum: u32, preferred: u32, maximum: u32) -> Vec<u8> {
    let mut data = BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [minimum, preferred, maximum] {
        data.extend(size.to_be_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let good = [0, 0, 0, 1, b'a', 0, 2, 0, 1, 0, 3];
        let request = InfoRequest::decode(&good).unwrap();
        assert_eq!(request.name, b"a");
        assert_eq!(request.wanted, [NAME, BLOCK_SIZE]);
        for len in 0..good.len() {
            assert_eq!(InfoRequest::decode(&good[..len]), None, "{len} bytes");
        }
        let asked = super::request("a");
        let asked = InfoRequest::decode(&asked).unwrap();
        assert_eq!(
            (asked.name, &asked.wanted[..]),
            (&b"a"[..], &[BLOCK_SIZE][..])
        );
        let mut longer = good.to_vec();
        longer.push(0);
        assert_eq!(InfoRequest::decode(&longer), None);
    }
}
