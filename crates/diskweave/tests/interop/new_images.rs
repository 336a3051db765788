//! Every kind of image that can be made. What a writer learns to do is added here and nowhere else.

use diskweave::NewImage;
use diskweave::qcow2::{self, Backing, CompressionType, Preallocation};
use diskweave::vhdx;

/// An image to be made, in words as well.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) text: String,
    pub(crate) image: NewImage,
}

/// One for each format, with all combinations of its options, and those that go with few others.
pub(crate) const GENERATORS: &[fn() -> Vec<Asked>] =
    &[raw, vhdx, qcow2, qcow2_set_aside, qcow2_over];

/// What all generators give.
pub(crate) fn all() -> Vec<Asked> {
    GENERATORS.iter().flat_map(|generate| generate()).collect()
}

fn raw() -> Vec<Asked> {
    vec![Asked {
        text: "raw".into(),
        image: NewImage::raw(),
    }]
}

fn vhdx() -> Vec<Asked> {
    let mut asked = Vec::new();
    for block_mib in (0..9).map(|bits| 1 << bits) {
        for fixed in [false, true] {
            for (logical, physical) in [(512, 4096), (512, 512), (4096, 4096)] {
                let mut options = vhdx::CreateOptions::new(0);
                options.block_size = block_mib << 20;
                options.logical_sector_size = logical;
                options.physical_sector_size = physical;
                options.fixed = fixed;
                options.log_size = (1 + block_mib % 3) << 20;
                let kind = if fixed { "fixed" } else { "dynamic" };
                let log_mib = options.log_size >> 20;
                asked.push(Asked {
                    text: format!(
                        "vhdx {kind} block={block_mib}M log={log_mib}M sectors={logical}/{physical}"
                    ),
                    image: NewImage::Vhdx(options),
                });
            }
        }
    }
    asked
}

fn qcow2() -> Vec<Asked> {
    let mut asked = Vec::new();
    for cluster_bits in 9..=21 {
        let mut options = qcow2::CreateOptions::new(0);
        options.cluster_bits = cluster_bits;
        options.version = 2;
        for compressed in [false, true] {
            options.compressed = compressed;
            asked.push(qcow2_asked(&options));
        }
        options.version = 3;
        for refcount_order in 0..7 {
            options.refcount_order = refcount_order;
            for features in 0..16 {
                options.lazy_refcounts = features & 1 != 0;
                options.extended_l2 = features & 2 != 0;
                options.compressed = features & 8 != 0;
                let zstd = features & 4 != 0;
                options.compression_type = if zstd {
                    CompressionType::Zstd
                } else {
                    CompressionType::Zlib
                };
                // Subclusters are at least as long as a sector.
                if !options.extended_l2 || cluster_bits >= 14 {
                    asked.push(qcow2_asked(&options));
                }
            }
        }
    }
    asked
}

/// Space set aside, which is for images that are neither packed nor over a backing file.
fn qcow2_set_aside() -> Vec<Asked> {
    use Preallocation::{Falloc, Full, Metadata};
    let mut asked = Vec::new();
    for cluster_bits in [9, 12, 14, 16, 21] {
        for preallocation in [Metadata, Falloc, Full] {
            for features in 0..3 {
                let mut options = qcow2::CreateOptions::new(0);
                options.cluster_bits = cluster_bits;
                options.preallocation = preallocation;
                options.extended_l2 = features == 1 && cluster_bits >= 14;
                options.version = if features == 2 { 2 } else { 3 };
                asked.push(qcow2_asked(&options));
            }
        }
    }
    asked
}

/// Over a backing file of each format, named as `base.FORMAT`.
fn qcow2_over() -> Vec<Asked> {
    let mut asked = Vec::new();
    for cluster_bits in [9, 12, 14, 16, 18, 21] {
        for format in ["raw", "qcow2", "vhdx"] {
            for features in 0..8 {
                let mut options = qcow2::CreateOptions::new(0);
                options.cluster_bits = cluster_bits;
                options.compressed = features & 1 != 0;
                options.extended_l2 = features & 2 != 0 && cluster_bits >= 14;
                options.version = if features & 6 == 4 { 2 } else { 3 };
                options.backing = Some(Backing {
                    name: format!("base.{format}"),
                    format: format.into(),
                });
                asked.push(qcow2_asked(&options));
            }
        }
    }
    asked
}

fn qcow2_asked(options: &qcow2::CreateOptions) -> Asked {
    let qcow2::CreateOptions {
        version,
        cluster_bits,
        refcount_order,
        lazy_refcounts,
        extended_l2,
        compression_type,
        compressed,
        backing,
        preallocation,
        ..
    } = options;
    let below = backing.as_ref().map_or("nothing", |below| &below.name);
    let packed = if *compressed { " packed" } else { "" };
    let bits = 1 << refcount_order;
    Asked {
        text: format!(
            "qcow2 version={version} cluster=2^{cluster_bits} refcounts={bits} \
             lazy={lazy_refcounts} extended={extended_l2} {compression_type:?}{packed} \
             preallocation={preallocation:?} over {below}"
        ),
        image: NewImage::Qcow2(options.clone()),
    }
}
