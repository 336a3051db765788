//! Every kind of image that can be made. What a writer learns to do is added here and nowhere else.

use diskweave::NewImage;
use diskweave::qcow2::{self, CompressionType};
use diskweave::vhdx;

/// An image to be made, in words as well.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) text: String,
    pub(crate) image: NewImage,
}

/// One for each format, with all combinations of its options.
pub(crate) const GENERATORS: &[fn() -> Vec<Asked>] = &[raw, vhdx, qcow2];

/// What all generators give.
pub(crate) fn all() -> Vec<Asked> {
    GENERATORS.iter().flat_map(|generate| generate()).collect()
}

fn raw() -> Vec<Asked> {
    vec![Asked {
        text: "raw".into(),
        image: NewImage::Raw,
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

fn qcow2_asked(options: &qcow2::CreateOptions) -> Asked {
    let qcow2::CreateOptions {
        version,
        cluster_bits,
        refcount_order,
        lazy_refcounts,
        extended_l2,
        compression_type,
        compressed,
        ..
    } = options;
    let packed = if *compressed { " packed" } else { "" };
    let bits = 1 << refcount_order;
    Asked {
        text: format!(
            "qcow2 version={version} cluster=2^{cluster_bits} refcounts={bits} \
             lazy={lazy_refcounts} extended={extended_l2} {compression_type:?}{packed}"
        ),
        image: NewImage::Qcow2(options.clone()),
    }
}
