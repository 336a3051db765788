//! `info`: what an image is, in the words and the JSON of `qemu-img info`.

use std::path::Path;

use blockdev_nbd::NbdOpener;
use diskweave::ImageInfo;
use diskweave::chain::Chain;
use diskweave::core::{Layer, Result as CoreResult};
use diskweave::qcow2::Snapshot;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{qcow2_facts, shown, vhdx_facts};
use crate::args::{Info, Output};
use crate::failure::Failure;
use crate::output::plain::{plain, print};
use crate::output::size::human;
use crate::output::{json, snapshot_table, tree};

pub(crate) fn run(args: &Info) -> Result<u8, Failure> {
    let about = |e| Failure::about(shown(&args.image.file), e);
    let disk = args.image.disk();
    // Telling about one image takes no other file.
    let disk = if args.backing_chain {
        disk
    } else {
        disk.policy(diskweave::core::locate::ChainPolicy::Deny)
    };
    let (chain, problem) = disk.open_partial(&args.image.file).map_err(about)?;
    show(&chain, args.output, args.backing_chain, Facts::All).map_err(about)??;
    match problem {
        // What could be told was told first.
        Some(problem) => Err(about(problem)),
        None => Ok(0),
    }
}

/// What is told of an image beyond what every image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facts {
    /// What there is.
    All,
    /// What `qemu-img` tells of this format.
    OfQemu,
}

/// Tells what the top of `chain` is, or each of its images if the `whole` of it is asked for. The outer
/// error is one of reading, the inner one of telling.
pub(crate) fn show(
    chain: &Chain,
    output: Output,
    whole: bool,
    facts: Facts,
) -> CoreResult<Result<(), Failure>> {
    let images = ImageInfo::of_chain(chain)?.into_iter().zip(chain.layers());
    let images: Vec<Image> = images
        .map(|(info, layer)| Image::new(&info, layer, facts))
        .collect::<CoreResult<_>>()?;
    Ok(match output {
        Output::Human => {
            let texts: Vec<String> = images.iter().map(Image::text).collect();
            print(&texts.join("\n"))
        }
        Output::Json if whole => json::print(&images),
        Output::Json => json::print(&images[0]),
    })
}

/// One image, in the schema of `qemu-img info --output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    children: Vec<Child>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_json")]
    snapshots: Vec<Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename_format: Option<String>,
    virtual_size: u64,
    filename: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u32>,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_specific: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty_flag: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Child {
    name: &'static str,
    info: File,
}

fn first_parent_name(info: &ImageInfo) -> Option<&str> {
    let name = info.parent.as_ref()?.names.first()?;
    Some(&name.stored)
}

/// Where the parent is, or would be looked for.
fn full_backing_filename(info: &ImageInfo) -> Option<String> {
    if let Some(path) = &info.parent_path {
        return Some(path.display().to_string());
    }
    let name = first_parent_name(info)?;
    // What has a protocol, or a drive, is no path from here.
    match name.contains(':') || info.format != "qcow2" {
        true => Some(name.into()),
        false => {
            let directory = info.path.parent().unwrap_or(Path::new(""));
            Some(directory.join(name).display().to_string())
        }
    }
}

fn as_json<S: Serializer>(snapshots: &[Snapshot], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(snapshots.iter().map(qcow2_facts::snapshot))
}

/// The file beneath an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    children: [Value; 0],
    virtual_size: u64,
    filename: String,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_specific: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty_flag: Option<bool>,
}

/// What a file takes of the host's space, where that is known.
fn space(size: Option<u64>) -> String {
    size.map_or_else(|| "unavailable".into(), human)
}

impl Image {
    fn new(info: &ImageInfo, layer: &dyn Layer, facts: Facts) -> CoreResult<Self> {
        let filename = info.path.display().to_string();
        let is_export = NbdOpener::is_export(&info.path);
        let of_file = json!({ "type": "file", "data": {} });
        let file = File {
            children: [],
            // In whole sectors, as `qemu-img` counts.
            virtual_size: info.file_len.next_multiple_of(512),
            filename: filename.clone(),
            format: if is_export { "nbd" } else { "file" },
            actual_size: info.allocated_len,
            format_specific: (!is_export).then_some(of_file),
            dirty_flag: (!is_export).then_some(false),
        };
        let parent = info.parent.as_ref();
        Ok(Self {
            children: vec![Child {
                name: "file",
                info: file,
            }],
            snapshots: qcow2_facts::snapshots(layer)?,
            backing_filename_format: parent.and_then(|parent| parent.format.clone()),
            virtual_size: match facts {
                Facts::All => info.virtual_size,
                // Raw disks too.
                Facts::OfQemu => info.virtual_size.next_multiple_of(512),
            },
            filename,
            cluster_size: info.block_size,
            format: info.format,
            actual_size: info.allocated_len,
            format_specific: match vhdx_facts::of_layer(layer) {
                None => qcow2_facts::of_layer(layer)?,
                vhdx => vhdx.filter(|_| facts == Facts::All),
            }
            .map(|data| json!({ "type": info.format, "data": data })),
            full_backing_filename: full_backing_filename(info),
            backing_filename: first_parent_name(info).map(Into::into),
            // Of a raw image it is the file's, and an export has none.
            dirty_flag: (!is_export || info.format != "raw").then_some(info.dirty),
        })
    }

    fn text(&self) -> String {
        let mut out = format!(
            "image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n",
            plain(&self.filename),
            self.format,
            human(self.virtual_size),
            self.virtual_size,
            space(self.actual_size)
        );
        if let Some(size) = self.cluster_size {
            out += &format!("cluster_size: {size}\n");
        }
        if self.dirty_flag == Some(true) {
            out += "cleanly shut down: no\n";
        }
        if let Some(name) = &self.backing_filename {
            out += &format!("backing file: {}", plain(name));
            match &self.full_backing_filename {
                Some(full) if full != name => {
                    out += &format!(" (actual path: {})\n", plain(full));
                }
                _ => out += "\n",
            }
        }
        if let Some(format) = &self.backing_filename_format {
            out += &format!("backing file format: {}\n", plain(format));
        }
        out += &snapshot_table::text(&self.snapshots);
        if let Some(specific) = &self.format_specific {
            out += "Format specific information:\n";
            let mut data = specific["data"].clone();
            if self.format == "qcow2"
                && let Value::Object(facts) = &mut data
            {
                // As qemu-img shows them to people.
                let spaced = std::mem::take(facts).into_iter();
                *facts = spaced
                    .map(|(key, value)| (key.replace('-', " "), value))
                    .collect();
            }
            out += &tree::text(&data, 4);
        }
        for child in &self.children {
            let file = &child.info;
            out += &format!(
                "Child node '/{}':\n    filename: {}\n    protocol type: {}\n    file length: {} ({} \
                 bytes)\n    disk size: {}\n",
                child.name,
                plain(&file.filename),
                file.format,
                human(file.virtual_size),
                file.virtual_size,
                space(file.actual_size)
            );
        }
        out
    }
}
