//! The command as it is handed out: one small file, the names it also answers to, and its pages.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pages;
use crate::sh::{self, Outcome};

/// The command is to be no longer than this, in bytes.
const MOST_BYTES: u64 = 8 << 20;

/// Whose places it can take.
const NAMES: [&str; 2] = ["qemu-img", "qemu-nbd"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let directory = match arguments {
        [] => sh::root().join("target/package"),
        [directory] => PathBuf::from(directory),
        _ => return Err("usage: cargo xtask dist [DIRECTORY]".into()),
    };
    sh::run(&mut sh::cargo(&[
        "build",
        "--locked",
        "--profile",
        "dist",
        "-p",
        "diskweave-cli",
    ]))?;
    let bin = directory.join("bin");
    fs::create_dir_all(&bin).map_err(|error| format!("{}: {error}", bin.display()))?;
    let command = bin.join("diskweave");
    let built = sh::target_dir()?.join("dist").join("diskweave");
    let bytes =
        fs::copy(&built, &command).map_err(|error| format!("{}: {error}", built.display()))?;
    for name in NAMES {
        link(&bin.join(name))?;
    }
    pages::write(&directory)?;
    println!("{}: {bytes} bytes", command.display());
    match bytes <= MOST_BYTES {
        true => Ok(()),
        false => Err(format!("the command is longer than {MOST_BYTES} bytes")),
    }
}

/// Has `name`, in the same directory as the command, be another name of it.
fn link(name: &Path) -> Outcome {
    let _ = fs::remove_file(name);
    let linked = {
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("diskweave", name)
        }
        #[cfg(not(unix))]
        {
            fs::copy(name.with_file_name("diskweave"), name).map(|_| ())
        }
    };
    linked.map_err(|error| format!("{}: {error}", name.display()))
}
