//! The library's errors in QEMU's words, where QEMU has any.
//!
//! What is not told apart here keeps the library's own words, which say more.

use std::error::Error as _;
use std::io;
use std::path::Path;

use diskweave::chain::Chain;
use diskweave::core::{Error, ErrorKind};
use diskweave::qcow2::Qcow2Error;
use diskweave::vhdx::VhdxError;

/// Why the image at `path` cannot be opened: what follows `Could not open 'NAME': `.
pub(crate) fn opening(error: &Error, path: &Path) -> String {
    let name = path.display();
    if path.as_os_str().is_empty() {
        return "The 'file' block driver requires a file name".into();
    }
    if path.is_dir() {
        return format!("'file' driver requires '{name}' to be a regular file");
    }
    if let Some(reason) = host(error) {
        return format!("Could not open '{name}': {reason}");
    }
    if error.kind() == ErrorKind::Locked {
        return format!(
            "{}\nIs another process using the image [{name}]?",
            lock(error)
        );
    }
    if let Some(reason) = cause::<Qcow2Error>(error).and_then(qcow2) {
        return reason;
    }
    if let Some(reason) = cause::<VhdxError>(error).and_then(vhdx) {
        return reason.replace("NAME", &name.to_string());
    }
    error.to_string()
}

/// Why a parent of `chain`, which is as far as it could be opened, cannot be.
pub(crate) fn parent(chain: &Chain, problem: &Error) -> String {
    let nested = "Could not open backing file: ".repeat(chain.layer_count());
    match (host(problem), missing_parent(chain)) {
        (Some(reason), Some(name)) => format!("{nested}Could not open '{name}': {reason}"),
        _ => format!("{nested}{problem}"),
    }
}

/// The first name that the lowest image of `chain` has for its parent, as a path from where we are.
pub(crate) fn missing_parent(chain: &Chain) -> Option<String> {
    let name = &chain.missing_parent()?.names.first()?.stored;
    let lowest = chain.links().last()?;
    let directory = lowest.path.and_then(Path::parent).unwrap_or(Path::new(""));
    Some(directory.join(name).display().to_string())
}

/// What the host said, if it is the host's failure, as `strerror` has it.
pub(crate) fn host(error: &Error) -> Option<String> {
    cause::<io::Error>(error).map(reason_of)
}

/// `error` without the number that Rust puts behind it.
pub(crate) fn reason_of(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// `error` as QEMU names an errno where it says no more than that.
pub(crate) fn errno(error: &Error) -> String {
    if let Some(reason) = host(error) {
        return reason;
    }
    match error.kind() {
        ErrorKind::Unsupported => "Operation not supported".into(),
        ErrorKind::NoSpace => "No space left on device".into(),
        _ => error.to_string(),
    }
}

/// Which of QEMU's locks was not to be had.
fn lock(error: &Error) -> &'static str {
    match error.message().contains("writ") {
        true => "Failed to get \"write\" lock",
        false => "Failed to get shared \"write\" lock",
    }
}

/// Why the image at `path` cannot be made.
pub(crate) fn creating(error: &Error, path: &str) -> String {
    if let Some(reason) = host(error) {
        return format!("Could not create '{path}': {reason}");
    }
    let own = error.kind() == ErrorKind::InvalidInput && error.message().contains("source is read");
    if own || error.kind() == ErrorKind::Locked {
        return format!(
            "Failed to get \"write\" lock\nIs another process using the image [{path}]?"
        );
    }
    error.to_string()
}

/// Whether QEMU knows images of `format`, made here or not.
pub(crate) fn is_known_format(format: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "vmdk",
        "vdi",
        "vpc",
        "qcow",
        "qed",
        "luks",
        "parallels",
        "bochs",
        "cloop",
        "dmg",
        "vvfat",
        "blkdebug",
    ];
    diskweave::driver(format).is_some() || OTHERS.contains(&format)
}

/// What QEMU says to whoever writes to an image that was guessed to be raw.
pub(crate) fn guessed_raw(name: &str) -> String {
    format!(
        "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n         \
         Automatically detecting the format is dangerous for raw images, write operations on block 0 \
         will be restricted.\n         Specify the 'raw' format explicitly to remove the restrictions."
    )
}

fn qcow2(error: &Qcow2Error) -> Option<String> {
    Some(match error {
        Qcow2Error::NotQcow2 => "Image is not in qcow2 format".into(),
        Qcow2Error::Version { found } => format!("Unsupported qcow2 version {found}"),
        Qcow2Error::UnknownFeatures { names } => {
            let names = unknown_bits(names).unwrap_or_else(|| names.clone());
            format!("Unsupported qcow2 feature(s): {names}")
        }
        Qcow2Error::CompressionType { found } => {
            format!("qcow2: unknown compression type: {found}")
        }
        Qcow2Error::Field { field, found, .. } => match *field {
            "cluster_bits" => format!("Unsupported cluster size: 2^{found}"),
            "refcount_order" => {
                "Reference count entry width too large; may not exceed 64 bits".into()
            }
            "header_length" | "length of the file" => "qcow2 header too short".into(),
            "l1_table_offset" => "Active L1 table offset invalid".into(),
            "refcount_table_offset" => "Reference count table offset invalid".into(),
            "snapshots_offset" => "Snapshot table offset invalid".into(),
            "l1_size" => "L1 table is too small".into(),
            _ => return None,
        },
        Qcow2Error::Limit {
            field: "l1_size", ..
        } => "Active L1 table too large".into(),
        _ => return None,
    })
}

/// Features that have no name in the image, as the number that their bits make.
fn unknown_bits(names: &str) -> Option<String> {
    let bits = names.split(", ").map(|name| {
        let bit: u32 = name.strip_prefix("bit ")?.parse().ok()?;
        1_u64.checked_shl(bit)
    });
    let mask = bits.sum::<Option<u64>>()?;
    Some(format!("Unknown incompatible feature: {mask:x}"))
}

fn vhdx(error: &VhdxError) -> Option<String> {
    Some(match error {
        VhdxError::NotVhdx => "Could not open 'NAME': Invalid argument".into(),
        VhdxError::NoValidCopy { structure, .. } if structure.contains("header") => {
            "No valid VHDX header found".into()
        }
        _ => return None,
    })
}

/// The nearest cause of `error` that is a `T`.
fn cause<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}
