//! `qemu-img`: one verb a file.

mod amend;
mod bench;
mod bitmap;
mod call;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod dd;
mod info;
mod map;
mod measure;
mod rebase;
mod resize;
mod snapshot;

use std::ffi::OsString;

use call::Call;
pub(super) use call::{Size, parse_size};

use super::complaint::Complaint;
use super::getopt::{self, Flag};
use crate::output::plain::print;

/// One thing that can be asked for.
struct Verb {
    name: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    /// Does it, and gives the exit code.
    run: fn(&Call) -> Result<u8, Complaint>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "amend",
        about: "change what an image is",
        flags: amend::FLAGS,
        run: amend::run,
    },
    Verb {
        name: "bench",
        about: "time so many requests",
        flags: bench::FLAGS,
        run: bench::run,
    },
    Verb {
        name: "bitmap",
        about: "change bitmaps, which is refused",
        flags: bitmap::FLAGS,
        run: bitmap::run,
    },
    Verb {
        name: "check",
        about: "check an image, and repair it",
        flags: check::FLAGS,
        run: check::run,
    },
    Verb {
        name: "commit",
        about: "move what an image holds into one of its parents",
        flags: commit::FLAGS,
        run: commit::run,
    },
    Verb {
        name: "compare",
        about: "compare what two disks read",
        flags: compare::FLAGS,
        run: compare::run,
    },
    Verb {
        name: "convert",
        about: "write a disk out as another image",
        flags: convert::FLAGS,
        run: convert::run,
    },
    Verb {
        name: "create",
        about: "make an image that holds nothing",
        flags: create::FLAGS,
        run: create::run,
    },
    Verb {
        name: "dd",
        about: "write a part of a disk out as another image",
        flags: dd::FLAGS,
        run: dd::run,
    },
    Verb {
        name: "info",
        about: "tell what an image is",
        flags: info::FLAGS,
        run: info::run,
    },
    Verb {
        name: "map",
        about: "tell what each part of a disk is, and where it is stored",
        flags: map::FLAGS,
        run: map::run,
    },
    Verb {
        name: "measure",
        about: "tell how much space an image will take",
        flags: measure::FLAGS,
        run: measure::run,
    },
    Verb {
        name: "rebase",
        about: "put another disk below an image",
        flags: rebase::FLAGS,
        run: rebase::run,
    },
    Verb {
        name: "resize",
        about: "give a disk another size",
        flags: resize::FLAGS,
        run: resize::run,
    },
    Verb {
        name: "snapshot",
        about: "list, take, apply or delete internal snapshots",
        flags: snapshot::FLAGS,
        run: snapshot::run,
    },
];

/// Options that stand before the verb, and which every verb has.
const STANDARD: &[Flag] = &[
    Flag::switch('h', "help"),
    Flag::switch('V', "version"),
    Flag::value('T', "trace"),
];
const HELP: Flag = Flag::switch('h', "help");

/// Runs it with `arguments`, called by the path `name`, and gives the exit code.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Result<u8, Complaint> {
    // The verb ends what is the program's.
    let mut leading = 0;
    while let Some(argument) = arguments.get(leading)
        && argument.len() > 1
        && argument.to_string_lossy().starts_with('-')
    {
        leading += match argument.to_str() {
            Some("-T" | "--trace") => 2,
            _ => 1,
        };
    }
    let leading = leading.min(arguments.len());
    let standard = getopt::parse(name, STANDARD, &arguments[..leading])?;
    if standard.has("help") {
        print(&help(name))?;
        return Ok(0);
    }
    if standard.has("version") {
        print(&format!(
            "{name}: diskweave {}\n",
            env!("CARGO_PKG_VERSION")
        ))?;
        return Ok(0);
    }
    let Some(wanted) = arguments.get(leading) else {
        return Err(Complaint::try_help(name, "Not enough arguments"));
    };
    let wanted = wanted.to_string_lossy();
    let Some(verb) = VERBS.iter().find(|verb| verb.name == wanted) else {
        let text = format!("Command not found: {wanted}");
        return Err(Complaint::try_help(name, text));
    };
    let speaker = format!("{name} {}", verb.name);
    let flags: Vec<Flag> = [HELP].iter().chain(verb.flags).copied().collect();
    let arguments = &arguments[leading + 1..];
    let said = match verb.name {
        "resize" => getopt::parse(&speaker, &flags, &resize::shield(arguments))?,
        _ => getopt::parse(&speaker, &flags, arguments)?,
    };
    if said.has("help") {
        print(&verb_help(&speaker, verb))?;
        return Ok(0);
    }
    let call = Call::new(name, verb.name, said);
    call.check_objects()?;
    (verb.run)(&call)
}

fn help(name: &str) -> String {
    let mut text = format!(
        "usage: {name} [-h | -V | -T TRACE] COMMAND [OPTIONS]\n\nCommands, with their options by \
         '{name} COMMAND --help':\n\n"
    );
    for verb in VERBS {
        text += &format!("  {:<10}{}\n", verb.name, verb.about);
    }
    let formats = diskweave::drivers().iter().map(|driver| driver.name());
    let formats: Vec<&str> = formats.collect();
    text + &format!("\nFormats: {}\n", formats.join(" "))
}

fn verb_help(speaker: &str, verb: &Verb) -> String {
    let mut text = format!("{}\n\nusage: {speaker} [OPTIONS] …\n\n", verb.about);
    for flag in verb.flags {
        let value = if flag.takes_value { " VALUE" } else { "" };
        text += &match flag.short {
            Some(short) => format!("  -{short}, --{}{value}\n", flag.long),
            None => format!("      --{}{value}\n", flag.long),
        };
    }
    text
}
