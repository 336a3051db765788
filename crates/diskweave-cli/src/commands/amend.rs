//! `amend`: what an image is, changed; the disk stays what it reads.

use diskweave::core::ErrorKind;
use diskweave::qcow2::Amendment;
use diskweave::{Amend, OpenDisk, amend, resize};

use super::new_image::pairs;
use super::shown;
use crate::args::Amend as Arguments;
use crate::failure::Failure;
use crate::output::size;

pub(crate) fn run(args: &Arguments) -> Result<u8, Failure> {
    let file = &args.image.file;
    let about = |e| Failure::about(shown(file), e);
    let open = args.image.disk();
    let format = {
        let (chain, _) = open.open_partial(file).map_err(about)?;
        chain.top().info().format
    };
    let options = pairs(&args.options)?;
    let change = match format {
        "qcow2" => qcow2(&options)?,
        "vhdx" => vhdx(&options)?,
        other => {
            let text = format!("images of format {other} have nothing to amend");
            return Err(Failure::new(text));
        }
    };
    if let Some(change) = &change.image {
        amend(file, &open, change).map_err(about)?;
    }
    if let Some(size) = change.size {
        grow(args, &open, size)?;
    }
    Ok(0)
}

/// What the options ask for.
struct Change {
    image: Option<Amend>,
    size: Option<u64>,
}

/// Another size, in which nothing of the disk is lost.
fn grow(args: &Arguments, open: &OpenDisk, size: u64) -> Result<(), Failure> {
    let file = &args.image.file;
    let about = |e| Failure::about(shown(file), e);
    let mut chain = open.clone().writable().open(file).map_err(about)?;
    if size < diskweave::core::BlockDevice::size(&chain) {
        let text = "a disk is made shorter by resize --shrink alone";
        return Err(about(diskweave::core::Error::new(
            ErrorKind::InvalidInput,
            text,
        )));
    }
    resize(&mut chain, size).map_err(about)?;
    chain.close().map_err(about)
}

fn wrong(key: &str, value: &str, expected: &str) -> Failure {
    Failure::new(format!("{key} is {value:?}, expected {expected}"))
}

fn unknown(key: &str) -> Failure {
    Failure::new(format!("{key:?} cannot be amended"))
}

fn qcow2(options: &[(&str, &str)]) -> Result<Change, Failure> {
    let mut change = Amendment::default();
    let mut size = None;
    for (key, value) in options {
        match *key {
            "compat" => {
                change.version = Some(match *value {
                    "0.10" | "v2" => 2,
                    "1.1" | "v3" => 3,
                    _ => return Err(wrong(key, value, "0.10 or 1.1")),
                });
            }
            "lazy_refcounts" => {
                change.lazy_refcounts = Some(match *value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(wrong(key, value, "on or off")),
                });
            }
            "refcount_bits" => {
                let bits: Option<u64> = value.parse().ok();
                let bits = bits.filter(|bits| bits.is_power_of_two());
                let bits = bits.ok_or_else(|| wrong(key, value, "a power of two up to 64"))?;
                change.refcount_order = Some(bits.trailing_zeros());
            }
            "backing_file" | "backing_fmt" => {
                let text = "the backing file is changed by rebase, with -u without a look at it";
                return Err(Failure::new(text));
            }
            "data_file" => change.data_file = Some((*value).to_string()),
            "size" => size = Some(size::parse(value).map_err(Failure::new)?),
            key => return Err(unknown(key)),
        }
    }
    let image = (change != Amendment::default()).then_some(Amend::Qcow2(change));
    Ok(Change { image, size })
}

fn vhdx(options: &[(&str, &str)]) -> Result<Change, Failure> {
    let (mut image, mut size) = (None, None);
    for (key, value) in options {
        match (*key, *value) {
            ("subformat", "fixed") => image = Some(Amend::Vhdx { fixed: true }),
            ("subformat", "dynamic") => image = Some(Amend::Vhdx { fixed: false }),
            ("subformat", value) => return Err(wrong(key, value, "fixed or dynamic")),
            ("size", value) => size = Some(size::parse(value).map_err(Failure::new)?),
            (key, _) => return Err(unknown(key)),
        }
    }
    Ok(Change { image, size })
}
