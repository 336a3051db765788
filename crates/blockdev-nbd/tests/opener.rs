//! Names of exports where names of files are taken, and who may say them.

#![cfg(unix)]
// Here a failure is a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev_core::locate::{ChainPolicy, Opener};
use blockdev_core::{ErrorKind, FileName, FileOptions, NameKind, RawLayer, StorageExt as _};
use blockdev_nbd::{Export, Listener, NbdOpener, Server, ServerOptions};
use common::{MIB, disk, serve};
use testkit::counting::CountingOpener;

fn read(opener: &NbdOpener, name: &str) -> blockdev_core::Result<Vec<u8>> {
    let storage = opener.open(name.as_ref(), FileOptions::read_only())?;
    let mut head = vec![0; 16];
    let len = storage.read_up_to(&mut head, 0)?;
    head.truncate(len);
    Ok(head)
}

#[test]
fn every_spelling_leads_to_the_export_and_paths_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path(), &disk(MIB), ServerOptions::default());
    let socket = dir.path().join("nbd");
    let socket = socket.to_str().unwrap();
    let opener = NbdOpener::default();
    for name in [
        format!("nbd+unix:///disk?socket={socket}"),
        format!("nbd+unix:///%64isk?socket={}", socket.replace('/', "%2F")),
        format!("nbd:unix:{socket}:exportname=disk"),
        format!("nbd:unix:{socket}"),
    ] {
        assert_eq!(read(&opener, &name).unwrap(), [7; 16], "{name}");
    }
    let error = read(&opener, &format!("nbd:unix:{socket}:exportname=other")).unwrap_err();
    assert!(error.to_string().contains("refuses"), "{error}");
    running.stop().unwrap();
    let error = read(&opener, &format!("nbd:unix:{socket}")).unwrap_err();
    assert!(error.to_string().contains("no connection"), "{error}");

    let file = dir.path().join("nbd:host:1");
    std::fs::write(&file, b"a file").unwrap();
    assert_eq!(read(&opener, file.to_str().unwrap()).unwrap(), b"a file");
    let error = read(&opener, "nbds://host/").unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::InvalidInput,
        "by which certificates?"
    );
}

#[test]
fn by_tcp_both_spellings_lead_to_the_same_export() {
    let export = |name| Export::new(name, disk(MIB));
    let server = Server::new(vec![export("a"), export("b")], ServerOptions::default());
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let running = server.unwrap().start(listener).unwrap();
    let address = running.address();
    let opener = NbdOpener::default();
    let identity = |name: String| {
        let options = FileOptions::read_only();
        let export = opener.open(name.as_ref(), options).unwrap();
        export.identity().unwrap()
    };
    let uri = identity(format!("nbd://{address}/a"));
    assert_eq!(uri, identity(format!("nbd:{address}:exportname=a")));
    assert_ne!(uri, identity(format!("nbd://{address}/b")));
    running.stop().unwrap();
}

#[test]
fn what_is_opened_for_reading_is_not_written_to_and_a_read_only_export_not_opened_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    let server = vec![
        Export::new("rw", disk(MIB)).writable(),
        Export::new("ro", disk(MIB)),
    ];
    let listener = Listener::unix(dir.path().join("nbd")).unwrap();
    let server = Server::new(server, ServerOptions::default()).unwrap();
    let running = server.start(listener).unwrap();
    let socket = dir.path().join("nbd");
    let open = |name: &str, options| {
        let name = format!("nbd+unix:///{name}?socket={}", socket.display());
        NbdOpener::default().open(name.as_ref(), options)
    };
    let shielded = open("rw", FileOptions::read_only()).unwrap();
    assert!(shielded.is_read_only());
    let refused = shielded.write_at(&[1], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let writable = open("rw", FileOptions::read_write()).unwrap();
    writable.write_at(&[1], 0).unwrap();
    let refused = open("ro", FileOptions::read_write()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    // As what an image lies in it cannot tell what space it takes, and says so.
    RawLayer::open(Arc::clone(&writable)).unwrap();
    let untold = writable.allocated_len().unwrap_err();
    assert_eq!(untold.kind(), ErrorKind::Unsupported);
    drop((shielded, writable));
    running.stop().unwrap();
}

/// An image from a stranger had a server of his choice asked, from inside the network. Whoever listens here
/// is never called, however the name is spelled and whatever it is said to be.
#[test]
fn no_name_out_of_an_image_reaches_a_server_beneath_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let canary = UnixListener::bind(dir.path().join("nbd")).unwrap();
    canary.set_nonblocking(true).unwrap();
    let socket = dir.path().join("nbd");
    let files = CountingOpener::new();
    let opener = NbdOpener::default().files(files);
    for stored in [
        format!("nbd+unix:///?socket={}", socket.display()),
        format!("nbd:unix:{}", socket.display()),
        "nbd:unix:nbd".to_owned(),
        "./nbd:unix:nbd".to_owned(),
    ] {
        for kind in [NameKind::Protocol, NameKind::Relative, NameKind::Absolute] {
            for root in [dir.path(), Path::new(""), Path::new(".")] {
                let name = FileName {
                    kind,
                    stored: stored.clone(),
                    path: Some(PathBuf::from(&stored)),
                };
                let policy = ChainPolicy::Beneath(root.into());
                let read = FileOptions::read_only();
                policy.follow(&name, root, &opener, read).unwrap_err();
                if kind != NameKind::Protocol {
                    let dir = Path::new("");
                    let told = ChainPolicy::Any.follow(&name, dir, &opener, read);
                    told.unwrap_err();
                }
            }
        }
    }
    let called = canary.accept().unwrap_err();
    assert_eq!(called.kind(), std::io::ErrorKind::WouldBlock, "a call came");
}
