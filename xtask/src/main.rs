//! The project's tasks: `cargo xtask TASK`. No dependencies, one table.

// A program for people at a terminal: what it does is what it prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arrows;
mod bench;
mod compat;
mod crash;
mod demo;
mod disk_content;
mod dist;
mod formats;
mod fuzz;
mod interop;
mod model;
mod pages;
mod pictures;
mod planted;
mod setup;
mod sh;
mod soak;
mod test;

use std::process::ExitCode;

use sh::Outcome;

struct Task {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const TASKS: &[Task] = &[
    Task {
        name: "setup",
        arguments: "",
        about: "install the tools that tests compare with, where they are missing (apt)",
        run: |_| setup::run(),
    },
    Task {
        name: "test",
        arguments: "",
        about: "everything: setup, format, lints, tests, docs, arrows, features, locking, crash states, a short fuzz",
        run: |_| test::run(),
    },
    Task {
        name: "arrows",
        arguments: "",
        about: "check that crates depend on each other as the design says, and on nothing more",
        run: |_| arrows::run(),
    },
    Task {
        name: "demo",
        arguments: "",
        about: "build the command and show it at work on the images in testdata/",
        run: |_| demo::run(),
    },
    Task {
        name: "pages",
        arguments: "[DIRECTORY]",
        about: "write manual pages and shell completions, to target/pages if not said otherwise",
        run: pages::run,
    },
    Task {
        name: "dist",
        arguments: "[DIRECTORY]",
        about: "the command as it is handed out, with its other names and its pages, in target/package",
        run: dist::run,
    },
    Task {
        name: "fuzz",
        arguments: "TARGET|--all SECONDS",
        about: "fuzz one target, or each of them, for so many seconds",
        run: fuzz::run,
    },
    Task {
        name: "interop",
        arguments: "[--write [--format F]]",
        about: "every combination of options against qemu-img and others: read and made, or written",
        run: interop::run,
    },
    Task {
        name: "compat",
        arguments: "",
        about: "ask qemu-img and the command in its place the same, and compare their answers",
        run: |_| compat::run(),
    },
    Task {
        name: "crash",
        arguments: "[--format F] [--seconds N] [--seed S]",
        about: "verify every state that a crash can leave of an image that is written to",
        run: crash::run,
    },
    Task {
        name: "model",
        arguments: "[SECONDS]",
        about: "try the orders in which threads can get at the locks; each life for so many seconds",
        run: model::run,
    },
    Task {
        name: "planted",
        arguments: "[--format F] [NAME]",
        about: "plant known mistakes into a copy of the sources, and see that the proofs find them",
        run: planted::run,
    },
    Task {
        name: "soak",
        arguments: "SECONDS [--format F]",
        about: "a long random life of image files, checked and compared again and again",
        run: soak::run,
    },
    Task {
        name: "bench",
        arguments: "[GROUP…] [--mib N] [--rounds N] [--dir DIR]",
        about: "measure beside other engines and programs, and say which targets are met",
        run: bench::run,
    },
    Task {
        name: "pictures",
        arguments: "[RESULTS]",
        about: "draw what bench scale measured, and put the numbers into docs/performance.md",
        run: pictures::run,
    },
    Task {
        name: "help",
        arguments: "",
        about: "this list",
        run: |_| {
            print!("{}", help());
            Ok(())
        },
    },
];

fn help() -> String {
    let mut text = String::from("usage: cargo xtask TASK\n\n");
    for task in TASKS {
        let call = format!("{} {}", task.name, task.arguments);
        text.push_str(&format!("  {call:<36} {}\n", task.about));
    }
    text
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("help", String::as_str);
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprint!("no task {name:?}\n\n{}", help());
        return ExitCode::from(2);
    };
    match (task.run)(arguments.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nxtask {name}: {message}");
            ExitCode::FAILURE
        }
    }
}
