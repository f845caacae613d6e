//! Topic names: what a caller may give, and the checked set that is kept.
//!
//! ```abnf
//! topic = 1*256OCTET ; UTF-8 text without control characters (category Cc: U+0000-1F, U+007F-9F)
//! ```
//!
//! The history's file separates the names in a record by tabs and ends their line with LF, and logs show names as they are.
//! A name without control characters needs no escaping in either place. All else, such as `/` and blanks, is up to the caller.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Maximum length of a topic name and of an own id, in bytes: enough for a path, short enough to be a map's key.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// Maximum number of topics of one event or one subscriber. For each event that a reader takes, the log is locked while each of
/// the reader's topics is looked at.
pub(crate) const MAX_TOPICS: usize = 64;

/// One or several topic names: a string, or an array, slice or vector of strings.
pub trait Topics {
    /// Returns the names, in any order, unchecked.
    fn names(&self) -> Vec<&str>;
}

/// A reference to anything that has names, such as `&str`.
impl<T: Topics + ?Sized> Topics for &T {
    fn names(&self) -> Vec<&str> {
        (**self).names()
    }
}

/// One name.
impl Topics for str {
    fn names(&self) -> Vec<&str> {
        vec![self]
    }
}

/// One name, made at run time, such as `format!("user/{user}")`.
impl Topics for String {
    fn names(&self) -> Vec<&str> {
        vec![self]
    }
}

/// Each element is a name.
impl<T: AsRef<str>> Topics for [T] {
    fn names(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<T: AsRef<str>> Topics for Vec<T> {
    fn names(&self) -> Vec<&str> {
        self.as_slice().names()
    }
}

impl<T: AsRef<str>, const N: usize> Topics for [T; N] {
    fn names(&self) -> Vec<&str> {
        self.as_slice().names()
    }
}

/// Checked names, sorted, each once. Readers of the same topics have equal sets, so they are one group.
///
/// A set never changes, and is shared: a clone counts one reference and copies no name. The set has 1 to [`MAX_TOPICS`]
/// names; that of an event of a followed log may have more or none. The default is the empty set. It stands for no topic, in a
/// flush and in a subscription that is refused.
pub(crate) type TopicSet = Arc<[Arc<str>]>;

/// Checks names, puts them in order and takes each once. The limit is for different names: a name may be given many times.
///
/// # Errors
///
/// When a name is not valid, or when there are none or too many.
pub(crate) fn check(names: Vec<&str>) -> Result<TopicSet, InvalidName> {
    let mut sorted = Vec::new();
    for name in names {
        check_text("topic name", name)?;
        if let Err(place) = sorted.binary_search(&name) {
            sorted.insert(place, name);
        }
        if sorted.len() > MAX_TOPICS {
            let problem = format!("there are more than {MAX_TOPICS} topics");
            return Err(InvalidName(problem));
        }
    }
    match sorted.is_empty() {
        true => Err(InvalidName("no topic is given".to_string())),
        false => Ok(sorted.into_iter().map(Arc::from).collect()),
    }
}

/// Returns those of these names that can be a topic's, in order and each once, with no limit to their number: for an event that
/// others have published.
pub(crate) fn valid(mut names: Vec<&str>) -> TopicSet {
    names.retain(|name| check_text("topic name", name).is_ok());
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(Arc::from).collect()
}

/// Checks a topic name or an event's own id; `what` names it in the error.
///
/// # Errors
///
/// When the text is empty, too long, or has a control character. The error says which of these.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), InvalidName> {
    let len = text.len();
    let problem = if len == 0 {
        format!("{what} cannot be empty")
    } else if len > MAX_NAME_BYTES {
        format!("{what} of {len} bytes is longer than {MAX_NAME_BYTES}")
    } else if let Some(found) = text.chars().find(|c| c.is_control()) {
        format!("{what} {text:?} cannot contain {found:?}")
    } else {
        return Ok(());
    };
    Err(InvalidName(problem))
}

/// The error for topics or for an event's own id that the hub refuses: a name or an id is empty, longer than 256 bytes, or has
/// a control character; there are no topics, or more than 64; an id has a blank at an end, or a meaning to the hub, such as
/// `earliest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName(pub(super) String);

/// Displays the whole sentence, such as `topic name cannot be empty`.
impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_sorted_and_taken_once() {
        #[track_caller]
        fn check_set(topics: &[&str], expected: Result<&[&str], &str>) {
            let found = check(topics.to_vec());
            let found = found
                .as_ref()
                .map(|set| set.iter().map(|name| &**name).collect::<Vec<_>>());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (found, expected) => {
                    assert_eq!(found.unwrap_err().to_string(), expected.unwrap_err());
                }
            }
        }
        let long = "x".repeat(257);
        let many = [""; 65].map(|_| crate::random::random_u64().to_string());
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check_set(&["b", "a", "b"], Ok(&["a", "b"])); // An event is delivered once to a reader of both.
        check_set(&["é/ü"], Ok(&["é/ü"])); // Any text.
        check_set(&[&long[..256]], Ok(&[&long[..256]])); // The maximum length.
        check_set(&[&long], Err("topic name of 257 bytes is longer than 256")); // And one more.
        check_set(&[], Err("no topic is given")); // Nobody would get it.
        check_set(&[""], Err("topic name cannot be empty")); // A missing parameter.
        check_set(&["a\nb"], Err(r#"topic name "a\nb" cannot contain '\n'"#)); // Names stand in files and logs.
        check_set(&many, Err("there are more than 64 topics")); // Merging is linear in their number.
    }

    #[test]
    fn a_name_comes_as_any_kind_of_string() {
        let name = String::from("a");
        assert_eq!(name.names(), ["a"]);
        assert_eq!([&*name, "b"].names(), ["a", "b"]);
        assert_eq!(vec![name].names(), ["a"]);
    }
}
