//! Image specifications: a file's name, `json:{…}`, or `driver=…,file.filename=…` as `--image-opts` has it.

use std::path::{Path, PathBuf};

use diskweave::chain::Chain;
use diskweave::core::BlockDevice;
use diskweave::core::locate::ChainPolicy;
use diskweave::{OpenDisk, SnapshotName};
use serde_json::{Map, Value};

use super::complaint::Complaint;
use super::wording;
use crate::args::{Image, Open};
use crate::output::plain::complain;

/// An image that was named on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// What was said.
    pub(crate) said: String,
    /// The file that is meant.
    pub(crate) path: PathBuf,
    /// Its format; guessed if none.
    pub(crate) format: Option<String>,
    /// Read what another process is writing to.
    shared: bool,
    snapshot: Option<SnapshotName>,
}

/// How QEMU says that a name leads to no image.
fn cannot(said: &str, reason: &str) -> Complaint {
    Complaint::new(format!("Could not open '{said}': {reason}"))
}

impl Named {
    /// The image that `said` names: a file, or what `json:` describes.
    pub(crate) fn new(said: &str, format: Option<String>, shared: bool) -> Result<Self, Complaint> {
        if let Some(text) = said.strip_prefix("json:") {
            let value: Value = serde_json::from_str(text).map_err(|error| {
                cannot(said, &format!("Could not parse the JSON options: {error}"))
            })?;
            let Value::Object(options) = value else {
                return Err(cannot(said, "Invalid JSON object given"));
            };
            let mut flat = Vec::new();
            flatten("", &options, &mut flat);
            return Self::described(said, &flat, format, shared);
        }
        let path = said.strip_prefix("file:").unwrap_or(said);
        Ok(Self {
            said: said.into(),
            path: path.into(),
            format,
            shared,
            snapshot: None,
        })
    }

    /// The image that `said` describes by `KEY=VALUE,…`.
    pub(crate) fn of_options(said: &str, shared: bool) -> Result<Self, Complaint> {
        if !said.is_empty() && !said.contains('=') {
            let reason = format!("Cannot find device='{said}' nor node-name='{said}'");
            return Err(cannot(said, &reason));
        }
        let options = key_values(said);
        Self::described(said, &options, None, shared)
    }

    fn described(
        said: &str,
        options: &[(String, String)],
        format: Option<String>,
        shared: bool,
    ) -> Result<Self, Complaint> {
        let mut driver = format;
        let mut file = Location::default();
        let says = |wanted: &str| options.iter().any(|(key, _)| key.starts_with(wanted));
        if driver.is_none() && !says("driver") && !says("file.") {
            return Err(cannot(said, "Must specify either driver or file"));
        }
        for (key, value) in options {
            match &**key {
                "driver" => driver = Some(value.clone()),
                // What is read is the same with or without.
                "read-only"
                | "auto-read-only"
                | "cache.direct"
                | "cache.no-flush"
                | "discard"
                | "detect-zeroes"
                | "node-name"
                | "lazy-refcounts"
                | "l2-cache-size"
                | "refcount-cache-size"
                | "cache-size"
                | "force-share" => {}
                key => {
                    let known = match key.strip_prefix("file.") {
                        Some(key) => file.set(key, value),
                        None if matches!(driver.as_deref(), Some("file" | "nbd")) => {
                            file.set(key, value)
                        }
                        None => false,
                    };
                    if !known {
                        let format = driver.as_deref().unwrap_or("raw");
                        let reason =
                            format!("Block format '{format}' does not support the option '{key}'");
                        return Err(cannot(said, &reason));
                    }
                }
            }
        }
        if let Some(protocol) = &file.protocol
            && !["file", "nbd"].contains(&&**protocol)
        {
            let reason = format!("images are read from files and by nbd, not by '{protocol}'");
            return Err(cannot(said, &reason));
        }
        let format = match driver.as_deref() {
            Some("file") => Some("raw".to_string()),
            Some("nbd") => {
                file.protocol.get_or_insert_with(|| "nbd".into());
                Some("raw".to_string())
            }
            _ => driver,
        };
        let Some(path) = file.name() else {
            let reason = "A block device must be specified for \"file\"";
            return Err(cannot(said, reason));
        };
        Ok(Self {
            said: said.into(),
            path: path.into(),
            format,
            shared,
            snapshot: None,
        })
    }

    /// The same, as an internal snapshot has it.
    pub(crate) fn with_snapshot(mut self, snapshot: Option<SnapshotName>) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// How it is spoken of in messages: as it was said.
    pub(crate) fn name(&self) -> &str {
        &self.said
    }

    /// The same for the commands that diskweave has under its own name.
    pub(crate) fn to_arguments(&self) -> Image {
        Image::new(Open::trusting(self.shared), self.format.clone(), &self.path)
    }

    /// The library's options for it: whatever it names is opened.
    pub(crate) fn disk(&self) -> Result<OpenDisk, Complaint> {
        if let Some(format) = &self.format
            && diskweave::driver(format).is_none()
        {
            return Err(cannot(&self.said, &format!("Unknown driver '{format}'")));
        }
        let disk = self.to_arguments().disk();
        Ok(match &self.snapshot {
            Some(snapshot) => disk.snapshot(snapshot.clone()),
            None => disk,
        })
    }

    /// Opens it with all its parents, for reading.
    pub(crate) fn open(&self) -> Result<Chain, Complaint> {
        self.open_by(self.disk()?)
    }

    /// Opens it alone, for reading.
    pub(crate) fn open_alone(&self) -> Result<Chain, Complaint> {
        let disk = self.disk()?.policy(ChainPolicy::Deny);
        disk.open(&self.path).map_err(|e| self.cannot_open(&e))
    }

    /// The library's options for it where it is written to.
    pub(crate) fn disk_to_write(&self) -> Result<OpenDisk, Complaint> {
        if self.shared {
            let reason = "force-share=on can only be used with read-only images";
            return Err(cannot(&self.said, reason));
        }
        Ok(self.disk()?.writable())
    }

    /// Opens it with all its parents, itself for writing.
    pub(crate) fn open_writable(&self) -> Result<Chain, Complaint> {
        let chain = self.open_by(self.disk_to_write()?)?;
        self.warn_of_guess(&chain);
        Ok(chain)
    }

    /// Warns of what is written to a raw image that was only guessed to be one.
    pub(crate) fn warn_of_guess(&self, chain: &Chain) {
        self.warn_if_raw(chain.info().format);
    }

    /// The same for an image that was found to be of `format`.
    pub(crate) fn warn_if_raw(&self, format: &str) {
        if self.format.is_none() && format == "raw" {
            complain(&wording::guessed_raw(&self.said));
        }
    }

    fn open_by(&self, disk: OpenDisk) -> Result<Chain, Complaint> {
        match disk.open_partial(&self.path) {
            Ok((chain, None)) => Ok(chain),
            Ok((chain, Some(problem))) => {
                Err(cannot(&self.said, &wording::parent(&chain, &problem)))
            }
            Err(error) => Err(self.cannot_open(&error)),
        }
    }

    /// That it cannot be opened.
    pub(crate) fn cannot_open(&self, error: &diskweave::core::Error) -> Complaint {
        if self.snapshot.is_some() && error.message().starts_with("there is no snapshot") {
            return Complaint::new("Failed to load snapshot: Can't find snapshot");
        }
        cannot(&self.said, &wording::opening(error, &self.path))
    }
}

/// Where an image lies, as the keys of a protocol driver say it.
#[derive(Debug, Default)]
struct Location {
    protocol: Option<String>,
    filename: Option<String>,
    socket: Option<String>,
    host: Option<String>,
    port: Option<String>,
    export: Option<String>,
}

impl Location {
    /// Takes in one key; `false` if it means nothing here.
    fn set(&mut self, key: &str, value: &str) -> bool {
        let place = match key {
            "driver" => &mut self.protocol,
            "filename" => &mut self.filename,
            "path" | "server.path" => &mut self.socket,
            "host" | "server.host" => &mut self.host,
            "port" | "server.port" => &mut self.port,
            "export" => &mut self.export,
            "server.type" | "locking" | "aio" | "cache.direct" | "cache.no-flush" | "read-only"
            | "node-name" | "discard" => return true,
            _ => return false,
        };
        *place = Some(value.into());
        true
    }

    /// The name by which it is opened.
    fn name(&self) -> Option<String> {
        if self.protocol.as_deref() != Some("nbd") {
            return self.filename.clone();
        }
        let export = self.export.as_deref().unwrap_or_default();
        if let Some(socket) = &self.socket {
            return Some(format!("nbd+unix:///{export}?socket={socket}"));
        }
        let host = self.host.as_deref()?;
        let port = self.port.as_deref().unwrap_or("10809");
        Some(format!("nbd://{host}:{port}/{export}"))
    }
}

/// `a=1,b=2`, a comma in a value written twice.
pub(crate) fn key_values(text: &str) -> Vec<(String, String)> {
    const ONE_COMMA: &str = "\0";
    let text = text.replace(",,", ONE_COMMA);
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let part = part.replace(ONE_COMMA, ",");
            match part.split_once('=') {
                Some((key, value)) => (key.into(), value.into()),
                None => (part, "on".into()),
            }
        })
        .collect()
}

/// The leaves of `options` under dotted keys.
fn flatten(prefix: &str, options: &Map<String, Value>, flat: &mut Vec<(String, String)>) {
    for (key, value) in options {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => flatten(&format!("{key}."), inner, flat),
            Value::String(text) => flat.push((key, text.clone())),
            Value::Bool(true) => flat.push((key, "on".into())),
            Value::Bool(false) => flat.push((key, "off".into())),
            other => flat.push((key, other.to_string())),
        }
    }
}

/// The directory that relative names in or beside the image at `path` start from.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(said: &str) -> Option<(String, Option<String>)> {
        let named = match said.contains("json:") {
            true => Named::new(said, None, false),
            false => Named::of_options(said, false),
        };
        let named = named.ok()?;
        Some((named.path.display().to_string(), named.format))
    }

    #[test]
    fn the_same_image_is_described_in_many_ways() {
        let expected = Some(("a,b.q".to_string(), Some("qcow2".to_string())));
        for said in [
            "driver=qcow2,file.filename=a,,b.q",
            "driver=qcow2,file.driver=file,file.filename=a,,b.q,read-only=on",
            r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a,b.q"}}"#,
            r#"json:{"file.filename":"a,b.q","driver":"qcow2"}"#,
        ] {
            assert_eq!(place(said), expected, "{said}");
        }
        let nbd = Some(("nbd://host:10809/x".into(), Some("raw".into())));
        assert_eq!(place("driver=nbd,host=host,export=x"), nbd);
        let nbd = Some((
            "nbd+unix:///?socket=/run/s".to_string(),
            Some("qcow2".to_string()),
        ));
        let said = "driver=qcow2,file.driver=nbd,file.server.type=unix,file.server.path=/run/s";
        assert_eq!(place(said), nbd);
    }

    #[test]
    fn what_is_not_understood_is_not_passed_over() {
        for said in [
            "filename=a",
            "driver=qcow2",
            "driver=qcow2,file.filename=a,backing.file.filename=b",
            "driver=raw,offset=512,file.filename=a",
            "driver=raw,file.driver=http,file.filename=a",
            "json:{bad",
            "json:[1]",
        ] {
            assert_eq!(place(said), None, "{said}");
        }
    }
}
