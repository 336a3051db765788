//! Does the steps of one hot path, under whatever counts what they execute.
//!
//! ```text
//!   loops                      the names of the paths, and how many steps make a count
//!   loops DIRECTORY NAME N     makes what the path needs, and does N steps
//! ```

use std::path::Path;
use std::process::ExitCode;

use hot_paths::PATHS;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => {
            for path in PATHS {
                println!("{} {}", path.name, path.steps);
            }
            Ok(())
        }
        [dir, name, steps] => {
            let path = PATHS.iter().find(|path| path.name == name);
            let path = path.ok_or("no such path")?;
            let steps: u64 = steps.parse().map_err(|_| "how many steps?")?;
            let mut step = path.prepare(Path::new(dir))?;
            for _ in 0..steps {
                step();
            }
            // Closing is no step; what it executes goes with what the preparation did.
            Ok(())
        }
        _ => Err("usage: loops [DIRECTORY NAME STEPS]".into()),
    }
}
