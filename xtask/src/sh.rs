//! Running other programs, with every command line shown before it runs.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a task ends with: nothing, or why it failed.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The workspace's root: the folder above this program's sources.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that started this program, run in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    command
}

/// Where cargo puts what it builds: this program lies there itself.
pub(crate) fn target_dir() -> Outcome<PathBuf> {
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let found = here
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists());
    found
        .map(Path::to_path_buf)
        .ok_or_else(|| "cannot tell where cargo builds".into())
}

/// Builds the command for release; where its program lies.
pub(crate) fn diskweave() -> Outcome<PathBuf> {
    let package = ["--locked", "--release", "--package", "diskweave-cli"];
    run(cargo(&["build"]).args(package))?;
    let program = format!("diskweave{}", std::env::consts::EXE_SUFFIX);
    Ok(target_dir()?.join("release").join(program))
}

/// True when a program of this name is in the search path.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The command line as one would type it, without the path of the program.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        if argument.is_empty() || argument.contains([' ', '*', '$']) {
            let _ = write!(text, " '{argument}'");
        } else {
            let _ = write!(text, " {argument}");
        }
    }
    text
}

/// Shows and runs `command`; its exit code must be 0.
pub(crate) fn run(command: &mut Command) -> Outcome {
    run_to(command, 0)
}

/// Shows and runs `command`; its exit code must be `expected`.
pub(crate) fn run_to(command: &mut Command, expected: i32) -> Outcome {
    println!("$ {}", shown(command));
    let status = command
        .status()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    match status.code() {
        Some(code) if code == expected => Ok(()),
        Some(code) => Err(format!(
            "`{}` ended with exit code {code} instead of {expected}",
            shown(command)
        )),
        None => Err(format!("`{}` was ended by a signal", shown(command))),
    }
}

/// Runs `command` without showing it and returns what it printed; its exit code must be 0.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!(
            "`{}` failed: {}",
            shown(command),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
