//! The program: all of it is in the library beside this.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    diskweave_cli::run()
}
