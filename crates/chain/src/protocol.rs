//! Names with a protocol: what QEMU makes of `json:{…}` and `file:…`, for images one trusts.
//!
//! Only what comes down to one local file and its format has a meaning here, and what the caller's opener
//! knows as a name of its own, which it is given as it is. Whatever else such a name says would change
//! what is read, so it is refused by name.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use blockdev_core::locate::Opener;
use blockdev_core::{Error, ErrorKind, FileName, FileRef, NameKind, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Longest name that is looked into, in bytes: no format stores longer ones.
const MAX_BYTES: usize = 1023;

/// `reference` with the path and the format that its name tells, where it is a name with a protocol.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for what the name says beyond a local file and its format,
/// [`ErrorKind::Corrupt`] for a name that says nothing whole or contradicts the image,
/// [`ErrorKind::LimitExceeded`].
pub(crate) fn resolved<'a>(
    reference: &'a FileRef,
    opener: &dyn Opener,
) -> Result<Cow<'a, FileRef>> {
    let protocol = |name: &&FileName| name.kind == NameKind::Protocol;
    let Some(name) = reference.names.iter().find(protocol) else {
        return Ok(Cow::Borrowed(reference));
    };
    let (path, format) = if let Some(text) = name.stored.strip_prefix("json:") {
        json(text)?
    } else if let Some(path) = name.stored.strip_prefix("file:") {
        (path.to_owned(), None)
    } else if opener.is_remote(Path::new(&name.stored)) {
        (name.stored.clone(), None)
    } else {
        return Ok(Cow::Borrowed(reference));
    };
    if path.is_empty() {
        return Err(corrupt("it names no file"));
    }
    let format = match (format, &reference.format) {
        (Some(told), Some(declared)) if told != *declared => {
            let text = format!("its name says {told:?}, its declared format {declared:?}");
            return Err(corrupt(text));
        }
        (told, declared) => told.or_else(|| declared.clone()),
    };
    let name = FileName {
        path: Some(PathBuf::from(path)),
        ..name.clone()
    };
    Ok(Cow::Owned(FileRef {
        names: vec![name],
        format,
        ..reference.clone()
    }))
}

/// The file name and the format of `{"driver":FORMAT,"file":{"driver":"file","filename":NAME}}`, or
/// of the same with the inner keys dotted.
fn json(text: &str) -> Result<(String, Option<String>)> {
    if text.len() > MAX_BYTES {
        let text = format!("a name of more than {MAX_BYTES} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, text));
    }
    let Object(fields) =
        serde_json::from_str(text).map_err(|error| corrupt(format!("its name: {error}")))?;
    let mut flat = Vec::new();
    for (key, field) in fields {
        match field {
            Field::Text(value) => flat.push((key, value)),
            Field::Object(Object(inner)) => {
                for (below, field) in inner {
                    let key = format!("{key}.{below}");
                    match field {
                        Field::Text(value) => flat.push((key, value)),
                        _ => return Err(unsupported(&key)),
                    }
                }
            }
            Field::Other => return Err(unsupported(&key)),
        }
    }
    let (mut format, mut file_driver, mut path) = (None, None, None);
    for (key, value) in flat {
        let place = match key.as_str() {
            "driver" => &mut format,
            "file.driver" => &mut file_driver,
            "file.filename" => &mut path,
            _ => return Err(unsupported(&key)),
        };
        if place.replace(value).is_some() {
            return Err(corrupt(format!("its name gives {key:?} twice")));
        }
    }
    match file_driver.as_deref() {
        None | Some("file") => {}
        Some(other) => return Err(unsupported(&format!("file.driver: {other}"))),
    }
    match path {
        Some(path) => Ok((path, format)),
        None => Err(corrupt("its name has no \"file.filename\"")),
    }
}

fn unsupported(key: &str) -> Error {
    let text = format!("{:?} in its name is not understood", Shortened(key));
    Error::new(ErrorKind::Unsupported, text)
}

fn corrupt(text: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

/// A key of a file, of which a message shows no more than is needed to find it.
struct Shortened<'a>(&'a str);

impl fmt::Debug for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(64).collect();
        write!(f, "{shown:?}")
    }
}

/// An object with its keys in order, repeated ones too.
struct Object(Vec<(String, Field)>);

enum Field {
    Text(String),
    Object(Object),
    /// Numbers, lists and the like: nothing that a name needs.
    Other,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Field, E> {
                Ok(Field::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field, A::Error> {
                let inner = serde::de::value::MapAccessDeserializer::new(map);
                Object::deserialize(inner).map(Field::Object)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_unit<E>(self) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Field, A::Error> {
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use blockdev_core::FileRole;
    use blockdev_core::locate::HostOpener;

    use super::*;

    fn told(stored: &str, declared: Option<&str>) -> Result<(PathBuf, Option<String>), String> {
        let reference = FileRef {
            role: FileRole::Parent,
            names: vec![FileName {
                kind: NameKind::Protocol,
                stored: stored.into(),
                path: None,
            }],
            format: declared.map(Into::into),
            expected: Vec::new(),
            logical_sector_size: None,
        };
        let resolved = resolved(&reference, &HostOpener)
            .map_err(|error| format!("{:?} {error}", error.kind()))?;
        let path = resolved.names[0].path.clone().ok_or("no path")?;
        Ok((path, resolved.format.clone()))
    }

    #[test]
    fn a_local_file_and_its_format_are_told_in_every_spelling() {
        let nested = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a b"}}"#;
        let dotted = r#"json:{"file.filename":"a b", "file.driver":"file", "driver":"qcow2"}"#;
        let escaped = r#"json:{"driver":"qcow2","file.filename":"a\u0020b"}"#;
        let expected = Ok((PathBuf::from("a b"), Some("qcow2".to_owned())));
        for name in [nested, dotted, escaped] {
            assert_eq!(told(name, None), expected, "{name}");
            assert_eq!(told(name, Some("qcow2")), expected, "{name}");
        }
        let undeclared = r#"json:{"file":{"filename":"a b"}}"#;
        assert_eq!(told(undeclared, Some("qcow2")), expected);
        assert_eq!(told("file:a b", Some("qcow2")), expected);
        assert_eq!(told("file:a b", None).unwrap().1, None);
    }

    #[test]
    fn whatever_else_a_name_says_is_refused_by_name() {
        for (name, refused) in [
            (
                r#"{"driver":"raw","file.filename":"a","offset":"512"}"#,
                "Unsupported \"offset\"",
            ),
            (
                r#"{"driver":"raw","file.filename":"a","size":512}"#,
                "Unsupported \"size\"",
            ),
            (
                r#"{"file":{"driver":"nbd","filename":"a"}}"#,
                "Unsupported \"file.driver: nbd\"",
            ),
            (
                r#"{"file":{"filename":"a","locking":"off"}}"#,
                "Unsupported \"file.locking\"",
            ),
            (
                r#"{"file":{"file":{"filename":"a"}}}"#,
                "Unsupported \"file.file\"",
            ),
            (r#"{"file":"node"}"#, "Unsupported \"file\""),
            (r#"{"file":["a"]}"#, "Unsupported \"file\""),
            (
                r#"{"file.filename":"a","backing":null}"#,
                "Unsupported \"backing\"",
            ),
            (
                r#"{"file.filename":"a","backing":{"driver":"raw"}}"#,
                "Unsupported \"backing.driver\"",
            ),
            (
                r#"{"file.filename":"a","file":{"filename":"b"}}"#,
                "Corrupt its name gives",
            ),
            (
                r#"{"file.filename":"a","file.filename":"a"}"#,
                "Corrupt its name gives",
            ),
            (r#"{"driver":"raw"}"#, "Corrupt its name has no"),
            (r#"{"file.filename":""}"#, "Corrupt it names no file"),
            (
                r#"{"driver":"vhdx","file.filename":"a"}"#,
                "Corrupt its name says \"vhdx\"",
            ),
            ("{", "Corrupt its name"),
            ("[]", "Corrupt its name"),
            (r#"{"file.filename":"a"} x"#, "Corrupt its name"),
        ] {
            let error = told(&format!("json:{name}"), Some("raw")).unwrap_err();
            assert!(error.starts_with(refused), "{name}: {error}");
        }
        assert!(told("file:", None).unwrap_err().starts_with("Corrupt"));
        let long = format!(r#"json:{{"file.filename":"{}"}}"#, "a".repeat(MAX_BYTES));
        assert!(told(&long, None).unwrap_err().starts_with("LimitExceeded"));
        let deep = format!("json:{}", r#"{"a":"#.repeat(200));
        assert!(told(&deep, None).is_err());
        assert_eq!(told("nbd:host:1", None), Err("no path".into()));
    }
}
