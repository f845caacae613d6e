//! The results as a table, and as `RESULTS.md` with its pictures.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use crate::{
    figures::{Better, Bound, Figure, GOALS, Goal, Mark, figures},
    machine::Machine,
    pictures,
    rows::{Measured, ROWS, Row},
    servers::{self, Role, SERVERS, Server},
};

/// What was measured: for each figure and server, a value a round.
#[derive(Debug, Default)]
pub struct Results {
    values: BTreeMap<(String, &'static str), Vec<f64>>,
    failures: Vec<String>,
}

impl Results {
    pub fn add(&mut self, server: &Server, measured: Measured) {
        for (figure, value) in measured {
            self.values
                .entry((figure, server.name))
                .or_default()
                .push(value);
        }
    }

    pub fn fail(&mut self, row: &Row, server: &Server, error: &str) {
        // A compiler's further lines name this machine's folders.
        let error = error.lines().next().unwrap_or_default();
        self.failures
            .push(format!("{}, {}: {error}", row.name, server.name));
    }

    fn values(&self, figure: &str, server: &'static str) -> Option<&[f64]> {
        self.values
            .get(&(figure.to_owned(), server))
            .map(Vec::as_slice)
    }

    pub fn median(&self, figure: &str, server: &'static str) -> Option<f64> {
        let mut values = self.values(figure, server)?.to_owned();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            Some(values[middle])
        } else {
            Some((values[middle - 1] + values[middle]) / 2.0)
        }
    }

    /// Returns the best of the peers in this figure that lost nothing.
    fn best_peer(&self, figure: &Figure) -> Option<(&'static str, f64)> {
        let peers = SERVERS.iter().filter(|server| server.role == Role::Peer);
        let lost_nothing = |server: &&Server| match &figure.lost {
            Some(lost) => self.median(lost, server.name) == Some(0.0),
            None => true,
        };
        let values = peers
            .filter(lost_nothing)
            .filter_map(|server| Some((server.name, self.median(&figure.key, server.name)?)));
        match figure.better {
            Better::Less => values.min_by(|one, other| one.1.total_cmp(&other.1)),
            Better::More => values.max_by(|one, other| one.1.total_cmp(&other.1)),
            Better::Neither => None,
        }
    }

    fn judge(&self, goal: &Goal, figures: &[Figure]) -> Option<Judgement> {
        let figure = figures.iter().find(|figure| figure.key == goal.figure)?;
        let own = self.median(goal.figure, goal.own)?;
        let (mark, value) = match goal.mark {
            Mark::BestPeer => {
                let (name, value) = self.best_peer(figure)?;
                (format!("{name} {}", number(value)), own / value)
            }
            Mark::Server(name) => {
                let value = self.median(goal.figure, name)?;
                (format!("{name} {}", number(value)), own / value)
            }
            Mark::Absolute => ("-".to_owned(), own),
        };
        let unit = if matches!(goal.mark, Mark::Absolute) {
            figure.unit
        } else {
            "x"
        };
        let bound = match goal.bound {
            Bound::AtMost(bound) => format!("at most {bound} {unit}"),
            Bound::AtLeast(bound) => format!("at least {bound} {unit}"),
        };
        let title = if goal.own == "tiny-sse" {
            figure.title.clone()
        } else {
            format!("{}, {}", figure.title, goal.own)
        };
        let own = format!("{} {}", number(own), figure.unit);
        Some(Judgement {
            title,
            own,
            mark,
            ratio: value,
            bound,
            met: goal.bound.met(value),
        })
    }
}

/// A goal, and how far it was reached.
struct Judgement {
    title: String,
    own: String,
    mark: String,
    ratio: f64,
    bound: String,
    met: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    Terminal,
    Markdown,
}

/// Lays out goals and figures.
pub fn table(results: &Results, servers: &[&Server], style: Style) -> String {
    let figures = figures();
    let mut goals = vec![words([
        "goal", "tiny-sse", "against", "ratio", "asked", "met",
    ])];
    for judgement in GOALS
        .iter()
        .filter_map(|goal| results.judge(goal, &figures))
    {
        let met = if judgement.met { "yes" } else { "NO" };
        let ratio = number(judgement.ratio);
        goals.push(words([
            &judgement.title,
            &judgement.own,
            &judgement.mark,
            &ratio,
            &judgement.bound,
            met,
        ]));
    }

    let mut all = vec![words(["figure", ""])];
    all[0].extend(servers.iter().map(|server| server.name.to_owned()));
    for figure in &figures {
        let cells: Vec<String> = servers
            .iter()
            .map(|server| cell(results, figure, server, style))
            .collect();
        if cells.iter().any(|cell| cell != "-") {
            let mut line = words([&figure.title, figure.unit]);
            line.extend(cells);
            all.push(line);
        }
    }

    let mut text = String::new();
    if goals.len() > 1 {
        text += &lay_out(&goals, style);
        text.push('\n');
    }
    text += &lay_out(&all, style);
    for failure in &results.failures {
        let _ = write!(text, "\n- failed: {failure}");
    }
    text
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// The median, the best peer's in bold, and from least to most.
fn cell(results: &Results, figure: &Figure, server: &Server, style: Style) -> String {
    let Some(median) = results.median(&figure.key, server.name) else {
        return "-".to_owned();
    };
    let values = results.values(&figure.key, server.name).unwrap_or_default();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let is_best = results
        .best_peer(figure)
        .is_some_and(|(name, _)| name == server.name);
    match style {
        Style::Terminal => format!("{}{}", number(median), if is_best { "*" } else { "" }),
        Style::Markdown => {
            let bold = if is_best { "**" } else { "" };
            let spread = if least == most {
                String::new()
            } else {
                format!(" <sub>{}–{}</sub>", number(least), number(most))
            };
            format!("{bold}{}{bold}{spread}", number(median))
        }
    }
}

fn lay_out(lines: &[Vec<String>], style: Style) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        match style {
            Style::Markdown => {
                let _ = writeln!(text, "| {} |", line.join(" | "));
                if index == 0 {
                    let _ = writeln!(text, "| --- |{}", " --: |".repeat(columns - 1));
                }
            }
            Style::Terminal => {
                let cells = line
                    .iter()
                    .zip(&widths)
                    .enumerate()
                    .map(|(column, (cell, &width))| {
                        if column == 0 {
                            format!("{cell:<width$}")
                        } else {
                            format!("{cell:>width$}")
                        }
                    });
                let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  "));
            }
        }
    }
    text
}

/// Writes a number with three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        _ if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Writes `RESULTS.md` and its pictures.
pub fn write(
    results: &Results,
    servers: &[&Server],
    machine: &Machine,
    arguments: &str,
    rounds: usize,
) -> Result<(), String> {
    let package = servers::package();
    let pictures = pictures::draw(results, servers, &package.join("pictures"))?;
    let command = format!("cargo run --release -- {arguments}");
    let oftener: String = ROWS
        .iter()
        .filter(|row| row.times > 1)
        .map(|row| format!(", of {} {}", row.name, rounds * row.times))
        .collect();
    let mut text = format!(
        "# Results\n\n\
         Written by the comparison itself: `{}` in `benches/`. Rounds: {rounds}{oftener}; a value is their median, from \
         least to most beside it. What each figure means and how it is measured is in [README.md](README.md).\n\n\
         - machine: {}, {} cores, {:.0} GiB, Linux {}\n- compiler: {}\n- versions: {}\n\n\
         A ratio is tiny-sse's figure divided by that of the best of axum, hyper, actix, hyperlane and tiny_http in \
         that line, in bold below; `floor` is a bare write loop, which does nothing but what the kernel must.\n\n",
        command.trim_end_matches(" -- "),
        machine.processor,
        machine.cores,
        machine.memory / 1024.0 / 1024.0 / 1024.0,
        machine.kernel,
        machine.rustc,
        versions(&package.join("Cargo.lock")),
    );
    text += &table(results, servers, Style::Markdown);
    text += "\n\n## Pictures\n";
    for (title, file) in pictures {
        let _ = write!(text, "\n![{title}](pictures/{file})\n");
    }
    fs::write(package.join("RESULTS.md"), text).map_err(|error| error.to_string())
}

/// Returns the names and versions of what is compared, from the lock file.
fn versions(lock: &Path) -> String {
    let compared = [
        "tiny-sse",
        "axum",
        "hyper",
        "actix-web",
        "actix-web-lab",
        "hyperlane",
        "tiny_http",
        "tokio",
    ];
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let packages = lock.split("[[package]]").filter_map(|package| {
        let value = |key: &str| {
            package
                .lines()
                .find_map(|line| Some(line.strip_prefix(key)?.trim_matches([' ', '=', '"'])))
        };
        Some((value("name")?, value("version")?))
    });
    let versions: Vec<String> = packages
        .filter(|(name, _)| compared.contains(name))
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    versions.join(", ")
}
