//! In place of QEMU's tools: their arguments, their messages, their trust.
//!
//! A program that is called `qemu-img` or `qemu-nbd`, or by `diskweave --compat=NAME …`, is spoken to as
//! those are: options are taken apart as they take them ([`getopt`]), names may be image specifications
//! ([`image`]), any file that an image names is opened, and what goes wrong is told in their words
//! ([`wording`]). What is done is done by the same library calls, and shown by the same code, as what
//! [`commands`](crate::commands) do.

mod complaint;
mod findings;
mod getopt;
mod image;
mod options;
mod qemu_img;
mod qemu_nbd;
mod wording;

pub(crate) use wording::reason_of as reason;

use std::ffi::OsString;
use std::path::Path;

use complaint::Complaint;

/// One of the tools in whose place this program can be called.
#[derive(Debug, Clone, Copy)]
struct Tool {
    name: &'static str,
    /// Gets the words it was called by and the arguments after them, and gives the exit code.
    run: fn(&str, &[OsString]) -> Result<u8, Complaint>,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "qemu-img",
        run: qemu_img::run,
    },
    Tool {
        name: "qemu-nbd",
        run: qemu_nbd::run,
    },
];

/// Runs the tool that the program is called as, and gives its exit code; `None` if it is called by its
/// own name.
pub(crate) fn run() -> Option<u8> {
    let mut arguments = std::env::args_os();
    let called = arguments.next()?.to_string_lossy().into_owned();
    let mut rest: Vec<OsString> = arguments.collect();
    if let Some(tool) = TOOLS.iter().find(|tool| tool.name == name_of(&called)) {
        return Some(run_as(tool, &called, &rest));
    }
    let first = rest.first()?.to_str()?;
    let wanted = match (first, first.strip_prefix("--compat=")) {
        (_, Some(name)) => name.to_string(),
        ("--compat", None) => {
            let name = rest.get(1)?.to_string_lossy().into_owned();
            rest.remove(0);
            name
        }
        _ => return None,
    };
    rest.remove(0);
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == wanted) else {
        let names = TOOLS.iter().map(|tool| tool.name).collect::<Vec<_>>();
        let text = format!(
            "--compat takes the place of {}, not of {wanted:?}",
            names.join(" or ")
        );
        Complaint::new(text).show("diskweave");
        return Some(1);
    };
    Some(run_as(tool, tool.name, &rest))
}

/// Runs `tool`, called by the path `called`, and says what went wrong.
fn run_as(tool: &Tool, called: &str, arguments: &[OsString]) -> u8 {
    (tool.run)(called, arguments).unwrap_or_else(|complaint| {
        complaint.show(name_of(called));
        complaint.code
    })
}

/// The name at the end of the path that a program was called by.
fn name_of(called: &str) -> &str {
    let name = Path::new(called).file_stem().and_then(|name| name.to_str());
    name.unwrap_or(called)
}
