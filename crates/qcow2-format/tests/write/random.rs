//! Images of random shape, and guests that do anything to them.

use std::sync::Arc;

use blockdev_core::Caps;
use qcow2_format::CreateOptions;
use testkit::Rng;
use testkit::crash::Scenario;
use testkit::model::{Abilities, Ops, Shape, Weights};

use crate::stories::Story;
use crate::subject::{Qcow2, backed, content, empty, filled, filled_beside, options, packable};

/// The options that made an image, and the image with what one may ask of it.
pub(crate) type Shaped = (CreateOptions, Shape<Qcow2>);

/// The shape that `seed` decides: of either version, any width of refcounts, clusters of `bits`.
pub(crate) fn shape(seed: u64, bits: &[u32], most_clusters: u64) -> Shaped {
    let mut rng = Rng::new(seed ^ 0x51AE);
    let bits = *rng.pick(bits);
    let sectors = (most_clusters << bits).clamp(32 << 10, 512 << 10) / 512;
    let size = (sectors / 2 + rng.below(sectors / 2)) * 512;
    let mut options = options(size, bits);
    if rng.one_in(5) {
        options.version = 2;
    } else {
        options.refcount_order = u32::try_from(rng.below(7)).unwrap();
        options.lazy_refcounts = rng.one_in(3);
        options.extended_l2 = bits >= 14 && rng.one_in(2);
    }
    let bytes = usize::try_from(size).unwrap();
    let start = rng.below(4);
    // Refcounts of less than 16 bits do not count many compressed clusters in one host cluster.
    options.compressed = start == 0 && options.refcount_order >= 4;
    let based = start == 1 && bits >= 10;
    let mut subject = Qcow2 {
        packs: options.refcount_order >= 4 && rng.one_in(3),
        ..Qcow2::default()
    };
    let (image, disk) = match start {
        _ if based => {
            let kib = bytes >> 10;
            subject.base = Arc::new(content(kib / 2 + rng.index(kib)));
            let mut disk = subject.base.to_vec();
            disk.resize(bytes, 0);
            (backed(empty(options.clone()), bits), disk)
        }
        2 | 3 => (empty(options.clone()), vec![0; bytes]),
        _ => {
            let mut disk = packable(bytes / 1024 * 2 / 3);
            disk.resize(bytes, 0);
            (filled(&disk, options.clone()), disk)
        }
    };
    let caps = Caps {
        write: true,
        write_zeroes: true,
        discard: true,
    };
    let sizes = vec![size, size / 1024 * 512 + 512, (size / 512 + 77) * 512];
    let abilities = Abilities {
        // A refcount of one bit counts one reference, one of two bits three.
        snapshots: match options.refcount_order {
            0 => 0,
            1 => 1,
            _ => 2,
        },
        sizes,
        ..Abilities::of(caps, 1 << bits)
    };
    let shape = Shape {
        name: format!("{options:?}"),
        image,
        content: disk,
        beside: vec![("base", Arc::clone(&subject.base))],
        subject,
        abilities,
        by_qemu: true,
    };
    (options, shape)
}

/// What a guest of random habits does to an image of random shape in `steps` steps.
pub(crate) fn story(seed: u64, steps: usize) -> Story {
    let (options, shape) = shape(seed, &[9, 10, 11, 12, 13, 14, 16], 96);
    let mut abilities = shape.abilities;
    abilities.max_len = abilities.max_len.min(24 << 10);
    let name = format!(
        "random {seed}: version {}, {} bits, refcounts 2^{}{}{}{}",
        options.version,
        options.cluster_bits,
        options.refcount_order,
        if options.extended_l2 {
            ", extended"
        } else {
            ""
        },
        if options.lazy_refcounts { ", lazy" } else { "" },
        if options.compressed {
            ", compressed"
        } else {
            ""
        },
    );
    let size = options.size;
    let script = Scenario::new(name, shape.image, move |driver| {
        let mut ops = Ops::new(seed, size, abilities.clone(), Weights::default());
        (0..steps).try_for_each(|_| driver.apply(ops.next().expect("endless")))
    });
    (shape.subject, script.content(shape.content))
}

/// What a guest of random habits does to a disk whose bytes are in a data file.
pub(crate) fn beside(seed: u64, raw: bool) -> Story {
    let mut rng = Rng::new(seed ^ 0xDA7A);
    let mut shape = options(64 << 10, *rng.pick(&[9, 12, 14]));
    shape.extended_l2 = shape.cluster_bits == 14 && rng.one_in(2);
    shape.lazy_refcounts = rng.one_in(3);
    let mut disk = content(40);
    disk.resize(64 << 10, 0);
    let caps = Caps {
        write: true,
        write_zeroes: true,
        discard: true,
    };
    let abilities = Abilities {
        sizes: vec![64 << 10, 40_448, 200 << 10],
        max_len: 12 << 10,
        ..Abilities::of(caps, 1 << shape.cluster_bits)
    };
    let (image, data) = filled_beside(&disk, shape, raw);
    let script = Scenario::new("random beside", image, move |driver| {
        let mut ops = Ops::new(seed, 64 << 10, abilities.clone(), Weights::default());
        (0..40).try_for_each(|_| driver.apply(ops.next().expect("endless")))
    });
    (Qcow2::default(), script.beside(data).content(disk))
}
