//! `rebase`.

use std::path::{Path, PathBuf};

use diskweave::core::BlockDevice;
use diskweave::core::locate::ChainPolicy;
use diskweave::qcow2::{Amendment, Backing};
use diskweave::{Amend, amend, forget_parent, rebase};

use super::call::{Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, QUIET};
use crate::compat::complaint::Complaint;
use crate::compat::getopt::Flag;
use crate::compat::image::{Named, directory};
use crate::compat::wording;
use crate::interrupt::{INTERRUPTED, until_asked};

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    PROGRESS,
    FORMAT,
    IMAGE_OPTS,
    Flag::value('t', "cache"),
    Flag::value('b', "backing"),
    Flag::value('F', "backing-format"),
    Flag::value('T', "backing-cache"),
    Flag::switch('u', "backing-unsafe"),
    Flag::switch('c', "compress"),
    FORCE_SHARE,
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let said = &call.said;
    let mut image = call.one_image()?;
    let (name, unchecked) = (said.value("backing"), said.has("backing-unsafe"));
    if name.is_none() && !unchecked {
        let text = "Must specify backing file (-b) or use unsafe mode (-u)";
        return Err(call.usage(text));
    }
    call.check_cache("cache", "cache")?;
    call.check_cache("backing-cache", "source cache")?;
    let name = name.unwrap_or_default();
    let format = said.value("backing-format");
    if let Some(format) = &format
        && diskweave::driver(format).is_none()
    {
        return Err(Complaint::new(format!("Invalid format name: '{format}'")));
    }
    image.format = Some(kind(&image, unchecked)?);
    if said.has("compress") {
        if image.format.as_deref() != Some("qcow2") {
            let text = "Compression not supported for this file format";
            return Err(Complaint::new(text));
        }
        if unchecked {
            return refer(&image, &name, format);
        }
        let text = "what is copied into the image is not compressed here";
        return Err(Complaint::new(text));
    }
    match unchecked {
        true => refer(&image, &name, format),
        false => move_over(call, &image, &name, format),
    }
}

/// The image's format; all of its parents can be opened, unless nobody looks at them.
fn kind(image: &Named, unchecked: bool) -> Result<String, Complaint> {
    let chain = match unchecked {
        true => {
            let alone = image
                .disk()?
                .policy(ChainPolicy::Deny)
                .open_partial(&image.path);
            alone.map_err(|error| image.cannot_open(&error))?.0
        }
        false => image.open()?,
    };
    image.warn_of_guess(&chain);
    Ok(chain.info().format.to_string())
}

fn cannot_change(name: &str, reason: &str) -> Complaint {
    let text = format!("Could not change the backing file to '{name}': {reason}");
    Complaint::new(text)
}

/// Only has `image` name another parent.
fn refer(image: &Named, name: &str, format: Option<String>) -> Result<u8, Complaint> {
    let disk = image.disk()?;
    match image.format.as_deref() {
        Some("qcow2") => {}
        Some("vhdx") if name.is_empty() => {
            let done = forget_parent(&image.path, &disk);
            done.map_err(|error| cannot_change(name, &wording::errno(&error)))?;
            return Ok(0);
        }
        _ => return Err(cannot_change(name, "Operation not supported")),
    }
    let backing = match (name, format) {
        ("", _) => None,
        (_, None) => return Err(cannot_change(name, "backing format must be specified")),
        (name, Some(format)) => Some(Backing {
            name: name.into(),
            format,
        }),
    };
    let mut change = Amendment::default();
    change.backing = Some(backing);
    amend(&image.path, &disk, &Amend::Qcow2(change))
        .map_err(|error| cannot_change(name, &wording::errno(&error)))?;
    Ok(0)
}

/// Puts another disk below `image`, which reads the same over it.
fn move_over(
    call: &Call,
    image: &Named,
    name: &str,
    format: Option<String>,
) -> Result<u8, Complaint> {
    let disk = image.disk()?;
    let parent = match name {
        "" => None,
        name => {
            let path = match name.contains("://") {
                true => name.into(),
                false => directory(&image.path).join(name),
            };
            let told = format.is_some();
            let named = Named::new(&path.to_string_lossy(), format, false)?;
            let opened = named.disk()?.open(&named.path);
            let chain = opened.map_err(|error| {
                let reason = wording::opening(&error, &named.path);
                Complaint::new(format!(
                    "Could not open new backing file '{name}': {reason}"
                ))
            })?;
            if image.format.as_deref() == Some("raw") {
                return Err(cannot_change(name, "Operation not supported"));
            }
            let same = |path: &Path| path.canonicalize().ok();
            if same(&named.path).is_some() && same(&named.path) == same(&image.path) {
                let reason =
                    "Failed to get shared \"write\" lock\nIs another process using the image";
                let text = format!("Could not open new backing file '{name}': {reason} [{name}]?");
                return Err(Complaint::new(text));
            }
            if !told {
                return Err(cannot_change(name, "backing format must be specified"));
            }
            Some((chain, PathBuf::from(name)))
        }
    };
    if image.format.as_deref() == Some("raw") {
        return Err(cannot_change(name, "Operation not supported"));
    }
    let (done, interrupted) = until_asked(call.progress(), |watcher| {
        let parent = parent.as_ref().map(|(chain, name)| (chain, &**name));
        rebase(&image.path, &disk, parent, watcher)
    });
    done.map_err(|error| {
        let code = if interrupted { INTERRUPTED } else { 1 };
        cannot_change(name, &wording::errno(&error)).with_code(code)
    })?;
    Ok(0)
}
