//! Images as fuzzers like them: a few hundred bytes instead of megabytes of zeros.
//!
//! ```text
//!   0            3     4                        each record
//!   ├────────────┼─────┼──────────────┬───┬───────────────┐
//!   │ length/512 │flags│ place/64 (3) │n-1│ n × 64 bytes  │ …
//!   └────────────┴─────┴──────────────┴───┴───────────────┘
//! ```
//!
//! Every byte string is some image, and a small change to it is a small change to the image. Unless
//! bit 0 of the flags is set, the checksums of VHDX structures are made right after unfolding, so
//! that a fuzzer need not guess them.

use crate::mutate::fix_vhdx_checksums;

/// Unfolded images are never longer: longer ones would only be slower.
pub const LARGEST: usize = 12 << 20;

/// Most images in one input of several.
pub const MOST_IMAGES: usize = 4;

const UNIT: usize = 64;
const LENGTH_UNIT: usize = 512;
const KEEP_CHECKSUMS: u8 = 1;

/// The image that `folded` stands for.
#[must_use]
pub fn unfold(folded: &[u8]) -> Vec<u8> {
    let Some((head, mut records)) = folded.split_first_chunk::<4>() else {
        return Vec::new();
    };
    let mut image = vec![0; (u24(head) * LENGTH_UNIT).min(LARGEST)];
    while let Some((record, rest)) = records.split_first_chunk::<4>() {
        let len = ((usize::from(record[3]) + 1) * UNIT).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        let at = u24(record) * UNIT;
        if at < image.len() {
            let len = len.min(image.len() - at);
            image[at..at + len].copy_from_slice(&bytes[..len]);
        }
        records = rest;
    }
    if head[3] & KEEP_CHECKSUMS == 0 {
        fix_vhdx_checksums(&mut image);
    }
    image
}

/// `image` without its zeros; with `keep_checksums` they stay as they are, right or wrong.
///
/// # Panics
/// When `image` is longer than [`LARGEST`] or no multiple of 512 bytes.
#[must_use]
pub fn fold(image: &[u8], keep_checksums: bool) -> Vec<u8> {
    assert!(image.len() <= LARGEST && image.len().is_multiple_of(LENGTH_UNIT));
    let mut folded = number(image.len() / LENGTH_UNIT).to_vec();
    folded.push(u8::from(keep_checksums) * KEEP_CHECKSUMS);
    let units: Vec<&[u8]> = image.chunks(UNIT).collect();
    let mut at = 0;
    while at < units.len() {
        let zeros = |unit: &&&[u8]| unit.iter().all(|&byte| byte == 0);
        let used = units[at..].iter().take_while(|unit| !zeros(unit));
        let run = used.take(256).count();
        if run > 0 {
            folded.extend_from_slice(&number(at));
            folded.push(u8::try_from(run - 1).expect("at most 256"));
            folded.extend_from_slice(&image[at * UNIT..(at + run) * UNIT]);
        }
        at += run.max(1);
    }
    folded
}

/// Several images, and a byte for the choices that are not in them. Before each image but the
/// fourth stands its folded length in three bytes, the lowest first, and a byte that means nothing.
#[must_use]
pub fn unfold_all(data: &[u8]) -> (u8, Vec<Vec<u8>>) {
    let Some((&choice, mut rest)) = data.split_first() else {
        return (0, Vec::new());
    };
    let mut images = Vec::new();
    while images.len() + 1 < MOST_IMAGES
        && let Some((length, behind)) = rest.split_first_chunk::<4>()
        && let Some((folded, behind)) = behind.split_at_checked(u24(length))
    {
        images.push(unfold(folded));
        rest = behind;
    }
    if !rest.is_empty() {
        images.push(unfold(rest));
    }
    (choice, images)
}

/// What [`unfold_all`] takes apart, of images that are folded already.
///
/// # Panics
/// When there are more than [`MOST_IMAGES`].
#[must_use]
pub fn fold_all(choice: u8, folded: &[Vec<u8>]) -> Vec<u8> {
    assert!(folded.len() <= MOST_IMAGES);
    let mut data = vec![choice];
    for (n, image) in folded.iter().enumerate() {
        if n + 1 < MOST_IMAGES {
            data.extend_from_slice(&number(image.len()));
            data.push(0);
        }
        data.extend_from_slice(image);
    }
    data
}

fn u24(bytes: &[u8; 4]) -> usize {
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
}

fn number(value: usize) -> [u8; 3] {
    let value = u32::try_from(value).expect("places of a small image");
    let [a, b, c, _] = value.to_le_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn what_is_folded_unfolds_to_the_same() {
        let mut rng = Rng::new(1);
        let mut image = vec![0; 3 << 20];
        for (at, len) in [
            (0, 8),
            (65_536, 4096),
            (1 << 20, 40_000),
            ((3 << 20) - 1, 1),
        ] {
            rng.fill(&mut image[at..at + len]);
        }
        let folded = fold(&image, true);
        assert!(folded.len() < 50_000);
        assert!(unfold(&folded) == image);
        assert!(unfold(&fold(&[], true)).is_empty());
    }

    #[test]
    fn several_images_come_apart_as_they_were_put_together() {
        for count in 0..=MOST_IMAGES {
            let images: Vec<_> = (1..=count)
                .map(|n| vec![u8::try_from(n).unwrap(); n * 512])
                .collect();
            let folded: Vec<_> = images.iter().map(|image| fold(image, true)).collect();
            assert_eq!(unfold_all(&fold_all(7, &folded)), (7, images));
        }
    }

    #[test]
    fn every_byte_string_is_an_image() {
        let mut rng = Rng::new(2);
        for len in 0..300 {
            let mut folded = vec![0; len];
            rng.fill(&mut folded);
            assert!(unfold(&folded).len() <= LARGEST);
        }
    }
}
