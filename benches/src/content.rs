//! Whether each engine holds what was written: nobody is to be fast at the wrong thing.

use std::fs;

use crate::Outcome;
use crate::engine::{Disk, Engine, Opened, text};
use crate::job::Random;
use crate::place::{CHECKED, Image, Place};
use crate::qemu;

const REQUESTS: u64 = 300;
const SECTOR: u64 = 512;
/// Sectors of the longest request.
const LONGEST: u64 = 256;

/// Has every engine write into a new image, and into a child where there are any; says who loses
/// anything of it, or cannot do it.
pub(crate) fn check(place: &Place) {
    println!("what is written is read back by each engine, after its image was opened anew:");
    for &engine in place.suite.engines {
        if engine == Engine::QemuImg || engine == Engine::Plain {
            continue;
        }
        let alone = alone(place, engine);
        println!("  {:<9} alone: {}", engine.name(), said(&alone));
        if place.suite.derive.is_some() {
            println!(
                "  {:<9} child: {}",
                engine.name(),
                said(&child(place, engine))
            );
        }
    }
    println!();
}

fn said(outcome: &Outcome) -> &str {
    match outcome {
        Ok(()) => "all there",
        Err(message) => message,
    }
}

fn alone(place: &Place, engine: Engine) -> Outcome {
    let image = place.fresh(engine, CHECKED)?;
    let size = usize::try_from(CHECKED).map_err(text)?;
    let written = write_and_read(place, engine, &image, vec![0; size])?;
    let raw = image.path.with_extension("expected");
    fs::write(&raw, written).map_err(text)?;
    qemu::compare(&image.path, place.suite.format.name(), &raw)
}

fn child(place: &Place, engine: Engine) -> Outcome {
    let image = place.child(engine, "small")?;
    let image = image.ok_or("no children")?;
    let below = fs::read(place.raw("small")).map_err(text)?;
    write_and_read(place, engine, &image, below).map(drop)
}

/// What the image holds in the end, which was `disk` before.
fn write_and_read(
    place: &Place,
    engine: Engine,
    image: &Image,
    mut disk: Vec<u8>,
) -> Outcome<Vec<u8>> {
    let format = place.suite.format;
    let mut random = Random::new(7);
    engine.with(format, image, false, |opened| {
        for number in 0..REQUESTS {
            let sectors = 1 + random.below(LONGEST);
            let at = random.below(CHECKED / SECTOR - sectors) * SECTOR;
            let range = index(at)..index(at + sectors * SECTOR);
            // Each request has bytes of its own, none of them 0.
            disk[range.clone()].fill(u8::try_from(1 + number % 255).map_err(text)?);
            disk_of(&opened).write(&disk[range], at)?;
        }
        disk_of(&opened).flush()
    })?;
    engine.with(format, image, true, |opened| {
        let mut read = vec![0; 1 << 20];
        for (piece, expected) in disk.chunks(read.len()).enumerate() {
            let at = (piece * read.len()) as u64;
            disk_of(&opened).read(&mut read, at)?;
            if let Some(wrong) = read
                .iter()
                .zip(expected)
                .position(|(read, expected)| read != expected)
            {
                return Err(format!(
                    "LOSES DATA: byte {:#x} is another",
                    at + wrong as u64
                ));
            }
        }
        Ok(())
    })?;
    Ok(disk)
}

fn disk_of<'a>(opened: &Opened<'a>) -> &'a dyn Disk {
    match opened {
        Opened::Alone(disk) => *disk,
        Opened::Shared(disk) => *disk,
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("less than memory")
}
