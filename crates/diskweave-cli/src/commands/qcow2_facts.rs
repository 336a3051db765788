//! What `info` tells of a qcow2 image beyond what every image has, in `qemu-img`'s words.

use diskweave::core::{Layer, Result};
use diskweave::qcow2::{Bitmap, Qcow2Image, Snapshot};
use serde_json::{Value, json};

/// The facts, if `layer` is a qcow2 image.
pub(crate) fn of_layer(layer: &dyn Layer) -> Result<Option<Value>> {
    let Some(image) = layer.as_any().downcast_ref::<Qcow2Image>() else {
        return Ok(None);
    };
    let header = image.header();
    let mut facts = json!({
        "compat": if header.version < 3 { "0.10" } else { "1.1" },
        "compression-type": header.compression_type.as_str(),
    });
    if header.version < 3 {
        facts["refcount-bits"] = header.refcount_bits().into();
        return Ok(Some(facts));
    }
    facts["lazy-refcounts"] = header.has_lazy_refcounts().into();
    let bitmaps = bitmaps(layer)?;
    if !bitmaps.is_empty() {
        facts["bitmaps"] = bitmaps.into();
    }
    facts["refcount-bits"] = header.refcount_bits().into();
    if header.has_data_file() {
        if let Some(name) = &image.extensions().data_file {
            facts["data-file"] = name.clone().into();
        }
        facts["data-file-raw"] = header.is_data_file_raw().into();
    }
    facts["corrupt"] = header.is_corrupt().into();
    facts["extended-l2"] = header.has_extended_l2().into();
    Ok(Some(facts))
}

/// The bitmaps, if `layer` is a qcow2 image that has any.
pub(crate) fn bitmaps(layer: &dyn Layer) -> Result<Vec<Value>> {
    match layer.as_any().downcast_ref::<Qcow2Image>() {
        Some(image) => Ok(image.bitmaps()?.iter().map(bitmap).collect()),
        None => Ok(Vec::new()),
    }
}

fn bitmap(bitmap: &Bitmap) -> Value {
    let flags = [("in-use", bitmap.in_use), ("auto", bitmap.auto)];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect();
    json!({ "flags": flags, "name": bitmap.name, "granularity": bitmap.granularity() })
}

/// The internal snapshots, if `layer` is a qcow2 image that has any.
pub(crate) fn snapshots(layer: &dyn Layer) -> Result<Vec<Snapshot>> {
    match layer.as_any().downcast_ref::<Qcow2Image>() {
        Some(image) => image.snapshots(),
        None => Ok(Vec::new()),
    }
}

/// A snapshot as JSON tells of it.
pub(crate) fn snapshot(snapshot: &Snapshot) -> Value {
    const NANOSECONDS: u64 = 1_000_000_000;
    let mut value = json!({});
    if let Some(count) = snapshot.icount {
        value["icount"] = count.into();
    }
    let rest = json!({
        "vm-clock-nsec": snapshot.vm_clock_nsec % NANOSECONDS,
        "name": snapshot.name,
        "date-sec": snapshot.date_sec,
        "date-nsec": snapshot.date_nsec,
        "vm-clock-sec": snapshot.vm_clock_nsec / NANOSECONDS,
        "id": snapshot.id,
        "vm-state-size": snapshot.vm_state_size,
    });
    if let (Value::Object(value), Value::Object(rest)) = (&mut value, rest) {
        value.extend(rest);
    }
    value
}
