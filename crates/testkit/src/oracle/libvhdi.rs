//! libvhdi: `vhdiinfo`, and its Python module for content and chains.
//!
//! It replays no logs, reads ZERO blocks of a differencing image from the parent, and takes a sector
//! bitmap block that is not there to be at the start of the file (20210425): ask it only about images
//! without either, and about children whose chunks have a bitmap block each.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{find, run};

/// Opens a child and its parents, nearest first, and hashes or dumps what the child shows.
const SCRIPT: &str = r#"
import hashlib, sys
import pyvhdi
dump, paths = sys.argv[1], sys.argv[2:]
files = []
for path in paths:
    file = pyvhdi.file()
    file.open(path)
    files.append(file)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
top, size, at = files[0], files[0].get_media_size(), 0
out = open(dump, "wb") if dump else None
digest = hashlib.sha256()
while at < size:
    data = top.read_buffer_at_offset(min(1 << 20, size - at), at)
    if not data:
        sys.exit("short read at %d of %d" % (at, size))
    digest.update(data)
    if out:
        out.write(data)
    at += len(data)
print(size, digest.hexdigest())
"#;

/// libvhdi's Python module, as Debian installs it for the system's own interpreter.
#[derive(Debug, Clone)]
pub struct Libvhdi(PathBuf);

impl Libvhdi {
    /// The module of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        let python = PathBuf::from("/usr/bin/python3");
        let has = Command::new(&python)
            .args(["-c", "import pyvhdi"])
            .output()
            .is_ok_and(|output| output.status.success());
        if has {
            return Some(Self(python));
        }
        crate::env::missing(
            "no libvhdi for Python: install the package python3-libvhdi, or run `cargo xtask setup`",
        );
        None
    }

    /// Size in bytes and SHA-256 of the disk that `chain` makes: the image, then its parents,
    /// nearest first.
    ///
    /// # Errors
    /// What it complained of.
    pub fn sha256(&self, chain: &[&Path]) -> Result<(u64, String), String> {
        self.read(None, chain)
    }

    /// As [`sha256`](Self::sha256), and writes the content to the file `to`.
    ///
    /// # Errors
    /// What it complained of.
    pub fn dump(&self, chain: &[&Path], to: &Path) -> Result<(u64, String), String> {
        self.read(Some(to), chain)
    }

    fn read(&self, to: Option<&Path>, chain: &[&Path]) -> Result<(u64, String), String> {
        let mut command = Command::new(&self.0);
        command.args(["-c", SCRIPT]);
        command.arg(to.unwrap_or(Path::new(""))).args(chain);
        let stdout = String::from_utf8_lossy(&run(&mut command).ok()?).into_owned();
        let parsed = stdout.trim().split_once(' ').and_then(|(size, hash)| {
            let size = size.parse().ok()?;
            Some((size, hash.to_owned()))
        });
        parsed.ok_or_else(|| format!("unexpected answer {stdout:?}"))
    }
}

/// The `vhdiinfo` tool.
#[derive(Debug, Clone)]
pub struct VhdiInfo(PathBuf);

impl VhdiInfo {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["vhdiinfo"], "libvhdi-utils").map(Self)
    }

    /// The lines `Name : value` it prints about `image`, in order.
    ///
    /// # Errors
    /// What it complained of.
    pub fn info(&self, image: &Path) -> Result<Vec<(String, String)>, String> {
        let stdout = run(Command::new(&self.0).arg(image)).ok()?;
        let text = String::from_utf8_lossy(&stdout);
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(fields
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect())
    }
}
