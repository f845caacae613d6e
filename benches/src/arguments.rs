//! Command lines of `--name value` and `--switch`, and result lines of `name=value`.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// The arguments of a program, by name.
#[derive(Debug)]
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Reads `--name value` pairs; a name followed by another name, or by nothing, is a switch.
    ///
    /// # Errors
    ///
    /// Returns the first argument that is neither.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = arguments.peekable();
        let mut named = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument
                .strip_prefix("--")
                .ok_or_else(|| format!("expected --name, found {argument:?}"))?;
            let value = arguments.next_if(|next| !next.starts_with("--"));
            named.insert(name.to_owned(), value.unwrap_or_default());
        }
        Ok(Arguments(named))
    }

    /// Returns the names that `known` does not list.
    pub fn unknown<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| !known.contains(name))
    }

    pub fn switch(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the value of a name, or `default` where it was not given.
    ///
    /// # Errors
    ///
    /// Returns which value could not be read.
    pub fn value<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        self.text(name).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| format!("--{name} cannot be {text:?}"))
        })
    }
}

/// Named numbers, written and read as one line: how the load generator tells the comparison what it saw.
#[derive(Clone, Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// Returns the number of that name; not a number where the line had none.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }

    pub fn parse(line: &str) -> Figures {
        let pairs = line.split_whitespace().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Figures(pairs.collect())
    }
}

impl Display for Figures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(formatter, "{space}{name}={value}")?;
        }
        Ok(())
    }
}
