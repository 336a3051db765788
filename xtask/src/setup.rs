//! The tools that tests compare with.

use std::process::{Command, Stdio};

use crate::sh::{self, Outcome};

struct Oracle {
    /// What it is, for messages.
    name: &'static str,
    /// The Debian package it comes with.
    package: &'static str,
    present: fn() -> bool,
}

const ORACLES: &[Oracle] = &[
    Oracle {
        name: "qemu-img, qemu-io and qemu-nbd",
        package: "qemu-utils",
        present: || {
            ["qemu-img", "qemu-io", "qemu-nbd"]
                .iter()
                .all(|tool| sh::installed(tool))
        },
    },
    Oracle {
        name: "nbdinfo and nbdcopy",
        package: "libnbd-bin",
        present: || sh::installed("nbdinfo") && sh::installed("nbdcopy"),
    },
    Oracle {
        name: "certtool, which makes the certificates of the tests of TLS",
        package: "gnutls-bin",
        present: || sh::installed("certtool"),
    },
    Oracle {
        name: "nbdsh",
        package: "python3-libnbd",
        present: || sh::installed("nbdsh"),
    },
    Oracle {
        name: "fio",
        package: "fio",
        present: || sh::installed("fio"),
    },
    Oracle {
        name: "nbdkit",
        package: "nbdkit",
        present: || sh::installed("nbdkit"),
    },
    Oracle {
        name: "vhdiinfo",
        package: "libvhdi-utils",
        present: || sh::installed("vhdiinfo"),
    },
    Oracle {
        name: "libvhdi for Python",
        package: "python3-libvhdi",
        // The package serves the system's own interpreter, whatever else comes first in the path.
        present: || {
            Command::new("/usr/bin/python3")
                .args(["-c", "import pyvhdi"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        },
    },
    Oracle {
        name: "7-Zip",
        package: "7zip",
        present: || sh::installed("7zz") || sh::installed("7z"),
    },
    Oracle {
        name: "Python 3, which unpacks the corpus",
        package: "python3",
        present: || sh::installed("python3"),
    },
];

fn missing() -> Vec<&'static Oracle> {
    ORACLES
        .iter()
        .filter(|oracle| !(oracle.present)())
        .collect()
}

/// Installs what is missing; asks for nothing when all is there.
pub(crate) fn run() -> Outcome {
    let before = missing();
    if before.is_empty() {
        println!("all tools that tests compare with are installed");
        return Ok(());
    }
    for oracle in &before {
        println!("missing: {} (package {})", oracle.name, oracle.package);
    }
    install(&before).map_err(|error| {
        let packages: Vec<_> = before.iter().map(|oracle| oracle.package).collect();
        format!(
            "{error}\n  these packages could not be installed: {}\n  install them by other means, \
             or run `cargo test --workspace`, which skips what it cannot compare",
            packages.join(" ")
        )
    })
}

fn install(wanted: &[&Oracle]) -> Outcome {
    if !sh::installed("apt-get") {
        return Err("this system has no apt-get".into());
    }
    sh::run(apt().args(["update", "-q"]))?;
    let packages = wanted.iter().map(|oracle| oracle.package);
    sh::run(
        apt()
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages),
    )?;
    match missing().as_slice() {
        [] => Ok(()),
        still => {
            let names: Vec<_> = still.iter().map(|oracle| oracle.name).collect();
            Err(format!("still missing: {}", names.join(", ")))
        }
    }
}

/// `apt-get`, by way of sudo for those who are not root.
fn apt() -> Command {
    let root = sh::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = if root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
