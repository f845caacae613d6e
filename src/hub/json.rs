//! The little of JSON (RFC 8259) that a gap and a long-poll answer need: strings.

/// A text as a JSON string (RFC 8259 section 7).
pub(crate) fn string(text: &str) -> String {
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
            assert_eq!(string(text), expected);
        }
        check("é 😀", r#""é 😀""#); // UTF-8 as it is.
        check(r#"a"b\c"#, r#""a\"b\\c""#); // The two that must be escaped.
        check("a\nb\r\0", r#""a\nb\u000d\u0000""#); // And control characters.
    }
}
