//! A JSON value as indented text, so that people and programs are told the same.

use serde_json::Value;

use super::plain::plain;

/// `value` as lines, `indent` spaces in.
pub(crate) fn text(value: &Value, indent: usize) -> String {
    let mut out = String::new();
    write(value, indent, &mut out);
    out
}

/// Item number `number` of a list, as lines, `indent` spaces in: for lists too long to be held.
pub(crate) fn numbered(number: usize, value: &Value, indent: usize) -> String {
    let mut out = String::new();
    item(&format!("[{number}]:"), value, indent, &mut out);
    out
}

fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                item(&format!("{}:", plain(name)), value, indent, out);
            }
        }
        Value::Array(items) => {
            for (number, value) in items.iter().enumerate() {
                out.push_str(&numbered(number, value, indent));
            }
        }
        plain => out.push_str(&format!("{:indent$}{}\n", "", leaf(plain))),
    }
}

fn item(label: &str, value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push_str(&format!("{:indent$}{label}\n", ""));
            write(value, indent + 4, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push_str(&format!("{:indent$}{label}\n", ""));
            write(value, indent + 4, out);
        }
        Value::Array(_) => out.push_str(&format!("{:indent$}{label}\n", "")),
        plain => out.push_str(&format!("{:indent$}{label} {}\n", "", leaf(plain))),
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Object(_) | Value::Null => "none".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_name_reaches_the_terminal_as_a_command() {
        let value =
            json!({"name": "a\u{1b}[2Jb\n", "path": r".\base.vhdx", "list": [1, {"\u{7}": null}]});
        let text = text(&value, 2);
        assert_eq!(
            text,
            "  name: a\\u{1b}[2Jb\\n\n  path: .\\base.vhdx\n  list:\n      [0]: 1\n      [1]:\n          \
             \\u{7}: none\n"
        );
    }
}
