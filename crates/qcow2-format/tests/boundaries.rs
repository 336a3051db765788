//! Every structure past the header at and beyond its bounds: what is wrong is named with its place.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::sync::Arc;
use std::time::Duration;

use blockdev_core::{BlockDevice, Error, ErrorKind, LoneLayer};
use common::{MIB, be64, check, first_l2, index, made, memory, open, qemu, quickly, set32, set64};
use qcow2_format::{OpenOptions, Qcow2Image, fuzz, inspect};

const CLUSTER: usize = 65_536;
/// Where the extensions of an image of QEMU's begin.
const EXTENSIONS: usize = 112;

const BACKING_FORMAT: u32 = 0xE279_2ACA;
const FEATURE_NAMES: u32 = 0x6803_F857;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_BE77;
const DATA_FILE: u32 = 0x4441_5441;
const UNKNOWN: u32 = 7;

fn image(writes: &[&str]) -> Option<Vec<u8>> {
    qemu()?;
    let dir = tempfile::tempdir().unwrap();
    let options = "cluster_size=64k";
    Some(made(dir.path(), "a.qcow2", 4 * MIB, options, writes))
}

/// Opens and reads the whole disk.
fn read(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let image = open(memory(bytes))?;
    let disk = LoneLayer::new(Box::new(image));
    let mut content = vec![0xEE; index(disk.size())];
    disk.read_at(&mut content, 0)?;
    Ok(content)
}

/// Kind, structure and place of a failure.
fn place(error: &Error) -> (ErrorKind, String, u64) {
    let at = error
        .location()
        .unwrap_or_else(|| panic!("{error}: nowhere"));
    (error.kind(), at.structure.to_string(), at.offset)
}

/// Nothing that is made of the image takes long, whatever comes of it.
fn harmless(what: &str, image: &[u8]) {
    quickly(what, Duration::from_secs(1), || {
        fuzz::open_and_read(image);
        fuzz::check(image);
    });
}

/// An extension with a length of its own choosing.
fn extension(kind: u32, length: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[test]
fn header_extensions_are_bounded_by_the_first_cluster_and_by_their_own_rules() {
    use ErrorKind::Corrupt;
    let Some(image) = image(&["write -P 1 0 64k"]) else {
        return;
    };
    let room = CLUSTER - EXTENSIONS;
    let most = u32::try_from(room - 8).unwrap();
    let honest = |kind, data: &[u8]| extension(kind, u32::try_from(data.len()).unwrap(), data);
    let bad = Err((Corrupt, "header extension", EXTENSIONS as u64));
    let empty: Vec<u8> = extension(UNKNOWN, 0, &[]).repeat(room / 8);
    let behind = [honest(UNKNOWN, b"seven"), extension(UNKNOWN, most, &[])].concat();
    let second = (EXTENSIONS + 16) as u64;
    type Expected = Result<(), (ErrorKind, &'static str, u64)>;
    let table: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("none", extension(0, 0, &[]), Ok(())),
        ("an end with a length", extension(0, u32::MAX, &[]), Ok(())),
        (
            "to the cluster's end",
            extension(UNKNOWN, most, &[]),
            Ok(()),
        ),
        ("a byte further", extension(UNKNOWN, most + 1, &[]), bad),
        (
            "a second one further",
            behind,
            Err((Corrupt, "header extension", second)),
        ),
        ("without end", extension(UNKNOWN, u32::MAX, &[]), bad),
        ("half the numbers", extension(UNKNOWN, 1 << 31, &[]), bad),
        ("as many as there is room for", empty, Ok(())),
        ("no feature names", honest(FEATURE_NAMES, &[]), Ok(())),
        ("a part of a name", honest(FEATURE_NAMES, &[0; 47]), Ok(())),
        ("a name", honest(FEATURE_NAMES, &[b'x'; 48]), Ok(())),
        (
            "a name and a part",
            honest(FEATURE_NAMES, &[0xFF; 49]),
            Ok(()),
        ),
        ("no backing format", honest(BACKING_FORMAT, &[]), Ok(())),
        ("a backing format", honest(BACKING_FORMAT, b"raw"), Ok(())),
        ("no text", honest(BACKING_FORMAT, b"r\xFFw"), bad),
        ("text with NUL", honest(BACKING_FORMAT, b"raw\0"), bad),
        (
            "a data file without its bit",
            honest(DATA_FILE, b"d"),
            Err((Corrupt, "header", 0)),
        ),
        (
            "a data file that is no text",
            honest(DATA_FILE, b"\xC3"),
            bad,
        ),
        ("short bitmaps", honest(BITMAPS, &[0; 23]), bad),
        ("bitmaps", honest(BITMAPS, &[0; 24]), Ok(())),
        ("long bitmaps", honest(BITMAPS, &[0xFF; 25]), Ok(())),
        (
            "encryption without a method",
            honest(ENCRYPTION, &[0xFF; 16]),
            Ok(()),
        ),
    ];
    for (what, area, expected) in table {
        let mut image = image.clone();
        image[EXTENSIONS..CLUSTER].fill(0);
        image[EXTENSIONS..EXTENSIONS + area.len()].copy_from_slice(&area);
        let found = read(&image).map(drop).map_err(|error| place(&error));
        let expected = expected.map_err(|(kind, name, at)| (kind, name.to_owned(), at));
        assert_eq!(found, expected, "{what}");
        harmless(what, &image);
    }
}

#[test]
fn unknown_extensions_are_all_kept_and_refused_only_by_strict_reading() {
    let Some(mut image) = image(&[]) else { return };
    let count = (CLUSTER - EXTENSIONS) / 8;
    let many = extension(UNKNOWN, 0, &[]).repeat(count);
    image[EXTENSIONS..CLUSTER].copy_from_slice(&many);
    let opened = open(memory(&image)).unwrap();
    assert_eq!(opened.extensions().unknown.len(), count);
    let strict = OpenOptions::read_only().with_strict(true);
    let refused = Qcow2Image::open(memory(&image), &strict).unwrap_err();
    let expected = (ErrorKind::Unsupported, "header extension".to_owned(), 112);
    assert_eq!(place(&refused), expected);
}

#[test]
fn bitmaps_and_their_directory_are_bounded() {
    let Some((img, _)) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    made(
        dir.path(),
        "a.qcow2",
        4 * MIB,
        "cluster_size=64k",
        &["write -P 1 0 64k"],
    );
    let path = dir.path().join("a.qcow2");
    let name = path.to_str().unwrap();
    img.run(&["bitmap", "--add", name, "b"]).ok().unwrap();
    let image = std::fs::read(&path).unwrap();
    let at = (EXTENSIONS..CLUSTER)
        .find(|at| image[*at..].starts_with(&BITMAPS.to_be_bytes()))
        .unwrap();
    let (count, size, directory) = (at + 8, at + 16, at + 24);
    let entry = index(be64(&image, directory));
    let end = image.len() as u64;
    assert!(check(memory(&image)).unwrap().is_clean());
    // Place, width, value, a code among the findings; none where it leads to no finding of its own.
    let table: &[(usize, usize, u64, Option<&str>)] = &[
        (count, 4, 0, None),
        (count, 4, 2, Some("bitmap-directory")),
        (count, 4, 65_535, Some("bitmap-directory")),
        (count, 4, u64::MAX, Some("bitmap-directory")),
        (size, 8, 0, Some("bitmap-directory")),
        (size, 8, 23, Some("bitmap-directory")),
        (size, 8, end, Some("bitmap-directory")),
        (size, 8, u64::MAX, Some("bitmap-directory")),
        (directory, 8, 0, Some("refcount-low")),
        (directory, 8, 0x200, Some("bitmap-directory")),
        (
            directory,
            8,
            end.next_multiple_of(65_536),
            Some("bitmap-directory"),
        ),
        (directory, 8, 1 << 56, Some("bitmap-directory")),
        (directory, 8, u64::MAX, Some("bitmap-directory")),
        (entry, 8, 0, Some("refcount-low")),
        (entry, 8, 0x200, Some("bitmap-table")),
        (entry, 8, 1 << 56, Some("outside-the-file")),
        (entry, 8, !0xFFFF, Some("outside-the-file")),
        (entry + 8, 4, 0, Some("refcount-high")),
        (entry + 8, 4, u64::MAX, Some("outside-the-file")),
        (entry + 18, 2, u64::MAX, None),
        (entry + 20, 4, u64::MAX, None),
    ];
    for &(at, width, value, code) in table {
        let mut image = image.clone();
        image[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        let what = format!("{value:#x} at {at:#x}");
        // Bitmaps are nothing to a reader.
        read(&image).unwrap_or_else(|error| panic!("{what}: {error}"));
        let report = check(memory(&image)).unwrap();
        let codes: Vec<_> = report.findings.iter().map(|f| f.code).collect();
        if let Some(code) = code {
            assert!(codes.contains(&code), "{what}: {codes:?}");
        }
        harmless(&what, &image);
    }
}

#[test]
fn a_snapshot_names_what_is_wrong_with_it_and_the_disk_stays_readable() {
    use ErrorKind::{Corrupt, LimitExceeded};
    let Some((img, _)) = qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    made(
        dir.path(),
        "a.qcow2",
        4 * MIB,
        "cluster_size=64k",
        &["write -P 1 0 64k"],
    );
    let path = dir.path().join("a.qcow2");
    let name = path.to_str().unwrap();
    img.run(&["snapshot", "-c", "one", name]).ok().unwrap();
    let image = std::fs::read(&path).unwrap();
    let table = be64(&image, 64);
    let entry = index(table);
    let end = image.len() as u64;
    let beyond = end.next_multiple_of(65_536);
    let snapshot = |image: &[u8]| {
        Qcow2Image::open_snapshot(memory(image), "1", &OpenOptions::read_only()).map(drop)
    };
    snapshot(&image).unwrap();
    // Place in the entry, width, value, what opening the snapshot comes to.
    let structure = "snapshot table entry";
    let rows: &[(usize, usize, u64, ErrorKind, &str, u64)] = &[
        (0, 8, 0x200, Corrupt, structure, table),
        (0, 8, 1 << 63, Corrupt, structure, table),
        (0, 8, beyond, Corrupt, "L1 table", beyond),
        (0, 8, 1 << 56, Corrupt, "L1 table", 1 << 56),
        (8, 4, 0, Corrupt, structure, table),
        (8, 4, (4 << 20) + 1, LimitExceeded, structure, table),
        (8, 4, u64::MAX, LimitExceeded, structure, table),
        (36, 4, 1025, LimitExceeded, structure, table),
        (36, 4, u64::MAX, LimitExceeded, structure, table),
        // A disk larger than its L1 table.
        (48, 8, 1 << 40, Corrupt, structure, table),
        (48, 8, u64::MAX, Corrupt, structure, table),
    ];
    for &(at, width, value, kind, structure, offset) in rows {
        let mut image = image.clone();
        let field = entry + at..entry + at + width;
        image[field].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        let what = format!("{value:#x} at {at}");
        let refused = snapshot(&image).unwrap_err();
        assert_eq!(
            place(&refused),
            (kind, structure.to_owned(), offset),
            "{what}"
        );
        assert_eq!(read(&image).unwrap()[0], 1, "{what}");
        harmless(&what, &image);
    }
    // Ids and names as long as can be end past the file; none that is asked for is there.
    for at in [12, 14] {
        let mut image = image.clone();
        image[entry + at..entry + at + 2].fill(0xFF);
        let refused = snapshot(&image).unwrap_err();
        assert_eq!(
            place(&refused),
            (Corrupt, "header".to_owned(), 0),
            "{refused}"
        );
        harmless("long names", &image);
    }
    let mut many = image.clone();
    set32(&mut many, 60, 65_536);
    let header = open(memory(&many)).unwrap().header().clone();
    let refused = inspect::snapshots(&*memory(&many), &header).unwrap_err();
    assert_eq!(refused.kind(), Corrupt);
    harmless("the most snapshots", &many);
}

#[test]
fn an_entry_that_leads_astray_is_named_with_its_place() {
    use ErrorKind::Corrupt;
    let Some(image) = image(&["write -P 1 0 64k"]) else {
        return;
    };
    let (_, l2) = first_l2(&image);
    let l1 = index(be64(&image, 40));
    let past = (image.len() as u64).next_multiple_of(65_536);
    let copied = 1 << 63;
    // Where, the entry, the structure that is blamed; none where the disk reads, and with what byte.
    let rows: &[(usize, u64, Result<u8, &str>)] = &[
        (l1, 0, Ok(0)),
        (l1, copied | 0x200, Err("L1 entry")),
        (l1, copied | past, Err("L1 entry")),
        (l1, copied | 0x00FF_FFFF_FFFF_0000, Err("L1 entry")),
        // Reserved bits are not part of the place.
        (l1, be64(&image, l1) | 1 << 56, Ok(1)),
        (l2, 0, Ok(0)),
        (l2, 1, Ok(0)),
        (l2, copied | 0x200, Err("L2 entry")),
        (l2, copied | 0x00FF_FFFF_FFFF_FE00, Err("L2 entry")),
        // What lies past the end of the file reads as zeros, as QEMU has it.
        (l2, copied | past, Ok(0)),
        (l2, copied | 0x00FF_FFFF_FFFF_0000, Ok(0)),
        (l2, be64(&image, l2) | 1 << 61, Ok(1)),
    ];
    for &(at, entry, expected) in rows {
        let mut image = image.clone();
        set64(&mut image, at, entry);
        let what = format!("{entry:#x} at {at:#x}");
        // The disk is alone: what it does not hold is its parent's, or nothing.
        let found = read(&image).map(|content| content[0]);
        let found = found.map_err(|error| place(&error));
        let expected = expected.map_err(|name| (Corrupt, name.to_owned(), at as u64));
        assert_eq!(found, expected, "{what}");
        harmless(&what, &image);
    }
}

#[test]
fn entries_that_name_the_header_or_a_refcount_out_of_bounds_are_found_by_a_check() {
    let Some(image) = image(&["write -P 1 0 64k"]) else {
        return;
    };
    let (_, l2) = first_l2(&image);
    let l1 = index(be64(&image, 40));
    let table = index(be64(&image, 48));
    let past = (image.len() as u64).next_multiple_of(65_536);
    let rows: &[(usize, u64, &str)] = &[
        (l2, (1 << 63) | (past + 65_536), "outside-the-file"),
        (l2, 1 << 63 | 0x1_0000, "refcount-low"),
        (l1, 1 << 63 | 0x1_0000, "refcount-low"),
        (table, 0, "refcount-low"),
        (table, 0x200, "block-unaligned"),
        (table, past, "block-outside"),
        (table, !0xFFFF, "block-outside"),
        (table, 1, "table-reserved"),
        (table, be64(&image, 40), "block-shared"),
        (table + 8, be64(&image, table), "block-shared"),
    ];
    for &(at, entry, code) in rows {
        let mut image = image.clone();
        set64(&mut image, at, entry);
        let what = format!("{entry:#x} at {at:#x}");
        let report = check(memory(&image)).unwrap();
        let codes: Vec<_> = report.findings.iter().map(|f| f.code).collect();
        assert!(codes.contains(&code), "{what}: {codes:?}");
        assert!(report.corruptions > 0, "{what}");
        harmless(&what, &image);
    }
}

#[test]
fn compressed_descriptors_at_the_edges_are_read_or_named() {
    let Some(image) = image(&["write -c -P 7 0 64k"]) else {
        return;
    };
    let (_, at) = first_l2(&image);
    let entry = be64(&image, at);
    let offset = entry & ((1 << 54) - 1);
    let end = image.len() as u64;
    let packed = |offset: u64, sectors: u64| 1 << 62 | (sectors - 1) << 54 | offset;
    let rows: &[(u64, bool)] = &[
        // More sectors than the stream needs, and than the file has.
        (packed(offset, 128), true),
        (packed(offset, 256), true),
        (packed(offset + 1, 256), false),
        (packed(0, 1), false),
        (packed(0, 256), false),
        (packed(end - 1, 1), false),
        (packed(end, 1), false),
        (packed((1 << 54) - 1, 256), false),
    ];
    for &(entry, reads) in rows {
        let mut image = image.clone();
        set64(&mut image, at, entry);
        let what = format!("{entry:#x}");
        match read(&image) {
            Ok(content) => assert!(reads && content[..CLUSTER] == [7; CLUSTER], "{what}"),
            Err(error) => {
                let (kind, structure, _) = place(&error);
                assert!(!reads, "{what}: {error}");
                assert_eq!(
                    (kind, &*structure),
                    (ErrorKind::Corrupt, "compressed cluster")
                );
            }
        }
        harmless(&what, &image);
    }
}

#[test]
fn packed_clusters_that_share_a_host_cluster_stay_when_one_of_them_is_freed() {
    let writes = [
        "write -c -P 1 0 64k",
        "write -c -P 2 64k 64k",
        "discard 0 64k",
    ];
    let Some(image) = image(&writes) else { return };
    let content = read(&image).unwrap();
    assert!(content[CLUSTER..2 * CLUSTER] == [2; CLUSTER]);
    assert!(check(memory(&image)).unwrap().is_clean());
}

#[test]
fn a_dirty_image_with_packed_clusters_is_read_and_its_check_changes_nothing() {
    let Some(mut image) = image(&["write -c -P 3 0 128k"]) else {
        return;
    };
    let features = be64(&image, 72);
    set64(&mut image, 72, features | 1);
    assert!(read(&image).unwrap()[..2 * CLUSTER] == [3; 2 * CLUSTER]);
    let storage = memory(&image);
    check(Arc::clone(&storage)).unwrap();
    let mut after = vec![0; image.len()];
    storage.read_at(&mut after, 0).unwrap();
    assert!(after == image);
}

#[test]
fn a_version_2_header_may_have_extensions() {
    if qemu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = "compat=0.10,cluster_size=64k";
    let mut image = made(dir.path(), "a.qcow2", MIB, options, &["write -P 1 0 64k"]);
    let format = extension(BACKING_FORMAT, 3, b"raw");
    image[72..72 + format.len()].copy_from_slice(&format);
    image[72 + format.len()..][..8].fill(0);
    let opened = open(memory(&image)).unwrap();
    assert_eq!(opened.extensions().backing_format.as_deref(), Some("raw"));
    assert_eq!(read(&image).unwrap()[0], 1);
}
