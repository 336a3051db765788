//! Many guests side by side: each has its own pieces of the disk, but not whole blocks, and not always
//! whole sectors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use blockdev_core::{BlockDevice, ZeroFlags};

use crate::Rng;

/// What the guests do.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours {
    /// Guests at once.
    pub guests: usize,
    /// Bytes in a piece: of every `guests` pieces each guest has one.
    pub piece: usize,
    /// Operations of each.
    pub steps: u32,
    /// What decides everything but the order of events.
    pub seed: u64,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            guests: 4,
            piece: 5 * 512,
            steps: 300,
            seed: 0,
        }
    }
}

/// Lets the guests loose on `device`, which reads `content`, while another thread flushes all the
/// time: what one does to its pieces, discards included, the others do not notice.
///
/// # Panics
/// Where a guest finds something in its pieces that it did not put there, or an operation failed.
pub fn run_neighbours(device: &impl BlockDevice, content: &[u8], what: Neighbours) {
    let over = AtomicBool::new(false);
    let models: Vec<Vec<u8>> = thread::scope(|scope| {
        let guests: Vec<_> = (0..what.guests)
            .map(|guest| scope.spawn(move || live(device, content.to_vec(), what, guest)))
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                device.flush().expect("flush");
                thread::yield_now();
            }
        });
        let models: Vec<_> = guests.into_iter().map(|guest| guest.join()).collect();
        over.store(true, Ordering::Relaxed);
        let done = models.into_iter().map(|model| match model {
            Ok(model) => model,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    });
    let mut seen = vec![0xEE; content.len()];
    device.read_at(&mut seen, 0).expect("read");
    for (n, bytes) in seen.chunks(what.piece).enumerate() {
        let right = &models[n % what.guests][n * what.piece..][..bytes.len()];
        assert!(bytes == right, "seed {}: piece {n}", what.seed);
    }
}

/// What the whole disk is by the end, if nobody else does anything.
fn live(device: &impl BlockDevice, mut model: Vec<u8>, what: Neighbours, guest: usize) -> Vec<u8> {
    let mut rng = Rng::new(what.seed * what.guests as u64 + guest as u64);
    let rounds = model.len() / what.piece / what.guests;
    for step in 0..what.steps {
        let at = (rng.index(rounds) * what.guests + guest) * what.piece;
        let part = &mut model[at..at + what.piece];
        let (at, len) = (at as u64, part.len() as u64);
        match rng.below(8) {
            0..=2 => {
                part.fill(step.to_le_bytes()[0] | 1);
                device.write_at(part, at).expect("write");
            }
            3 => {
                let flags = ZeroFlags {
                    may_unmap: rng.one_in(2),
                    no_fallback: false,
                };
                device.write_zeroes(at, len, flags).expect("zeroing");
                part.fill(0);
            }
            4 | 5 => {
                device.discard(at, len).expect("discard");
                let old = part.to_vec();
                device.read_at(part, at).expect("read");
                let mut bytes = part.iter().zip(&old);
                assert!(
                    bytes.all(|(new, old)| *new == 0 || new == old),
                    "seed {}: guest {guest}, step {step}: a discard shows other bytes",
                    what.seed
                );
            }
            _ => {
                let mut seen = vec![0xEE; what.piece];
                device.read_at(&mut seen, at).expect("read");
                assert!(
                    seen == *part,
                    "seed {}: guest {guest}, step {step}",
                    what.seed
                );
            }
        }
    }
    model
}
