//! JSON as `qemu-img` lays it out: four spaces a level.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::failure::Failure;

/// Prints `value` and a line's end.
pub(crate) fn print(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let formatter = PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}
