//! Text from elsewhere, made safe to show.
//!
//! A log line of a module may hold anything: escape sequences that rewrite the terminal, characters
//! that reverse the reading order, or a command for the CI system that captures the output. Shown
//! text holds none of these. What was there stays readable, as `\x1b` or `\u{202e}`.
//!
//! A backslash is not escaped itself: people search for the lines as Envoy logs them.

use std::{borrow::Cow, fmt::Write as _};

/// Whether `c` moves the cursor, hides, or changes the order of what is around it.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width, marks of direction.
            | '\u{200b}'..='\u{200f}'
            // Line and paragraph separators, embeddings and overrides.
            | '\u{2028}'..='\u{202e}'
            // Word joiner, invisible operators, isolates, deprecated formatting.
            | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags, which carry text that no terminal shows.
            | '\u{e0000}'..='\u{e007f}')
}

/// Whether a CI system takes `rest` as the start of a command wherever it stands in a line:
/// `##[error]`, `##vso[task.complete]`, `##teamcity[buildStop]`.
pub(super) fn is_command_anywhere(rest: &str) -> bool {
    rest.strip_prefix("##").is_some_and(|name| {
        name.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).starts_with('[')
    })
}

/// Whether `text` would be a command if it began a line: `::error::`. Leading space is skipped, as
/// CI systems do.
fn is_command_at_start(text: &str) -> bool {
    text.trim_start().starts_with("::")
}

/// `text` for a place within one line of a terminal or log.
pub fn escape(text: &str) -> Cow<'_, str> {
    let harmless =
        !text.chars().any(is_deceptive) && !text.contains("##") && !is_command_at_start(text);
    if harmless {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    if is_command_at_start(text) {
        let spaces = text.len() - text.trim_start().len();
        push_text(&mut shown, &text[..spaces]);
        shown.push_str("\\x3a:");
        rest = &text[spaces + 2..];
    }
    push_text(&mut shown, rest);
    Cow::Owned(shown)
}

fn push_text(shown: &mut String, text: &str) {
    for (at, c) in text.char_indices() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '#' if is_command_anywhere(&text[at..]) => shown.push_str("\\x23"),
            c if c.is_ascii_control() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(c));
            }
            c if is_deceptive(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
}

/// `text` between backticks, escaped.
pub fn quote(text: &str) -> String {
    format!("`{}`", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readable_where_it_is_not_harmless() {
        for (text, shown) in [
            ("plain ü → text\\", "plain ü → text\\"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\x1b[2J\\x1b]0;title\\x07"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("user\u{202e}gpj.exe", "user\\u{202e}gpj.exe"),
            ("::error::all is lost", "\\x3a:error::all is lost"),
            ("  ::set-output name=x::y", "  \\x3a:set-output name=x::y"),
            ("\n::error::", "\\n\\x3a:error::"),
            ("std::vector", "std::vector"),
            ("see ##[error]this", "see \\x23#[error]this"),
            ("##vso[task.complete]", "\\x23#vso[task.complete]"),
            ("###[group]", "#\\x23#[group]"),
            ("## heading", "## heading"),
            ("section_start:1:x\r\u{1b}[0K", "section_start:1:x\\r\\x1b[0K"),
        ] {
            assert_eq!(escape(text), shown, "{text:?}");
        }
    }

    fn hostile_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<String>(),
            Just("::".to_owned()),
            Just("##".to_owned()),
            Just("[".to_owned()),
            Just("\u{1b}[".to_owned()),
            Just("\r\n".to_owned()),
            Just("\u{202e}".to_owned()),
            Just("\u{85}".to_owned()),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_takes_effect(text in hostile_text()) {
            let shown = escape(&text);
            prop_assert!(!shown.chars().any(is_deceptive), "{shown:?}");
            prop_assert!(!is_command_at_start(&shown), "{shown:?}");
            prop_assert!(shown.char_indices().all(|(at, _)| !is_command_anywhere(&shown[at..])));
            prop_assert_eq!(escape(&shown), shown.as_ref());
        }

        #[test]
        fn text_without_harm_stays(text in "[a-zA-Z0-9 _./:\\\\äß→]*") {
            prop_assume!(!is_command_at_start(&text));
            prop_assert_eq!(escape(&text), text.as_str());
        }
    }
}
