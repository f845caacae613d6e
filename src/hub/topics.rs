//! Topic names: what a caller may give, and the checked set that is kept.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Longest topic name in bytes: enough for a path, short enough to be a map's key.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// Most topics of one event or one subscriber.
pub(crate) const MAX_TOPICS: usize = 64;

/// One or several topic names: a string, or an array, slice or vector of strings.
pub trait Topics {
    /// The names, in any order, unchecked.
    fn names(&self) -> Vec<&str>;
}

macro_rules! one_name {
    ($($name:ty),+) => {$(
        impl Topics for $name {
            fn names(&self) -> Vec<&str> {
                vec![self]
            }
        }
    )+};
}

macro_rules! several_names {
    ($($names:ty),+) => {$(
        impl<T: AsRef<str>> Topics for $names {
            fn names(&self) -> Vec<&str> {
                self.iter().map(AsRef::as_ref).collect()
            }
        }
    )+};
}

one_name!(&str, String, &String);
several_names!(&[T], Vec<T>, &Vec<T>);

impl<T: AsRef<str>, const N: usize> Topics for [T; N] {
    fn names(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<T: AsRef<str>, const N: usize> Topics for &[T; N] {
    fn names(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

/// Checked names, sorted, each once.
pub(crate) type TopicSet = Arc<[Arc<str>]>;

/// Checks names and puts them in order.
pub(crate) fn check(mut names: Vec<&str>) -> Result<TopicSet, InvalidTopic> {
    // Few enough that no sorting pays.
    for index in 0..names.len() {
        check_name(names[index])?;
        let (Ok(place) | Err(place)) = names[..index].binary_search(&names[index]);
        names[place..=index].rotate_right(1);
    }
    names.dedup();
    match names.len() {
        0 => Err(InvalidTopic("no topic is given".to_string())),
        1..=MAX_TOPICS => Ok(names.into_iter().map(Arc::from).collect()),
        count => Err(InvalidTopic(format!(
            "{count} topics are more than {MAX_TOPICS}"
        ))),
    }
}

fn check_name(name: &str) -> Result<(), InvalidTopic> {
    let len = name.len();
    let problem = if len == 0 {
        "topic name cannot be empty".to_string()
    } else if len > MAX_NAME_BYTES {
        format!("topic name of {len} bytes is longer than {MAX_NAME_BYTES}")
    } else if let Some(found) = name.chars().find(|c| c.is_control()) {
        format!("topic name {name:?} cannot contain {found:?}")
    } else {
        return Ok(());
    };
    Err(InvalidTopic(problem))
}

/// Why topics were refused: a name is empty, longer than 256 bytes, or has a control character; or there are none, or
/// more than 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTopic(String);

impl fmt::Display for InvalidTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidTopic {}

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
        check_set(&[&long[..256]], Ok(&[&long[..256]])); // As long as may be.
        check_set(&[&long], Err("topic name of 257 bytes is longer than 256")); // And one more.
        check_set(&[], Err("no topic is given")); // Nobody would get it.
        check_set(&[""], Err("topic name cannot be empty")); // A missing parameter.
        check_set(&["a\nb"], Err(r#"topic name "a\nb" cannot contain '\n'"#)); // Names stand in files and logs.
        check_set(&many, Err("65 topics are more than 64")); // Merging is linear in their number.
    }
}
