//! What a serialiser is given.

#![cfg(feature = "serde")]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

use diskweave::{
    CloneOptions, CreateBase, ImageInfo, OpenDisk, Search, clone_disk, create_base, dependents,
    depends_on,
};
use serde_json::json;

#[test]
fn images_and_answers_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create_base(at("base"), 1 << 20, &CreateBase::new()).unwrap();
    clone_disk(
        at("base"),
        at("top"),
        &OpenDisk::new(),
        &CloneOptions::new(),
    )
    .unwrap();
    let policy = diskweave::core::locate::ChainPolicy::Beneath(dir.path().into());
    let open = OpenDisk::new().policy(policy);
    let chain = open.open(at("top")).unwrap();
    let images = serde_json::to_value(ImageInfo::of_chain(&chain).unwrap()).unwrap();
    let top = &images[0];
    assert_eq!(top["filename"], at("top").to_str().unwrap());
    assert_eq!(top["format"], "qcow2");
    assert_eq!(top["virtual-size"], 1 << 20);
    assert_eq!(top["file-length"], at("top").metadata().unwrap().len());
    assert_eq!(top["cluster-size"], 65536);
    assert_eq!(
        top["parent"],
        json!({
            "role": "parent",
            "names": [{ "kind": "relative", "name": "base" }],
            "format": "qcow2",
            "expected": [],
        })
    );
    assert_eq!(top["full-backing-filename"], at("base").to_str().unwrap());
    assert_eq!(top["found-by"], "given");
    assert_eq!(top["dirty-flag"], false);
    let below = &images[1];
    assert_eq!(below["parent"], json!(null));
    assert_eq!(
        below["found-by"],
        json!({ "kind": "relative", "name": "base" })
    );

    let told = depends_on(at("top"), at("base"), &open).unwrap();
    let told = serde_json::to_value(told).unwrap();
    assert_eq!(told, json!({ "depends": "yes", "reason": null }));
    std::fs::write(at("vmdk"), b"KDMV\x01\0\0\0").unwrap();
    let found = dependents(at("base"), dir.path(), &Search::new()).unwrap();
    let found = serde_json::to_value(found).unwrap();
    assert_eq!(found["dependent"], json!([at("top").to_str().unwrap()]));
    assert_eq!(found["independent"], json!([]));
    assert_eq!(
        found["unknown"][0]["filename"],
        at("vmdk").to_str().unwrap()
    );
    assert_eq!(found["unknown"][0]["reason"]["kind"], "not supported");
}
