//! `qemu-img` and `qemu-io`, run in a folder, so that images name each other without a path.

use std::path::Path;
use std::process::Command;

use testkit::oracle::{QemuImg, QemuIo};

/// True when both are installed; says so loudly when not.
pub(crate) fn present() -> bool {
    QemuImg::find().is_some() && QemuIo::find().is_some()
}

/// What a tool ended with: its exit code, and what it wrote.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs `program` in `dir` to its end.
pub(crate) fn ended(dir: &Path, program: &str, arguments: &[&str]) -> Result<Ended, String> {
    let mut command = Command::new(program);
    let output = command.current_dir(dir).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    Ok(Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `program` in `dir`; its exit code must be 0.
pub(crate) fn run(dir: &Path, program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let ended = ended(dir, program, arguments)?;
    match ended.code {
        Some(0) => Ok(ended.stdout),
        code => Err(format!(
            "{program} {}: exit code {code:?}: {}",
            arguments.join(" "),
            ended.stderr.trim()
        )),
    }
}

/// Runs commands of `qemu-io` on an image. Nothing is forced to the disk: the files are gone before
/// a crash could matter.
pub(crate) fn io(dir: &Path, format: &str, image: &str, commands: &[String]) -> Result<(), String> {
    if commands.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["-t", "unsafe", "-d", "unmap", "-f", format];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(image);
    run(dir, "qemu-io", &arguments).map(drop)
}

/// What `qemu-img` tells as JSON.
pub(crate) fn json(dir: &Path, arguments: &[&str]) -> Result<serde_json::Value, String> {
    let stdout = run(dir, "qemu-img", arguments)?;
    serde_json::from_slice(&stdout).map_err(|error| error.to_string())
}

/// Writes the disk of `image` to the raw file `to`, by `qemu-img`.
pub(crate) fn to_raw(dir: &Path, format: &str, image: &str, to: &str) -> Result<(), String> {
    let arguments = [
        "convert", "-t", "unsafe", "-f", format, "-O", "raw", image, to,
    ];
    run(dir, "qemu-img", &arguments).map(drop)
}
