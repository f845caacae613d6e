//! A little JSON (RFC 8259): enough to read a request and to write an answer.

#![allow(dead_code)] // Each example uses a part of it.

use std::fmt;

/// How deep lists and objects may be nested: each level takes some of the thread's stack.
const MAX_DEPTH: usize = 32;

/// A JSON value. A number stays the text that it was, so it is sent back unchanged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole text; `None` if it is not JSON.
    pub(crate) fn parse(text: &[u8]) -> Option<Json> {
        let rest = std::str::from_utf8(text).ok()?;
        let mut parser = Parser { rest };
        let value = parser.value(MAX_DEPTH)?;
        parser.skip_blanks();
        parser.rest.is_empty().then_some(value)
    }

    /// Returns the member of an object with this name; `Null` if there is none.
    pub(crate) fn get(&self, name: &str) -> &Json {
        let Json::Object(members) = self else {
            return &Json::Null;
        };
        let found = members.iter().find(|(key, _)| key == name);
        found.map_or(&Json::Null, |(_, value)| value)
    }

    /// Returns the text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the items of a list, and no items for anything else.
    pub(crate) fn items(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Text(text.to_string())
    }
}

/// Writes the value in one line, as an event's data needs it.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(digits) => f.write_str(digits),
            Json::Text(text) => write_string(text, f),
            Json::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "[" } else { "," })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Json::Object(members) => {
                for (at, (name, value)) in members.iter().enumerate() {
                    f.write_str(if at == 0 { "{" } else { "," })?;
                    write_string(name, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_str(if members.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn write_string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(c))?,
            _ => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// Reads values from the front of what is left of a text.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn value(&mut self, depth_left: usize) -> Option<Json> {
        self.skip_blanks();
        for (word, value) in [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
        ] {
            if self.takes(word) {
                return Some(value);
            }
        }
        match self.rest.chars().next()? {
            '"' => Some(Json::Text(self.string()?)),
            '[' => self.list(depth_left.checked_sub(1)?),
            '{' => self.object(depth_left.checked_sub(1)?),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth_left: usize) -> Option<Json> {
        let mut items = Vec::new();
        while self.goes_on('[', ']', items.is_empty())? {
            items.push(self.value(depth_left)?);
        }
        Some(Json::List(items))
    }

    fn object(&mut self, depth_left: usize) -> Option<Json> {
        let mut members = Vec::new();
        while self.goes_on('{', '}', members.is_empty())? {
            self.skip_blanks();
            let name = self.string()?;
            self.skip_blanks();
            self.take(':')?;
            members.push((name, self.value(depth_left)?));
        }
        Some(Json::Object(members))
    }

    /// Takes what is in front of an item: `open` or a comma. Returns `Some(false)` at the end.
    fn goes_on(&mut self, open: char, close: char, is_first: bool) -> Option<bool> {
        self.skip_blanks();
        if is_first {
            self.take(open)?;
            self.skip_blanks();
            return Some(self.take(close).is_none());
        }
        match self.take(',') {
            Some(()) => Some(true),
            None => self.take(close).map(|()| false),
        }
    }

    /// Reads a number a little more freely than the grammar says: `+1` and `01` pass.
    fn number(&mut self) -> Option<Json> {
        let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        digits.parse::<f64>().ok()?;
        self.rest = rest;
        Some(Json::Number(digits.to_string()))
    }

    fn string(&mut self) -> Option<String> {
        self.take('"')?;
        let mut units = Vec::new();
        loop {
            let c = self.rest.chars().next()?;
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '"' => return Some(String::from_utf16_lossy(&units)),
                '\\' => units.push(self.escape()?),
                '\0'..='\x1f' => return None,
                _ => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
            }
        }
    }

    /// Reads what follows a backslash: one UTF-16 unit, of which a pair of `\u` makes one character.
    fn escape(&mut self) -> Option<u16> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(match c {
            '"' | '\\' | '/' => c as u16,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'u' => {
                let digits = self.rest.get(..4)?;
                digits
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit())
                    .then_some(())?;
                self.rest = &self.rest[4..];
                u16::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        })
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    fn takes(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}
