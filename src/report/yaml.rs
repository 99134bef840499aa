//! JSON values as YAML that is safe to show. Every string is in double quotes, in which JSON and
//! YAML have the same escapes but for the characters that JSON writes as two.

use std::fmt::Write as _;

use serde_json::Value;

use super::escape::{is_command_anywhere, is_deceptive};

/// The value as a YAML document.
pub fn render(value: &Value) -> String {
    let mut out = String::new();
    write_block(&mut out, value, 0);
    out
}

/// The value on lines of its own.
fn write_block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (name, value)) in fields.iter().enumerate() {
                // The first field of an item stands behind its dash.
                if at > 0 || !out.ends_with("- ") {
                    indent(out, depth);
                }
                write_key(out, name);
                out.push(':');
                match is_block(value) {
                    true => {
                        out.push('\n');
                        write_block(out, value, depth + 1);
                    }
                    false => write_inline(out, value),
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(out, depth);
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        out.push_str("- ");
                        write_block(out, item, depth + 1);
                    }
                    item if is_block(item) => {
                        out.push_str("-\n");
                        write_block(out, item, depth + 1);
                    }
                    item => {
                        out.push('-');
                        write_inline(out, item);
                    }
                }
            }
        }
        value => write_inline(out, value),
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn write_inline(out: &mut String, value: &Value) {
    if out.ends_with([':', '-']) {
        out.push(' ');
    }
    match value {
        Value::String(text) => write_string(out, text),
        // Null, truth, numbers, `{}` and `[]` are the same in both.
        value => {
            let _ = write!(out, "{value}");
        }
    }
    out.push('\n');
}

/// The names of Envoy's fields need no quotes. What a user has named may look like a number or a
/// truth value.
fn write_key(out: &mut String, name: &str) {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !WORDS.contains(&name);
    if is_plain { out.push_str(name) } else { write_string(out, name) }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for (at, c) in text.char_indices() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '#' if is_command_anywhere(&text[at..]) => write!(out, "\\x23"),
            c if is_deceptive(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => match u32::from(c) {
                code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            },
            c => write!(out, "{c}"),
        };
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blocks() {
        let value = json!([
            { "name": "a", "list": [1, "two", [], [true, null]], "empty": {}, "deep": { "er": [{ "x": 1, "y": 2 }] } },
            "text",
        ]);
        let expected = "\
- deep:
    er:
      - x: 1
        \"y\": 2
  empty: {}
  list:
    - 1
    - \"two\"
    - []
    -
      - true
      - null
  name: \"a\"
- \"text\"
";
        assert_eq!(render(&value), expected);
        assert_eq!(render(&json!({})), "{}\n");
    }

    #[test]
    fn strings() {
        for (text, shown) in [
            ("", r#""""#),
            ("a \"b\" \\ 'c': - #d\n\te\r", r#""a \"b\" \\ 'c': - #d\n\te\r""#),
            ("ü → 😀 \u{1b}[2J\u{7f}\u{202e}\u{e0041}", r#""ü → 😀 \x1b[2J\x7f\u202e\U000e0041""#),
            ("##[error]", r##""\x23#[error]""##),
        ] {
            assert_eq!(render(&json!(text)), format!("{shown}\n"));
        }
        let key = json!({ "KEY": 1, "no": 2, "@type": 3, "1e3": 4, "vm_id": 5 });
        assert_eq!(render(&key), "\"1e3\": 4\n\"@type\": 3\n\"KEY\": 1\n\"no\": 2\nvm_id: 5\n");
    }
}
