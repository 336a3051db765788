//! The command at work on images the project ships.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sh::{self, Outcome};

/// SHA-256 of the disks in the images, as others read them: see `testdata/README.md`.
const BASE: &str = "9ce2fb1395cd2ffe7494dc11f5d950b9a99d944cf7031f737b1dbd2b9de2f0b1";
const CHILD: &str = "ddb3c8b154efc527148e89eb8e3916f9eeb4eef87cb9c61a507c40f3967bd294";
const MIXED: &str = "29dc2eff0b8c8499862d947cc4f5a74a05bcaebfb7777dfd5cfd3745af81913f";
const DIRTY: &str = "fc39331a7a6144bdcefbe2c434048afd60f542b914b91c1647996c2b27a41a94";

/// The images, below `testdata`.
const IMAGES: [&str; 4] = [
    "vhdx/chain/base.vhdx",
    "vhdx/chain/child1.vhdx",
    "vhdx/dirty-log.vhdx",
    "qcow2/overlay.qcow2",
];

pub(crate) fn run() -> Outcome {
    let demo = Demo::new()?;
    let result = demo
        .dynamic()
        .and_then(|()| demo.dirty_log())
        .and_then(|()| demo.chain())
        .and_then(|()| demo.mixed_chain())
        .and_then(|()| demo.operations())
        .and_then(|()| demo.children());
    // The folder goes whether it went well or not.
    let removed = std::fs::remove_dir_all(&demo.dir).map_err(|error| error.to_string());
    result.and(removed)?;
    println!("\nEverything went as it should.");
    Ok(())
}

struct Demo {
    diskweave: PathBuf,
    dir: PathBuf,
}

impl Demo {
    /// The command, built, and a fresh folder with copies of the images, so that names on the screen are short.
    fn new() -> Outcome<Self> {
        let dir = std::env::temp_dir().join(format!("diskweave-demo-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        for image in IMAGES {
            let from = sh::root().join("testdata").join(image);
            let name = Path::new(image).file_name().unwrap_or_default();
            std::fs::copy(&from, dir.join(name))
                .map_err(|error| format!("{}: {error}", from.display()))?;
        }
        let diskweave = sh::diskweave()?;
        Ok(Self { diskweave, dir })
    }

    fn dynamic(&self) -> Outcome {
        title("A dynamic VHDX");
        self.diskweave(0, &["info", "base.vhdx"])?;
        self.diskweave(0, &["map", "base.vhdx"])?;
        self.diskweave(0, &["check", "base.vhdx"])?;
        self.diskweave(0, &["convert", "-O", "raw", "base.vhdx", "base.raw"])?;
        self.diskweave(0, &["compare", "base.vhdx", "base.raw"])?;
        self.has_content("base.raw", BASE)?;
        self.qemu_agrees(("vhdx", "base.vhdx"), "base.raw")
    }

    fn dirty_log(&self) -> Outcome {
        title("A VHDX whose writer was cut off: its log is not empty");
        let before = self.bytes("dirty-log.vhdx")?;
        self.diskweave(0, &["info", "dirty-log.vhdx"])?;
        self.diskweave(0, &["sections", "dirty-log.vhdx", "log"])?;
        self.diskweave(0, &["check", "dirty-log.vhdx"])?;
        self.diskweave(
            0,
            &["convert", "-O", "raw", "dirty-log.vhdx", "dirty-log.raw"],
        )?;
        self.diskweave(0, &["compare", "dirty-log.vhdx", "dirty-log.raw"])?;
        self.has_content("dirty-log.raw", DIRTY)?;
        if self.bytes("dirty-log.vhdx")? != before {
            return Err("reading changed the image".into());
        }
        println!("The log was replayed in memory; not a byte of dirty-log.vhdx has changed.");
        Ok(())
    }

    fn chain(&self) -> Outcome {
        title("A differencing VHDX and its parent");
        self.diskweave(0, &["chain", "child1.vhdx"])?;
        self.diskweave(0, &["info", "--backing-chain", "child1.vhdx"])?;
        self.diskweave(0, &["map", "child1.vhdx"])?;
        self.diskweave(0, &["check", "child1.vhdx"])?;
        self.diskweave(0, &["convert", "-O", "raw", "child1.vhdx", "child1.raw"])?;
        self.diskweave(0, &["compare", "child1.vhdx", "child1.raw"])?;
        self.has_content("child1.raw", CHILD)?;
        // The whole chain in one image of another format, and back.
        let (child, made) = ("child1.vhdx", "child1.qcow2");
        self.diskweave(0, &["convert", "-O", "qcow2", child, made])?;
        self.diskweave(0, &["check", made])?;
        self.diskweave(0, &["compare", child, made])?;
        // Parent and child are not the same disk, and the exit code says so.
        self.diskweave(1, &["compare", "child1.vhdx", "base.vhdx"])
    }

    fn mixed_chain(&self) -> Outcome {
        title("A qcow2 overlay over a differencing VHDX over its parent");
        let top = "overlay.qcow2";
        self.diskweave(0, &["chain", top])?;
        self.diskweave(0, &["info", "--backing-chain", top])?;
        self.diskweave(0, &["check", top])?;
        self.diskweave(0, &["convert", "-O", "raw", top, "mixed.raw"])?;
        self.has_content("mixed.raw", MIXED)?;
        // All three in one packed image.
        let (packed, zstd) = ("packed.qcow2", "compression_type=zstd");
        self.diskweave(
            0,
            &["convert", "-O", "qcow2", "-c", "-o", zstd, top, packed],
        )?;
        self.diskweave(0, &["info", packed])?;
        self.diskweave(0, &["check", packed])?;
        self.diskweave(0, &["compare", top, packed])?;
        self.qemu_agrees(("qcow2", packed), "mixed.raw")
    }

    fn operations(&self) -> Outcome {
        title("The chain changed, and the disk the same all along");
        let top = "overlay.qcow2";
        // What is in the middle goes into the base, and the middle is needed no more.
        self.diskweave(1, &["diff", "-q", top])?;
        self.diskweave(0, &["commit", "--top", "child1.vhdx", top])?;
        self.remove("child1.vhdx")?;
        self.diskweave(0, &["chain", top])?;
        self.diskweave(0, &["compare", top, "mixed.raw"])?;
        // Another disk below, of another format; then none.
        self.diskweave(0, &["rebase", "-b", "child1.raw", "-F", "raw", top])?;
        self.diskweave(0, &["chain", top])?;
        self.diskweave(0, &["compare", top, "mixed.raw"])?;
        self.diskweave(0, &["stream", top])?;
        self.diskweave(0, &["chain", top])?;
        self.diskweave(0, &["check", top])?;
        self.diskweave(0, &["compare", top, "mixed.raw"])?;
        // What two disks differ by, taken to a copy of the one.
        self.diskweave(0, &["diff", "--to", "difference.qcow2", "base.raw", top])?;
        self.diskweave(0, &["apply", "-F", "raw", "difference.qcow2", "base.raw"])?;
        self.has_content("base.raw", MIXED)?;
        self.qemu_agrees(("qcow2", top), "base.raw")
    }

    fn children(&self) -> Outcome {
        title("Children of a disk, and who needs it");
        let base = "before.qcow2";
        self.diskweave(0, &["fork", "overlay.qcow2", base])?;
        self.diskweave(0, &["clone", base, "guest.qcow2"])?;
        self.diskweave(0, &["clone", "-O", "vhdx", base, "guest.vhdx"])?;
        self.diskweave(0, &["chain", "guest.vhdx"])?;
        self.diskweave(2, &["dependents", base])?;
        self.diskweave(0, &["compare", "guest.vhdx", "mixed.raw"])?;
        self.diskweave(0, &["flatten", "-O", "vhdx", "guest.qcow2", "whole.vhdx"])?;
        self.diskweave(0, &["check", "whole.vhdx"])?;
        self.diskweave(0, &["compare", "whole.vhdx", "mixed.raw"])
    }

    fn remove(&self, name: &str) -> Outcome {
        println!("\n$ rm {name}");
        std::fs::remove_file(self.dir.join(name)).map_err(|error| format!("{name}: {error}"))
    }

    fn diskweave(&self, expected: i32, arguments: &[&str]) -> Outcome {
        println!();
        let mut command = Command::new(&self.diskweave);
        sh::run_to(command.current_dir(&self.dir).args(arguments), expected)
    }

    fn bytes(&self, name: &str) -> Outcome<Vec<u8>> {
        std::fs::read(self.dir.join(name)).map_err(|error| format!("{name}: {error}"))
    }

    /// Holds a converted disk against the hash that others got from the same image.
    fn has_content(&self, name: &str, hash: &str) -> Outcome {
        if !sh::installed("sha256sum") {
            println!("(no sha256sum here: the content is not held against the known hash)");
            return Ok(());
        }
        let mut command = Command::new("sha256sum");
        let found = sh::output(command.current_dir(&self.dir).arg(name))?;
        println!("\n$ sha256sum {name}\n{}", found.trim());
        if found.starts_with(hash) {
            println!("That is the known content.");
            Ok(())
        } else {
            Err(format!("{name} should have the SHA-256 {hash}"))
        }
    }

    fn qemu_agrees(&self, (format, image): (&str, &str), raw: &str) -> Outcome {
        if !sh::installed("qemu-img") {
            println!("(no qemu-img here: it is not asked for its opinion)");
            return Ok(());
        }
        println!();
        let mut command = Command::new("qemu-img");
        command.args(["compare", "-f", format, "-F", "raw", image, raw]);
        sh::run(command.current_dir(&self.dir))
    }
}

fn title(text: &str) {
    println!("\n=== {text}");
}
