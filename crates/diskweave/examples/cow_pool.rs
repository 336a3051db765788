//! A pool of disks for small machines: one base, a child for each machine, gone with the machine.
//!
//! `cargo run --release --example cow_pool`

// An example shows what it does.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use diskweave::core::BlockDevice;
use diskweave::core::locate::ChainPolicy;
use diskweave::{CloneOptions, CreateBase, OpenDisk, OwnedDisk, create_base};

/// Machines that run one after another.
const MACHINES: usize = 64;

/// And at once.
const THREADS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let times = run(dir.path())?;
    println!(
        "{} children of one base; the median took {:?} to make, the slowest {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1],
    );
    Ok(())
}

/// Runs the machines in `dir`, and tells how long it took to make each disk, in order of length.
pub fn run(dir: &Path) -> Result<Vec<Duration>, Box<dyn Error>> {
    let base = dir.join("base.qcow2");
    create_base(&base, 10 << 30, &CreateBase::new())?;
    let image = OpenDisk::new().writable().open(&base)?;
    image.write_at(b"an operating system", 4096)?;
    image.flush()?;
    image.close()?;

    let mut times = Vec::new();
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let base = &base;
                scope.spawn(move || {
                    let machines = (worker..MACHINES).step_by(THREADS);
                    let times = machines.map(|machine| live(dir, base, machine));
                    times.collect::<diskweave::core::Result<Vec<_>>>()
                })
            })
            .collect();
        for worker in workers {
            times.extend(worker.join().map_err(|_| "a machine panicked")??);
        }
        Ok(())
    })?;
    times.sort();
    Ok(times)
}

/// One machine: its disk is made, written to, read, and dropped.
fn live(dir: &Path, base: &Path, machine: usize) -> diskweave::core::Result<Duration> {
    let path = dir.join(format!("machine-{machine}.qcow2"));
    // A machine's disk is not needed after a crash of the host, so nobody waits for the disk below.
    let options = CloneOptions::new().volatile(true);
    let started = Instant::now();
    let disk = OwnedDisk::clone_of(base, &path, &OpenDisk::new(), &options)?;
    let took = started.elapsed();

    let open = OpenDisk::new().policy(ChainPolicy::Beneath(dir.to_path_buf()));
    let image = disk.open(&open.writable())?;
    let name = format!("machine {machine:>4}");
    image.write_at(name.as_bytes(), 0)?;
    let mut read = [0; 19];
    image.read_at(&mut read, 4096)?;
    assert_eq!(
        &read, b"an operating system",
        "what is the base's shows through"
    );
    image.read_at(&mut read[..name.len()], 0)?;
    assert_eq!(
        &read[..name.len()],
        name.as_bytes(),
        "what is written is its own"
    );
    Ok(took)
}
