//! A publisher that never sends an event twice, and records the responses.

use super::reader::Http;
use super::{Random, TOKEN};

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Published, with the event's id.
    Acknowledged(String),
    /// The event must not be in the log.
    NotPublished,
    /// The event may be in the log.
    Unknown,
}

#[derive(Debug)]
pub struct Published {
    pub data: String,
    pub topics: Vec<&'static str>,
    pub outcome: Outcome,
}

/// Publishes one event through a node.
pub fn publish(port: u16, data: String, topics: Vec<&'static str>) -> Published {
    let mut path = format!("/events/{}?", topics[0]);
    for topic in &topics[1..] {
        path += &format!("topic={topic}&");
    }
    let authorization = ("Authorization", format!("Bearer {TOKEN}"));
    let outcome = match Http::send(port, "POST", &path, &[authorization], data.as_bytes()) {
        Ok(response) if response.status == 200 => {
            let text = String::from_utf8(response.body).unwrap();
            Outcome::Acknowledged(text.trim().to_string())
        }
        Ok(response) if response.status == 503 => Outcome::NotPublished,
        Ok(response) if response.status == 504 => Outcome::Unknown,
        Ok(response) => panic!("a publisher got {}", response.status),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Outcome::NotPublished
        }
        Err(_) => Outcome::Unknown,
    };
    Published {
        data,
        topics,
        outcome,
    }
}

/// Returns one to three of the topics.
pub fn some(topics: &[&'static str], random: &mut Random) -> Vec<&'static str> {
    let count = 1 + random.below(3);
    let mut some: Vec<&str> = (0..count).map(|_| *random.pick(topics)).collect();
    some.sort();
    some.dedup();
    some
}
