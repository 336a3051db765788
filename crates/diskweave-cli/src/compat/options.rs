//! `-o KEY=VALUE,…`: which options there are for which format, as QEMU's tools have them.

use std::fmt::Write;

use super::complaint::Complaint;
use super::qemu_img::{Size, parse_size};

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Number,
    Bytes,
    Text,
}

/// One option.
#[derive(Debug, Clone, Copy)]
struct Known {
    name: &'static str,
    kind: Kind,
    /// What it is if it is not said, where QEMU shows that.
    default: Option<&'static str>,
    about: &'static str,
}

const fn known(name: &'static str, kind: Kind, about: &'static str) -> Known {
    Known {
        name,
        kind,
        default: None,
        about,
    }
}

const fn with_default(known: Known, value: &'static str) -> Known {
    Known {
        default: Some(value),
        ..known
    }
}

/// Of every format.
const SIZE: Known = known("size", Kind::Bytes, "virtual disk size");
/// Of the file below, and without effect here.
const NOCOW: Known = known("nocow", Kind::Switch, "accepted, without effect");
const EXTENT_HINT: Known = known("extent_size_hint", Kind::Bytes, "accepted, without effect");

/// In the order in which QEMU shows them.
const QCOW2: &[Known] = &[
    with_default(
        known("cluster_size", Kind::Bytes, "512 to 2M, a power of two"),
        "65536",
    ),
    with_default(
        known("extended_l2", Kind::Switch, "L2 entries with subclusters"),
        "off",
    ),
    known("preallocation", Kind::Text, "off, metadata, falloc or full"),
    with_default(
        known("compression_type", Kind::Text, "zlib or zstd"),
        "zlib",
    ),
    SIZE,
    known("compat", Kind::Text, "v2 (0.10) or v3 (1.1)"),
    known("backing_file", Kind::Text, "the image to read below it"),
    known("backing_fmt", Kind::Text, "format of that image"),
    known("data_file", Kind::Text, "the file that guest data goes to"),
    known("data_file_raw", Kind::Switch, "that file stays a raw image"),
    with_default(
        known("lazy_refcounts", Kind::Switch, "refcounts may lag behind"),
        "off",
    ),
    with_default(
        known("refcount_bits", Kind::Number, "1 to 64, a power of two"),
        "16",
    ),
    NOCOW,
    EXTENT_HINT,
];

const VHDX: &[Known] = &[
    SIZE,
    with_default(known("log_size", Kind::Bytes, "1M and more"), "1048576"),
    with_default(
        known("block_size", Kind::Bytes, "1M to 256M, 0 to have it chosen"),
        "0",
    ),
    known("subformat", Kind::Text, "dynamic or fixed"),
    known("block_state_zero", Kind::Switch, "accepted, without effect"),
];

const RAW: &[Known] = &[
    SIZE,
    NOCOW,
    known("preallocation", Kind::Text, "off, falloc or full"),
    EXTENT_HINT,
];

/// Those of QEMU that nothing here does.
const NOT_DONE: [&str; 2] = ["encryption", "encrypt."];

/// Options of an image that is to be made or changed, as they were said.
#[derive(Debug, Clone)]
pub(crate) struct ImageOptions {
    format: &'static str,
    known: &'static [Known],
    /// By name; of several the last one counts.
    said: Vec<(&'static str, String)>,
}

/// Whether somebody asks which options there are.
pub(crate) fn asks_for_help(lists: &[String]) -> bool {
    let mut items = lists.iter().flat_map(|list| list.split(','));
    items.any(|item| item == "help" || item == "?")
}

/// Refuses lists of options in which something is missing.
pub(crate) fn check_lists(lists: &[String]) -> Result<(), Complaint> {
    let lacks = |list: &&String| list.is_empty() || list.starts_with(',') || list.ends_with(',');
    match lists.iter().find(lacks) {
        Some(list) => Err(Complaint::new(format!("Invalid option list: {list}"))),
        None => Ok(()),
    }
}

impl ImageOptions {
    /// Options of the format called `format`; `None` if there is no such format.
    pub(crate) fn of_format(format: &str) -> Option<Self> {
        let (format, known) = match format {
            "raw" => ("raw", RAW),
            "qcow2" => ("qcow2", QCOW2),
            "vhdx" => ("vhdx", VHDX),
            _ => return None,
        };
        Some(Self {
            format,
            known,
            said: Vec::new(),
        })
    }

    /// The format's name.
    pub(crate) fn format(&self) -> &'static str {
        self.format
    }

    /// Takes in what was said by `-o`, once or several times.
    pub(crate) fn take(&mut self, lists: &[String]) -> Result<(), Complaint> {
        for list in lists {
            for (key, value) in super::image::key_values(list) {
                self.set(&key, value)?;
            }
        }
        Ok(())
    }

    /// Takes in one of them.
    pub(crate) fn set(&mut self, key: &str, value: String) -> Result<(), Complaint> {
        let not_done = |key: &str| NOT_DONE.iter().any(|name| key.starts_with(name));
        let of_it = |key: &str| self.known.iter().find(|known| known.name == key).copied();
        // A switch may be said by its name alone, and by its name after `no`.
        let (known, value) = match (of_it(key), key.strip_prefix("no").and_then(of_it)) {
            (Some(known), _) => (known, value),
            (None, Some(known)) if known.kind == Kind::Switch => (known, "off".into()),
            _ if not_done(key) && self.format == "qcow2" => {
                let text = format!("'{key}': encrypted images are not made");
                return Err(Complaint::new(text));
            }
            _ => return Err(Complaint::new(format!("Invalid parameter '{key}'"))),
        };
        let expects =
            |what: &str| Complaint::new(format!("Parameter '{}' expects {what}", known.name));
        let value = match known.kind {
            Kind::Text => value,
            Kind::Switch => match &*value {
                "on" | "off" | "yes" | "no" | "true" | "false" | "y" | "n" => value,
                _ => return Err(expects("'on' or 'off'")),
            },
            Kind::Number => match value.parse::<i64>() {
                Ok(_) => value,
                Err(_) => return Err(expects("a number")),
            },
            Kind::Bytes => match parse_size(&value) {
                Size::Bytes(bytes) => bytes.to_string(),
                Size::Malformed => return Err(expects(NO_BYTES)),
                Size::OutOfRange => {
                    let name = known.name;
                    let text = format!("Value '{value}' is out of range for parameter '{name}'");
                    return Err(Complaint::new(text));
                }
            },
        };
        self.said.retain(|(name, _)| *name != known.name);
        self.said.push((known.name, value));
        Ok(())
    }

    /// What the option called `name` is, by what was said.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let said = self.said.iter().find(|(said, _)| *said == name);
        said.map(|(_, value)| &**value)
    }

    /// Every option that was said.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.said.iter().map(|(name, value)| (*name, &**value))
    }

    /// Takes an option back.
    pub(crate) fn remove(&mut self, name: &str) {
        self.said.retain(|(said, _)| *said != name);
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.value(name), Some("on" | "yes" | "true" | "y"))
    }

    /// The line that announces a new image.
    pub(crate) fn formatting(&self, file: &str) -> String {
        let mut line = format!("Formatting '{file}', fmt={}", self.format);
        for known in self.known {
            if let Some(value) = self.value(known.name).or(known.default) {
                let _ = write!(line, " {}={value}", known.name);
            }
        }
        line + "\n"
    }

    /// The options there are, for `-o help`.
    pub(crate) fn help(&self) -> String {
        let mut names: Vec<&Known> = self.known.iter().collect();
        names.sort_by_key(|known| known.name);
        let mut text = format!("Supported {} options:\n", self.format);
        for known in names {
            let kind = match known.kind {
                Kind::Switch => "<bool (on/off)>",
                Kind::Number => "<num>",
                Kind::Bytes => "<size>",
                Kind::Text => "<str>",
            };
            let item = format!("{}={kind}", known.name);
            let _ = writeln!(text, "  {item:<22} - {}", known.about);
        }
        text
    }

    /// Why no image can be made by these options of a disk of `size` bytes, in QEMU's words and by the
    /// order in which it looks.
    pub(crate) fn refusal(&self, size: u64) -> Option<String> {
        match self.format {
            "qcow2" => self.qcow2_refusal(size),
            "vhdx" => self.vhdx_refusal(size),
            _ => self.raw_refusal(),
        }
    }

    fn raw_refusal(&self) -> Option<String> {
        match self.value("preallocation") {
            None | Some("off" | "falloc" | "full") => None,
            Some("metadata") => Some("Unsupported preallocation mode: metadata".into()),
            Some(other) => Some(format!("invalid parameter value: {other}")),
        }
    }

    fn vhdx_refusal(&self, size: u64) -> Option<String> {
        if let Some(other) = self.value("subformat")
            && !["dynamic", "fixed"].contains(&other)
        {
            return Some(not_accepted("subformat", other));
        }
        if size > 64 << 40 {
            return Some("Image size too large; max of 64TB".into());
        }
        match self.number("block_size") {
            Some(bytes) if bytes != 0 && !bytes.is_power_of_two() => {
                Some("Block size must be a power of two".into())
            }
            _ => None,
        }
    }

    fn qcow2_refusal(&self, size: u64) -> Option<String> {
        const NEWER: &str = "compatibility level 1.1 and above (use version=v3 or greater)";
        let preallocation = self.value("preallocation").unwrap_or("off");
        if !["off", "metadata", "falloc", "full"].contains(&preallocation) {
            return Some(not_accepted("preallocation", preallocation));
        }
        let compression = self.value("compression_type").unwrap_or("zlib");
        if !["zlib", "zstd"].contains(&compression) {
            return Some(not_accepted("compression-type", compression));
        }
        let is_v2 = match self.value("compat") {
            Some("0.10" | "v2") => true,
            None | Some("1.1" | "v3") => false,
            Some(other) => return Some(not_accepted("version", other)),
        };
        let cluster = self.number("cluster_size").unwrap_or(65536);
        let extended = self.is_on("extended_l2");
        if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
            return Some("Cluster size must be a power of two between 512 and 2048k".into());
        }
        if extended && is_v2 {
            return Some(format!(
                "Extended L2 entries are only supported with {NEWER}"
            ));
        }
        if extended && cluster < 16384 {
            let text =
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes";
            return Some(text.into());
        }
        let backing = self
            .value("backing_file")
            .is_some_and(|name| !name.is_empty());
        if backing && preallocation != "off" && !extended {
            let text = "Backing file and preallocation can only be used at the same time if extended_l2 is on";
            return Some(text.into());
        }
        if !backing && self.value("backing_fmt").is_some() {
            return Some("Backing format cannot be used without backing file".into());
        }
        if is_v2 && self.is_on("lazy_refcounts") {
            return Some(format!("Lazy refcounts only supported with {NEWER}"));
        }
        let bits = self
            .value("refcount_bits")
            .and_then(|bits| bits.parse::<i64>().ok());
        let bits = bits.unwrap_or(16);
        if !(1..=64).contains(&bits) || !bits.unsigned_abs().is_power_of_two() {
            return Some("Refcount width must be a power of two and may not exceed 64 bits".into());
        }
        if is_v2 && bits != 16 {
            let text = "Different refcount widths than 16 bits require compatibility level 1.1 or above \
                        (use version=v3 or greater)";
            return Some(text.into());
        }
        let data_file = self.value("data_file").is_some_and(|name| !name.is_empty());
        if self.is_on("data_file_raw") && !data_file {
            return Some("data-file-raw requires data-file".into());
        }
        if self.is_on("data_file_raw") && backing {
            return Some("Backing file and data-file-raw cannot be used at the same time".into());
        }
        if data_file && is_v2 {
            return Some(format!(
                "External data files are only supported with {NEWER}"
            ));
        }
        if compression != "zlib" && is_v2 {
            return Some(format!(
                "Non-zlib compression type is only supported with {NEWER}"
            ));
        }
        let entry = if extended { 16 } else { 8 };
        let mapped = u128::from(cluster / entry) * u128::from(cluster);
        if u128::from(size).div_ceil(mapped) * 8 > 32 << 20 {
            return Some(self.too_large());
        }
        None
    }

    /// A disk that no image of the format can hold, or that the host has no file for.
    pub(crate) fn too_large(&self) -> String {
        let format = self.format;
        let text = format!("The image size is too large for file format '{format}'");
        match self.known.iter().any(|known| known.name == "cluster_size") {
            true => text + " (try using a larger cluster size)",
            false => text,
        }
    }

    /// The same for the command under its own name, of a disk of `size` bytes: `KEY=VALUE` each.
    pub(crate) fn to_arguments(&self, size: u64) -> Vec<String> {
        let mut out = Vec::new();
        for (name, value) in self.said() {
            match name {
                "size" | "nocow" | "extent_size_hint" | "block_state_zero" | "log_size"
                | "block_size" => {}
                "backing_file" | "backing_fmt" | "data_file" if value.is_empty() => {}
                name if self
                    .known
                    .iter()
                    .any(|known| known.name == name && known.kind == Kind::Switch) =>
                {
                    let value = if self.is_on(name) { "on" } else { "off" };
                    out.push(format!("{name}={value}"));
                }
                name => out.push(format!("{name}={value}")),
            }
        }
        if self.format == "vhdx" {
            const MIB: u64 = 1 << 20;
            let block = match self.number("block_size").unwrap_or(0) {
                // As QEMU chooses by the size of the disk.
                0 if size > 32 << 40 => 64 * MIB,
                0 if size > 100 << 30 => 32 * MIB,
                0 if size > 1 << 30 => 16 * MIB,
                0 => 8 * MIB,
                bytes => bytes.clamp(MIB, 256 * MIB),
            };
            out.push(format!("block_size={block}"));
            let log = self.number("log_size").unwrap_or(MIB).max(MIB);
            out.push(format!("log_size={}", log.next_multiple_of(MIB)));
        }
        out
    }
}

/// What a number of bytes should have been.
pub(crate) const NO_BYTES: &str = "a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E \
                                   means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.";

fn not_accepted(name: &str, value: &str) -> String {
    format!("Parameter '{name}' does not accept value '{value}'")
}
