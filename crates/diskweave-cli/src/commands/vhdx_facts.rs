//! What `info` tells of a VHDX image beyond what every image has.

use diskweave::core::Layer;
use diskweave::vhdx::{LogState, ParentLocator, VhdxImage};
use serde_json::{Map, Value, json};

/// The facts, if `layer` is a VHDX image.
pub(crate) fn of_layer(layer: &dyn Layer) -> Option<Value> {
    let image = layer.as_any().downcast_ref::<VhdxImage>()?;
    let (items, header) = (image.items(), image.header());
    let (log, entries) = match image.log_state() {
        LogState::Empty => ("empty", 0),
        LogState::Replayed { entries } => ("replayed", entries),
        LogState::ReplayedInMemory { entries } => ("replayed in memory", entries),
        _ => ("ignored", 0),
    };
    let mut facts = json!({
        "subformat": image.disk_type().as_str(),
        "creator": image.file_identifier().creator,
        "block-size": items.file_parameters.block_size,
        "logical-sector-size": items.logical_sector_size,
        "physical-sector-size": items.physical_sector_size,
        "virtual-disk-id": items.virtual_disk_id.to_string(),
        "sequence-number": header.sequence_number,
        "file-write-guid": header.file_write_guid.to_string(),
        "data-write-guid": header.data_write_guid.to_string(),
        "log-guid": header.log_guid.to_string(),
        "log-size": header.log_length,
        "log-state": log,
        "log-entries": entries,
    });
    if let Some(locator) = image.parent_locator() {
        facts["parent-locator"] = self::locator(locator);
    }
    Some(facts)
}

/// A parent locator: its type and every key.
pub(crate) fn locator(locator: &ParentLocator) -> Value {
    let entries: Map<String, Value> = locator
        .entries
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    json!({ "type": locator.locator_type.to_string(), "entries": entries })
}
