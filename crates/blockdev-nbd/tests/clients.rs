//! Clients that others wrote: libnbd's and QEMU's.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use blockdev_core::BlockDevice;
use blockdev_nbd::{Address, Export, Listener, Server, ServerOptions};
use common::{MIB, disk, serve};
use serde_json::json;
use testkit::oracle::{NbdTools, QemuImg, QemuIo, nbd_uri};

fn bytes(disk: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn libnbd_is_told_what_there_is() {
    let Some(tools) = NbdTools::find() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nbd");
    let exports = vec![
        Export::new("a", disk(MIB)).description("the first"),
        Export::new("b", disk(5 * MIB / 2 + 1)).writable(),
    ];
    let server = Server::new(exports, ServerOptions::default()).unwrap();
    let running = server.start(Listener::unix(&socket).unwrap()).unwrap();

    let info = tools.info(&nbd_uri(&socket, "b")).unwrap();
    assert_eq!(info["protocol"], "newstyle-fixed");
    assert_eq!(info["TLS"], false);
    assert_eq!(info["structured"], true);
    let export = &info["exports"][0];
    let expected = json!({
        "export-name": "b",
        "export-size": 5 * MIB / 2 + 1,
        "contexts": ["base:allocation", "qemu:allocation-depth"],
        "is_read_only": false,
        "can_cache": true,
        "can_df": true,
        "can_fast_zero": true,
        "can_flush": true,
        "can_fua": true,
        "can_multi_conn": true,
        "can_trim": true,
        "can_zero": true,
        "block_size_minimum": 1,
        "block_size_preferred": 4096,
        "block_size_maximum": 32 << 20,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&export[key], value, "{key}");
    }
    let first = tools.info(&nbd_uri(&socket, "")).unwrap();
    assert_eq!(first["exports"][0]["export-size"], MIB);
    assert_eq!(first["exports"][0]["is_read_only"], true);
    assert_eq!(first["exports"][0]["can_trim"], false);
    assert!(tools.info(&nbd_uri(&socket, "c")).is_err());
    let all = tools.list(&nbd_uri(&socket, "")).unwrap();
    let names = all["exports"].as_array().unwrap().iter();
    let names: Vec<_> = names
        .map(|export| (&export["export-name"], &export["description"]))
        .collect();
    assert_eq!(names[0], (&json!("a"), &json!("the first")));
    assert_eq!(names[1].0, &json!("b"));
    running.stop().unwrap();
}

#[test]
fn nbdcopy_copies_there_and_back() {
    let Some(tools) = NbdTools::find() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let device = disk(9 * MIB + 513);
    let running = serve(dir.path(), &device, ServerOptions::default());
    let mut content = bytes(&*device);
    let mut rng = testkit::Rng::new(1);
    rng.fill(&mut content[MIB..3 * MIB + 5]);
    content[4 * MIB..8 * MIB].fill(0);
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(file("in"), &content).unwrap();
    let uri = nbd_uri(&dir.path().join("nbd"), "disk");
    tools.copy(&file("in"), &uri).unwrap();
    assert!(bytes(&*device) == content);
    tools.copy(&uri, &file("out")).unwrap();
    assert!(fs::read(file("out")).unwrap() == content);
    running.stop().unwrap();
}

#[test]
fn qemu_writes_what_it_reads_over_tcp_too() {
    let (Some(io), Some(img)) = (QemuIo::find(), QemuImg::find()) else {
        return;
    };
    let device = disk(4 * MIB);
    let export = Export::new("disk", Arc::clone(&device)).writable();
    let server = Server::new(vec![export], ServerOptions::default()).unwrap();
    let running = server.start(Listener::tcp("127.0.0.1:0").unwrap()).unwrap();
    let Address::Tcp(address) = running.address() else {
        panic!("{:?}", running.address());
    };
    let uri = format!("nbd://{address}/disk");
    let told = io
        .run(
            "raw",
            Path::new(&uri),
            &[
                "write -P 0xaa 1000 70000",
                "write -f -P 0xbb 1M 4k",
                "write -z 2M 64k",
                "write -z -u 3M 64k",
                "discard 3200k 64k",
                "flush",
                "read -P 0xaa 1000 70000",
                "read -P 0xbb 1M 4k",
                "read -P 0 2M 64k",
            ],
        )
        .unwrap();
    assert!(!told.contains("fail"), "{told}");
    let mut expected = vec![7; 4 * MIB];
    expected[1000..71_000].fill(0xaa);
    expected[MIB..MIB + 4096].fill(0xbb);
    expected[2 * MIB..2 * MIB + (64 << 10)].fill(0);
    expected[3 * MIB..3 * MIB + (64 << 10)].fill(0);
    let is = bytes(&*device);
    // What was discarded is zeros or as before.
    let kept = 3200 << 10..3264 << 10;
    assert!(is[kept.clone()].iter().all(|byte| [0, 7].contains(byte)));
    expected[kept.clone()].copy_from_slice(&is[kept]);
    assert!(is == expected);

    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    img.to_raw("raw", Path::new(&uri), &raw).unwrap();
    assert!(fs::read(&raw).unwrap() == expected);
    running.stop().unwrap();
}
