//! What is done to chains in the scenarios.

use std::sync::Arc;

use diskweave::chain::Chain;
use diskweave::core::{BlockDevice, Storage, ZeroFlags};
use diskweave::qcow2::{self, Backing, Qcow2Writer};
use diskweave::vhdx::VhdxWriter;
use diskweave::{core, vhdx, vhdx_child};
use testkit::Rng;
use testkit::crash::{Control, Driver, Image, Named, Scenario};
use testkit::stamp::stamped;

use crate::subject::{Files, Name, empty, image};

pub(crate) type Story = testkit::crash::Story<Files>;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Every story.
pub(crate) const STORIES: &[Named<Files>] = &[
    ("commit qcow2 into qcow2", || {
        once(&["b.qcow2", "a.qcow2"], "commit")
    }),
    ("commit and keep", || {
        once(&["b.qcow2", "a.qcow2"], "commit keep")
    }),
    ("commit qcow2 into raw", || {
        once(&["b.qcow2", "a.raw"], "commit")
    }),
    ("commit qcow2 into VHDX", || {
        once(&["b.qcow2", "a.vhdx"], "commit")
    }),
    ("commit VHDX into VHDX", || {
        once(&["b.vhdx", "a.vhdx"], "commit")
    }),
    ("commit VHDX into qcow2", || {
        once(&["b.vhdx", "a.qcow2"], "commit")
    }),
    ("commit VHDX into a child", || {
        once(&["c.vhdx", "b.vhdx", "a.vhdx"], "commit")
    }),
    ("commit into a shorter base", into_shorter),
    ("commit several layers", || {
        once(
            &["d.qcow2", "c.vhdx", "b.vhdx", "a.qcow2"],
            "commit into a.qcow2",
        )
    }),
    ("commit several layers into VHDX", || {
        once(&["c.qcow2", "b.vhdx", "a.vhdx"], "commit into a.vhdx")
    }),
    ("commit a layer in the middle, qcow2 above", || {
        once(
            &["c.qcow2", "b.vhdx", "a.vhdx"],
            "commit b.vhdx into a.vhdx",
        )
    }),
    ("commit a layer in the middle, VHDX above", || {
        once(
            &["c.vhdx", "b.qcow2", "a.vhdx"],
            "commit b.qcow2 into a.vhdx",
        )
    }),
    ("commit a layer in the middle, a witness above", || {
        once(
            &["d.vhdx", "c.qcow2", "b.qcow2", "a.qcow2"],
            "commit b.qcow2 into a.qcow2",
        )
    }),
    ("commit a shorter layer in the middle", into_longer),
    ("rebase qcow2", || {
        rebase(&["b.qcow2", "a.qcow2"], &["n.qcow2"])
    }),
    ("rebase qcow2 to VHDX", || {
        rebase(&["b.qcow2", "a.raw"], &["n.vhdx"])
    }),
    ("rebase VHDX", || rebase(&["b.vhdx", "a.vhdx"], &["n.vhdx"])),
    ("rebase VHDX to qcow2", || {
        rebase(&["b.vhdx", "a.vhdx"], &["n.qcow2"])
    }),
    ("rebase to a chain", || {
        rebase(&["b.qcow2", "a.qcow2"], &["n.vhdx", "m.qcow2"])
    }),
    ("rebase qcow2 to nothing", || {
        once(&["b.qcow2", "a.vhdx"], "rebase")
    }),
    ("rebase VHDX to nothing", || {
        once(&["b.vhdx", "a.vhdx"], "rebase")
    }),
    ("stream qcow2", || {
        once(&["c.qcow2", "b.vhdx", "a.qcow2"], "stream a.qcow2")
    }),
    ("stream VHDX", || {
        once(&["c.vhdx", "b.vhdx", "a.vhdx"], "stream a.vhdx")
    }),
    ("apply to qcow2", || {
        once(&["b.qcow2", "a.qcow2"], "apply to a.qcow2")
    }),
    ("apply to VHDX", apply_to_vhdx),
    ("one after the other", one_after_the_other),
];

/// Images named as the chain has them, the top first, each with bytes of its own; and others, a chain by
/// themselves, that nobody refers to yet.
fn made(chain: &[Name], others: &[Name], size: u64) -> Made {
    made_of(chain, others, &|_| size)
}

type Made = (Files, Vec<Image>);

fn made_of(chain: &[Name], others: &[Name], size: &dyn Fn(Name) -> u64) -> Made {
    let names: Vec<Name> = chain.iter().chain(others).copied().collect();
    let subject = Files::new(&names);
    let files = empty(names.len());
    let place = |name: Name| names.iter().position(|own| *own == name).unwrap();
    for family in [chain, others] {
        for (depth, name) in family.iter().enumerate().rev() {
            let file = &files[place(name)];
            make(
                file,
                name,
                family.get(depth + 1).copied(),
                size(name),
                (&subject, &files),
            );
            let open = subject.disk(name, &files).writable();
            let seed = u32::try_from(place(name)).unwrap();
            fill(&open.open(subject.path(name)).unwrap(), seed);
        }
    }
    let images = files.iter().map(image).collect();
    (subject, images)
}

/// An empty image of the format that its name says.
fn make(
    file: &Arc<dyn Storage>,
    name: Name,
    parent: Option<Name>,
    size: u64,
    (subject, files): (&Files, &[Arc<dyn Storage>]),
) {
    let format_of = |name: Name| name.rsplit('.').next().unwrap().to_string();
    match &*format_of(name) {
        "raw" => file.set_len(size).unwrap(),
        "qcow2" => {
            let mut options = qcow2::CreateOptions::new(size);
            options.cluster_bits = 12;
            options.backing = parent.map(|parent| Backing {
                name: parent.into(),
                format: format_of(parent),
            });
            let writer = Qcow2Writer::create(file.clone(), options).unwrap();
            writer.finish().unwrap();
        }
        _ => {
            let mut options = match parent {
                None => vhdx::CreateOptions::new(size),
                Some(parent) => {
                    let disk = subject.disk(parent, files).open(subject.path(parent));
                    vhdx_child(&disk.unwrap(), parent, subject.path(name)).unwrap()
                }
            };
            options.virtual_size = size;
            options.block_size = 1 << 20;
            let writer = VhdxWriter::create(file.clone(), options).unwrap();
            writer.finish().unwrap();
        }
    }
}

/// Gives the disk bytes, zeros, and what it does not hold; of every image elsewhere.
fn fill(disk: &Chain, seed: u32) {
    let shift = u64::from(seed) * 20 * KIB;
    let size = disk.size();
    let write = |at: u64, len: u64| {
        let at = (at + shift) % (size - 64 * KIB);
        let bytes = stamped(at, usize::try_from(len).unwrap(), 1000 + seed);
        disk.write_at(&bytes, at).unwrap();
    };
    write(3 * KIB, 18 * KIB);
    write(100 * KIB, 4 * KIB + 512);
    write(200 * KIB, 40 * KIB);
    let flags = ZeroFlags {
        may_unmap: true,
        no_fallback: false,
    };
    let zeros = (150 * KIB + shift) % (size - 64 * KIB);
    disk.write_zeroes(zeros, 24 * KIB, flags).unwrap();
    disk.flush().unwrap();
}

/// The story of `names` that `script` tells.
fn story(
    chain: &[Name],
    others: &[Name],
    script: impl Fn(&mut Driver<'_, Files>) -> core::Result<()> + 'static,
) -> Story {
    told(made(chain, others, 320 * KIB), script)
}

fn told(
    (subject, images): Made,
    script: impl Fn(&mut Driver<'_, Files>) -> core::Result<()> + 'static,
) -> Story {
    let mut images = images.into_iter();
    let first = Scenario::new("", images.next().unwrap(), script);
    (subject, images.fold(first, Scenario::beside))
}

/// The guest writes, something is done to the chain, and the guest goes on.
fn once(chain: &[Name], what: &'static str) -> Story {
    story(chain, &[], move |d| guest_around(d, what))
}

fn guest_around(d: &mut Driver<'_, Files>, what: &'static str) -> core::Result<()> {
    d.write(40 * KIB, 6 * KIB)?;
    d.discard(200 * KIB, 8 * KIB)?;
    d.flush()?;
    d.write(180 * KIB, 3 * KIB)?;
    d.control(Control::Other(what))?;
    d.write(44 * KIB, 9 * KIB)?;
    d.flush()
}

/// The VHDX that was applied does not know the disk again.
fn apply_to_vhdx() -> Story {
    let (subject, scenario) = once(&["b.vhdx", "a.vhdx"], "apply to a.vhdx");
    (subject.unverified(), scenario)
}

fn into_shorter() -> Story {
    let size = |name: Name| match name {
        "a.qcow2" => 128 * KIB,
        _ => 320 * KIB,
    };
    let made = made_of(&["b.qcow2", "a.qcow2"], &[], &size);
    told(made, |d| guest_around(d, "commit"))
}

/// Past the end of the layer in the middle the top sees zeros, whatever the base has there.
fn into_longer() -> Story {
    let size = |name: Name| match name {
        "b.vhdx" => 128 * KIB,
        _ => 320 * KIB,
    };
    let made = made_of(&["c.qcow2", "b.vhdx", "a.vhdx"], &[], &size);
    told(made, |d| guest_around(d, "commit b.vhdx into a.vhdx"))
}

fn rebase(chain: &[Name], others: &[Name]) -> Story {
    let what: &'static str = match others[0] {
        "n.qcow2" => "rebase n.qcow2",
        _ => "rebase n.vhdx",
    };
    story(chain, others, move |d| guest_around(d, what))
}

fn one_after_the_other() -> Story {
    let made = made(&["c.qcow2", "b.vhdx", "a.vhdx"], &["n.qcow2"], 2 * MIB);
    told(made, |d| {
        d.write(MIB, 70 * KIB)?;
        d.control(Control::Other("commit"))?;
        d.write(MIB + 30 * KIB, 5 * KIB)?;
        d.control(Control::Other("stream a.vhdx"))?;
        d.discard(MIB, 64 * KIB)?;
        d.control(Control::Other("rebase n.qcow2"))?;
        d.control(Control::Resize(MIB))?;
        d.write(300 * KIB, 9 * KIB)?;
        d.control(Control::Other("commit"))?;
        d.control(Control::Other("rebase"))?;
        d.flush()
    })
}

/// A chain of any images, and something done to it.
pub(crate) fn random(seed: u64) -> Story {
    const NAMES: [[Name; 2]; 4] = [
        ["d.qcow2", "d.vhdx"],
        ["c.qcow2", "c.vhdx"],
        ["b.qcow2", "b.vhdx"],
        ["a.qcow2", "a.vhdx"],
    ];
    const BASES: [&str; 4] = ["a.qcow2", "a.vhdx", "n.qcow2", "n.vhdx"];
    let mut rng = Rng::new(seed);
    let depth = rng.index(3) + 2;
    let chain: Vec<Name> = NAMES[4 - depth..]
        .iter()
        .map(|pair| pair[rng.index(2)])
        .collect();
    let base = chain[depth - 1];
    let other = BASES[2 + rng.index(2)];
    let (what, others) = match rng.below(6) {
        0 => ("commit".into(), vec![]),
        1 => ("commit keep".into(), vec![]),
        2 => (format!("commit into {base}"), vec![]),
        3 if depth > 2 => (format!("commit {} into {base}", chain[depth - 2]), vec![]),
        4 => (format!("rebase {other}"), vec![other]),
        _ => (format!("stream {base}"), vec![]),
    };
    // A name lives as long as the proofs do.
    let what: &'static str = what.leak();
    let (subject, mut scenario) = story(&chain, &others, move |d| {
        let mut rng = Rng::new(seed);
        let mut guest = |d: &mut Driver<'_, Files>| -> core::Result<()> {
            for _ in 0..rng.below(4) {
                let at = rng.below(300 * KIB);
                let len = (rng.below(20 * KIB) + 1).min(320 * KIB - at);
                match rng.below(4) {
                    0 => d.discard(at, len)?,
                    1 => d.write_zeroes(at, len, ZeroFlags::default())?,
                    _ => d.write(at, len)?,
                }
            }
            Ok(())
        };
        guest(d)?;
        d.control(Control::Other(what))?;
        guest(d)?;
        d.flush()
    });
    scenario.name = format!("random {seed}: {chain:?}, {what}");
    (subject, scenario)
}
