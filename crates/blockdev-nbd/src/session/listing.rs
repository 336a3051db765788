//! What a client asks a server that it wants no export of: which there are.

use std::io::{self, Read, Write};

use super::agreement::{FEW, Refusal, ask, nonsense};
use crate::export_info::{BlockSizes, ExportInfo};
use crate::list::ListError;
use crate::wire::fields::Fields;
use crate::wire::flags::transmission::HAS_FLAGS;
use crate::wire::info;
use crate::wire::option::{self, kind, put_option};

/// Most exports that are listed.
const MOST_EXPORTS: usize = 4096;
/// Most contexts of one export.
const MOST_CONTEXTS: usize = 1024;
/// Longest name or description, in bytes: the protocol's longest string.
const MOST_STRING: usize = 4096;
/// Most bytes of names and descriptions altogether.
const MOST_TEXT: usize = 4 << 20;

/// How much text a server may still tell.
struct Room(usize);

impl Room {
    /// A string that there is room for.
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.checked_sub(bytes.len())?;
        (bytes.len() <= MOST_STRING).then_some(())
    }
}

/// Asks for all exports, once the server was greeted, and says that nothing more is wanted.
///
/// # Errors
/// When the server does not tell, or makes no sense. The connection is of no use then.
pub(crate) fn list(stream: &mut (impl Read + Write)) -> Result<Vec<ExportInfo>, ListError> {
    let mut room = Room(MOST_TEXT);
    let mut knows = |option| ask(stream, option, &[], FEW, |_, _| false).map(|no| no.is_none());
    let extended = knows(option::EXTENDED_HEADERS)?;
    let structured = extended || knows(option::STRUCTURED_REPLY)?;
    let mut exports = names(stream, &mut room)?;
    for export in &mut exports {
        export.extended_headers = extended;
        facts(stream, export)?;
        if structured {
            contexts(stream, export, &mut room)?;
        }
    }
    let mut farewell = Vec::new();
    put_option(&mut farewell, option::ABORT, &[]);
    // Whoever does not hear it sees the connection end.
    let _ = stream.write_all(&farewell);
    Ok(exports)
}

fn names(stream: &mut (impl Read + Write), room: &mut Room) -> Result<Vec<ExportInfo>, ListError> {
    let mut exports = Vec::new();
    let refused = ask(stream, option::LIST, &[], MOST_EXPORTS, |kind, data| {
        let export = (kind == kind::SERVER).then(|| named(data, room)).flatten();
        let is_sound = export.is_some();
        exports.extend(export);
        is_sound
    })?;
    match refused {
        None => Ok(exports),
        Some(refusal) => Err(ListError::refused(option::LIST, refusal)),
    }
}

/// An export of which nothing but this is known.
fn named(data: &[u8], room: &mut Room) -> Option<ExportInfo> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let description = fields.0;
    room.take(name)?;
    room.take(description)?;
    let name = std::str::from_utf8(name).ok()?.to_owned();
    let description = String::from_utf8_lossy(description).into_owned();
    Some(ExportInfo::named(name, description))
}

fn facts(stream: &mut (impl Read + Write), export: &mut ExportInfo) -> Result<(), ListError> {
    let wanted = info::request(&export.name);
    let refused = ask(stream, option::INFO, &wanted, FEW, |kind, data| {
        kind == kind::INFO && learn(export, data).is_some()
    })?;
    match refused {
        // The name is all that such a server tells.
        Some(Refusal { code, .. }) if code == kind::ERR_UNSUP => Ok(()),
        Some(refusal) => Err(ListError::refused(option::INFO, refusal)),
        None if export.flags & HAS_FLAGS == 0 => {
            Err(nonsense("the server does not tell what can be asked of an export").into())
        }
        None => Ok(()),
    }
}

/// Takes note of one piece of information; `None` when it is malformed.
fn learn(export: &mut ExportInfo, data: &[u8]) -> Option<()> {
    let mut fields = Fields(data);
    match fields.u16()? {
        info::EXPORT => {
            export.size = Some(fields.u64()?);
            export.flags = fields.u16()?;
        }
        info::BLOCK_SIZE => {
            let (minimum, preferred) = (fields.u32()?, fields.u32()?);
            let maximum = fields.u32()?;
            let sound = minimum.is_power_of_two() && preferred.is_power_of_two();
            if !sound || preferred < minimum || maximum < minimum {
                return None;
            }
            export.block_sizes = Some(BlockSizes {
                minimum,
                preferred,
                maximum,
            });
        }
        // "Clients MUST ignore" what they do not know.
        _ => return Some(()),
    }
    fields.is_empty().then_some(())
}

/// Asks for all contexts; QEMU's by their own name, too, where none was told: servers before QEMU 6 tell
/// of those only to who says so.
fn contexts(
    stream: &mut (impl Read + Write),
    export: &mut ExportInfo,
    room: &mut Room,
) -> io::Result<()> {
    const QEMU: &str = "qemu:";
    more_contexts(stream, export, &[], room)?;
    let is_qemus = |name: &String| name.starts_with(QEMU);
    if !export.contexts.is_empty() && !export.contexts.iter().any(is_qemus) {
        more_contexts(stream, export, &[QEMU], room)?;
    }
    Ok(())
}

fn more_contexts(
    stream: &mut (impl Read + Write),
    export: &mut ExportInfo,
    queries: &[&str],
    room: &mut Room,
) -> io::Result<()> {
    let mut wanted = info::string(&export.name);
    wanted.extend(u32::try_from(queries.len()).expect("few").to_be_bytes());
    for query in queries {
        wanted.extend(info::string(query));
    }
    let found = &mut export.contexts;
    let list = option::LIST_META_CONTEXT;
    // Whoever refuses has none.
    ask(stream, list, &wanted, MOST_CONTEXTS, |kind, data| {
        let name = (kind == kind::META_CONTEXT).then(|| context(data, room));
        let Some(name) = name.flatten() else {
            return false;
        };
        if !found.contains(&name) && found.len() < MOST_CONTEXTS {
            found.push(name);
        }
        true
    })
    .map(drop)
}

fn context(data: &[u8], room: &mut Room) -> Option<String> {
    let mut fields = Fields(data);
    fields.u32()?;
    room.take(fields.0)?;
    let name = std::str::from_utf8(fields.0).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::option::put_reply;

    /// A server that says `said`, whatever it hears.
    struct Deaf<'a>(&'a [u8]);

    impl Read for Deaf<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf)
        }
    }

    impl Write for Deaf<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn listed(said: &[u8]) -> Result<Vec<ExportInfo>, ListError> {
        list(&mut Deaf(said))
    }

    /// A server without extended headers that tells of `exports` first.
    fn begun(exports: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        put_reply(&mut out, option::EXTENDED_HEADERS, kind::ERR_UNSUP, &[]);
        put_reply(&mut out, option::STRUCTURED_REPLY, kind::ACK, &[]);
        for (name, description) in exports {
            let data = option::server(name, description);
            put_reply(&mut out, option::LIST, kind::SERVER, &data);
        }
        out
    }

    fn replies() -> Vec<u8> {
        let mut out = begun(&[("disk", "of a test"), ("", "")]);
        put_reply(&mut out, option::LIST, kind::ACK, &[]);
        for _ in 0..2 {
            let told = [info::export(4096, 3), info::block_size(1, 512, 1024)];
            for told in told {
                put_reply(&mut out, option::INFO, kind::INFO, &told);
            }
            put_reply(&mut out, option::INFO, kind::ACK, &[]);
            for name in ["base:allocation", "qemu:x"] {
                let data = option::meta_context(0, name);
                let list = option::LIST_META_CONTEXT;
                put_reply(&mut out, list, kind::META_CONTEXT, &data);
            }
            put_reply(&mut out, option::LIST_META_CONTEXT, kind::ACK, &[]);
        }
        out
    }

    #[test]
    fn a_server_is_understood_and_one_cut_short_is_an_error() {
        let said = replies();
        let exports = listed(&said).unwrap();
        assert_eq!(exports.len(), 2);
        assert_eq!(exports[0].name, "disk");
        assert_eq!(exports[0].description, "of a test");
        assert_eq!(exports[0].size, Some(4096));
        assert!(exports[0].is_read_only() && !exports[0].extended_headers);
        assert_eq!(exports[1].contexts, ["base:allocation", "qemu:x"]);
        for len in 0..said.len() {
            assert!(listed(&said[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_server_with_any_byte_wrong_is_refused_or_told_of() {
        let said = replies();
        let mut refused = 0;
        for at in 0..said.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut wrong = said.clone();
                wrong[at] ^= flip;
                match listed(&wrong) {
                    Ok(exports) => assert!(exports.len() <= 2),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > said.len(), "{refused}");
    }

    /// Told of one more export again and again, a client would take all the memory there is.
    #[test]
    fn a_server_without_an_end_of_exports_is_left() {
        let long = "n".repeat(MOST_STRING);
        for (name, most) in [("", MOST_EXPORTS), (&*long, MOST_TEXT / MOST_STRING)] {
            let said = begun(&vec![(name, ""); most + 1]);
            let error = listed(&said).unwrap_err();
            assert!(
                matches!(&error, ListError::Failed(error) if error.kind() == io::ErrorKind::InvalidData),
                "{error}"
            );
        }
        let longer = "n".repeat(MOST_STRING + 1);
        for (name, description) in [(&*longer, ""), ("", &*longer)] {
            let error = listed(&begun(&[(name, description)])).unwrap_err();
            assert!(matches!(error, ListError::Failed(_)), "{error}");
        }
    }
}
