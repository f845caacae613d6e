//! The part of JSON (RFC 8259) that a gap, a long-poll response and most events need: strings.

/// Writes a text as a JSON string, quotes included (RFC 8259 section 7).
///
/// ```
/// use tiny_sse::{Event, json_string};
///
/// let (user, text) = ("ann", "She said \"no\".\n");
/// let data = format!("{{\"user\":{},\"text\":{}}}", json_string(user), json_string(text));
/// assert_eq!(data, r#"{"user":"ann","text":"She said \"no\".\n"}"#);
/// let event = Event::data(data);
/// ```
#[must_use]
pub fn json_string(text: &str) -> String {
    // `string = quotation-mark *char quotation-mark`, `char = unescaped / escape (...)`
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(json_string(text), expected);
        }
        check("é 😀", r#""é 😀""#); // UTF-8 as it is.
        check(r#"a"b\c"#, r#""a\"b\\c""#); // The two that must be escaped.
        check("a\nb\r\0", r#""a\nb\u000d\u0000""#); // And control characters.
    }
}
