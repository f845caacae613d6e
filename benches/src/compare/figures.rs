//! The figures that rows return: what each is called, and what tiny-sse is to reach.

use crate::rows::{GROWTH_PUBLISHERS, GROWTH_STREAMS, GROWTH_TOPICS};

#[derive(Clone, Debug)]
pub struct Figure {
    pub key: String,
    pub title: String,
    pub unit: &'static str,
    pub better: Better,
    /// The figure that counts lost events: a server that lost some does not set the mark.
    pub lost: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Better {
    Less,
    More,
    /// Shown, and not compared.
    Neither,
}

/// What one figure of tiny-sse is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub figure: &'static str,
    /// Which form of tiny-sse.
    pub own: &'static str,
    pub mark: Mark,
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub enum Mark {
    BestPeer,
    Server(&'static str),
    /// The bound itself is the value.
    Absolute,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub fn met(self, value: f64) -> bool {
        match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        }
    }
}

const fn goal(figure: &'static str, mark: Mark, bound: Bound) -> Goal {
    Goal {
        figure,
        own: "tiny-sse",
        mark,
        bound,
    }
}

impl Goal {
    /// Asked of a thread and a channel for each stream, in place of the hub.
    const fn of_threads(self) -> Goal {
        Goal {
            own: "tiny-sse-threads",
            ..self
        }
    }
}

pub const GOALS: &[Goal] = &[
    goal("steady.cpu", Mark::BestPeer, Bound::AtMost(0.65)),
    goal("steady.cpu", Mark::Server("floor"), Bound::AtMost(1.1)),
    goal("steady.p99", Mark::BestPeer, Bound::AtMost(0.95)),
    goal("last.1000", Mark::BestPeer, Bound::AtMost(0.9)),
    goal("last.5000", Mark::BestPeer, Bound::AtMost(0.8)),
    goal("flood.1000", Mark::BestPeer, Bound::AtLeast(2.5)),
    goal("stalled.p99", Mark::BestPeer, Bound::AtMost(0.8)),
    goal("resident.total.10000", Mark::BestPeer, Bound::AtMost(0.12)),
    goal("resident.stream.1000", Mark::BestPeer, Bound::AtMost(1.0)).of_threads(),
    goal("all.stream.10000", Mark::BestPeer, Bound::AtMost(0.6)),
    goal("churn.rate", Mark::Server("axum"), Bound::AtLeast(0.9)),
    goal("plain.rate", Mark::Server("axum"), Bound::AtLeast(1.0)),
    goal("footprint.small", Mark::Absolute, Bound::AtMost(420.0)),
    goal("footprint.default", Mark::Absolute, Bound::AtMost(560.0)),
    goal("footprint.small", Mark::Absolute, Bound::AtMost(420.0)).of_threads(),
    goal("footprint.default", Mark::Absolute, Bound::AtMost(560.0)).of_threads(),
    goal("footprint.crates", Mark::Absolute, Bound::AtMost(1.0)),
    goal("footprint.build", Mark::Absolute, Bound::AtMost(5.0)),
    goal("footprint.build", Mark::Absolute, Bound::AtMost(5.0)).of_threads(),
];

/// Returns all figures, in the order of the table.
pub fn figures() -> Vec<Figure> {
    let mut figures = Figures(Vec::new());
    for streams in [1000, 10_000] {
        let many = thousands(streams);
        figures.less(
            format!("resident.total.{streams}"),
            format!("resident memory, {many} idle streams"),
            "MiB",
        );
        figures.less(
            format!("resident.stream.{streams}"),
            format!("resident for each of {many} idle streams"),
            "KiB",
        );
        figures.less(
            format!("all.stream.{streams}"),
            format!("all memory for each of {many}, kernel and client socket included"),
            "KiB",
        );
        figures.neither(
            format!("threads.{streams}"),
            format!("threads with {many} idle streams"),
            "",
        );
    }
    figures.less(
        "steady.cpu",
        "processor time a delivery, 1,000 streams x 100/s",
        "µs",
    );
    figures.less("steady.p50", "latency p50, same", "ms");
    figures.less("steady.p99", "latency p99, 1,000 streams x 100/s", "ms");
    figures.neither("steady.lost", "lost, same", "");
    figures.less("last.1000", "time to the last of 1,000", "ms");
    figures.less("last.5000", "time to the last of 5,000", "ms");
    for (streams, title) in [
        (100, "flood, 100 streams x 20,000 events"),
        (1000, "flood, 1,000 streams x 2,000 events"),
    ] {
        figures.more(format!("flood.{streams}"), title, "M/s");
        figures.without_loss(format!("flood.lost.{streams}"));
        figures.neither(format!("flood.lost.{streams}"), "lost, same", "");
    }
    figures.less(
        "stalled.p50",
        "p50 of the healthy, 500 x 100/s x 4 KiB, 25 never read",
        "ms",
    );
    figures.less(
        "stalled.p99",
        "p99 of the healthy, 500 x 100/s x 4 KiB, 25 never read",
        "ms",
    );
    figures.neither("stalled.lost", "lost by the healthy, same", "");
    figures.less(
        "slow.p50",
        "p50 of the healthy, 500 x 100/s x 2 KiB, 25 at 100 kB/s",
        "ms",
    );
    figures.less("slow.p99", "p99, same", "ms");
    figures.neither("slow.lost", "lost by the healthy, same", "");
    figures.neither(
        "slow.received",
        "events each slow one had by the end, of 600",
        "",
    );
    figures.more(
        "churn.rate",
        "connect, first event, close; 64 at once",
        "k/s",
    );
    figures.less("churn.p99", "p99, same", "ms");
    figures.neither("churn.failed", "failed, same", "");
    figures.less(
        "burst.p50",
        "2,000 connects at once: half have their first event",
        "ms",
    );
    figures.less("burst.last", "2,000 connects at once: all have it", "ms");
    figures.neither("burst.failed", "failed, same", "");
    figures.less(
        "backlog.p50",
        "2,000 connects at once, a backlog of 4,096: half have it",
        "ms",
    );
    figures.less("backlog.last", "same: all have it", "ms");
    figures.neither("backlog.failed", "failed, same", "");
    figures.more("plain.rate", "GET /plain, 64 connections kept alive", "k/s");
    figures.less("plain.p99", "p99, same", "ms");
    figures.less("plain.cpu", "processor time a request, same", "µs");
    figures.less(
        "polling.cpu",
        "processor time a poll, 1,000 clients x 10/s",
        "µs",
    );
    figures.less("polling.p99", "p99, same", "ms");
    figures.neither("polling.rate", "answers, same", "k/s");
    for streams in GROWTH_STREAMS {
        let many = thousands(streams);
        figures.less(
            format!("growth.cpu.{streams}"),
            format!("processor time a delivery, {many} streams x 10/s"),
            "µs",
        );
        figures.less(format!("growth.p99.{streams}"), "latency p99, same", "ms");
        figures.less(
            format!("growth.resident.{streams}"),
            "resident memory, same",
            "MiB",
        );
    }
    for topics in GROWTH_TOPICS {
        figures.less(
            format!("topics.cpu.{topics}"),
            format!(
                "processor time a delivery, 1,000 streams, topics: {}",
                thousands(topics)
            ),
            "µs",
        );
        figures.more(format!("topics.rate.{topics}"), "flood, same", "M/s");
        figures.neither(format!("topics.lost.{topics}"), "lost, same", "");
    }
    for publishers in GROWTH_PUBLISHERS {
        figures.more(
            format!("publishers.rate.{publishers}"),
            format!("flood, 100 streams, publishing threads: {publishers}"),
            "M/s",
        );
        figures.neither(format!("publishers.lost.{publishers}"), "lost, same", "");
    }
    figures.less("footprint.crates", "crates it brings", "");
    figures.less(
        "footprint.build",
        "clean release build of the smallest server",
        "s",
    );
    figures.less(
        "footprint.default",
        "that server, stripped, default release",
        "KiB",
    );
    figures.less(
        "footprint.small",
        "stripped, opt-level z, LTO, panic abort",
        "KiB",
    );
    figures.0
}

/// Writes a count below a million as one reads it.
fn thousands(count: usize) -> String {
    match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

struct Figures(Vec<Figure>);

impl Figures {
    fn less(&mut self, key: impl Into<String>, title: impl Into<String>, unit: &'static str) {
        self.add(key.into(), title.into(), unit, Better::Less);
    }

    fn more(&mut self, key: impl Into<String>, title: impl Into<String>, unit: &'static str) {
        self.add(key.into(), title.into(), unit, Better::More);
    }

    fn neither(&mut self, key: impl Into<String>, title: impl Into<String>, unit: &'static str) {
        self.add(key.into(), title.into(), unit, Better::Neither);
    }

    fn add(&mut self, key: String, title: String, unit: &'static str, better: Better) {
        self.0.push(Figure {
            key,
            title,
            unit,
            better,
            lost: None,
        });
    }

    /// A server that lost events, by that figure, does not set the mark of the figure added last.
    fn without_loss(&mut self, lost: String) {
        if let Some(figure) = self.0.last_mut() {
            figure.lost = Some(lost);
        }
    }
}
