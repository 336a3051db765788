//! Images that QEMU and a library write to in turns.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use super::{QemuImg, QemuIo};

/// QEMU's tools, both.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Makes, checks and converts images.
    pub img: QemuImg,
    /// Writes to them.
    pub io: QemuIo,
}

impl Qemu {
    /// The tools of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        Some(Self {
            img: QemuImg::find()?,
            io: QemuIo::find()?,
        })
    }

    /// Runs `qemu-img` in `folder` with arguments that hold no spaces.
    ///
    /// # Panics
    /// When it complains.
    pub fn img(&self, folder: &Path, args: &str) {
        let args: Vec<&str> = args.split(' ').collect();
        let ran = self.img.run_in(folder, &args);
        ran.ok()
            .unwrap_or_else(|error| panic!("qemu-img {args:?}: {error}"));
    }
}

/// Compares two disks.
///
/// # Panics
/// With `what` and the first sector that differs.
pub fn same_disk(seen: &[u8], right: &[u8], what: &str) {
    assert_eq!(seen.len(), right.len(), "{what}");
    let sectors = seen.chunks(512).zip(right.chunks(512));
    let wrong = sectors.enumerate().find(|(_, (seen, right))| seen != right);
    if let Some((sector, (seen, right))) = wrong {
        panic!(
            "{what}: sector {sector} is {:?}…, not {:?}…",
            &seen[..32],
            &right[..32]
        );
    }
}

/// Plays rounds, each decided by its seed: `few`, or `full` of them where the variable
/// `DISKWEAVE_INTEROP` is `full`; prints the line `interop: NAME: N combinations, M failed`. `play`
/// gets a folder of its own and a place to tell what it does, which is printed when it fails.
///
/// # Panics
/// When a round failed.
#[expect(clippy::print_stdout, reason = "what a proof came to is printed")]
pub fn rounds(name: &str, few: u64, full: u64, play: impl Fn(&Path, u64, &mut String) + Sync) {
    let is_full = std::env::var_os("DISKWEAVE_INTEROP").is_some_and(|value| value == "full");
    let rounds = if is_full { full } else { few };
    let (next, failed) = (Mutex::new(0..rounds), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.lock().map_or(None, |mut next| next.next());
                    let Some(seed) = seed else { return };
                    let mut story = String::new();
                    if let Err(wrong) = round(&play, seed, &mut story) {
                        println!("{wrong}\n  {story}");
                        *failed.lock().expect("nobody panics with it") += 1;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    println!("interop: {name}: {rounds} combinations, {failed} failed");
    assert_eq!(failed, 0);
}

/// Plays one round; what went wrong in it.
fn round(
    play: &(impl Fn(&Path, u64, &mut String) + Sync),
    seed: u64,
    story: &mut String,
) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let played = catch_unwind(AssertUnwindSafe(|| play(folder.path(), seed, story)));
    played.map_err(|panic| match panic.downcast::<String>() {
        Ok(said) => *said,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(said) => (*said).to_owned(),
            None => resume_unwind(panic),
        },
    })
}
