//! The results as pictures.

use std::{fs, path::Path};

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    report::{Results, number},
    rows::GROWTH_STREAMS,
    servers::{Role, Server},
};

const OWN: RGBColor = RGBColor(0xd9, 0x48, 0x01);
const LINE_COLORS: [RGBColor; 9] = [
    OWN,
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0x17, 0xbe, 0xcf),
    RGBColor(0xbc, 0xbd, 0x22),
    RGBColor(0xe3, 0x77, 0xc2),
];

/// Title, file and figure of each bar chart.
const BARS: &[(&str, &str, &str)] = &[
    (
        "Processor time a delivery, 1,000 streams x 100 events/s (µs)",
        "cpu.svg",
        "steady.cpu",
    ),
    (
        "Latency p99, 1,000 streams x 100 events/s (ms)",
        "latency.svg",
        "steady.p99",
    ),
    ("Time to the last of 5,000 (ms)", "last.svg", "last.5000"),
    (
        "Flood, 1,000 streams x 2,000 events (million deliveries a second)",
        "flood.svg",
        "flood.1000",
    ),
    (
        "p99 of the healthy while 25 of 500 never read (ms)",
        "stalled.svg",
        "stalled.p99",
    ),
    (
        "Resident memory, 10,000 idle streams (MiB)",
        "memory.svg",
        "resident.total.10000",
    ),
    (
        "All memory for each of 10,000 idle streams (KiB)",
        "memory-all.svg",
        "all.stream.10000",
    ),
    (
        "Connect, first event, close (thousand a second)",
        "churn.svg",
        "churn.rate",
    ),
    (
        "Smallest server, stripped, default release (KiB)",
        "size.svg",
        "footprint.default",
    ),
];

/// Title, file and beginning of the figures' names of each chart over the number of streams.
const LINES: &[(&str, &str, &str)] = &[
    (
        "Processor time a delivery by number of streams (µs)",
        "growth-cpu.svg",
        "growth.cpu",
    ),
    (
        "Latency p99 by number of streams, 10 events/s (ms)",
        "growth-latency.svg",
        "growth.p99",
    ),
    (
        "Resident memory by number of streams (MiB)",
        "growth-memory.svg",
        "growth.resident",
    ),
];

/// Draws what was measured into `folder`, and returns the title and file of each picture.
pub fn draw(
    results: &Results,
    servers: &[&Server],
    folder: &Path,
) -> Result<Vec<(&'static str, &'static str)>, String> {
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let mut drawn = Vec::new();
    for &(title, file, figure) in BARS {
        let values: Vec<(&Server, f64)> = servers
            .iter()
            .filter_map(|server| Some((*server, results.median(figure, server.name)?)))
            .collect();
        if !values.is_empty() {
            bars(&folder.join(file), title, &values).map_err(|error| format!("{file}: {error}"))?;
            drawn.push((title, file));
        }
    }
    for &(title, file, figure) in LINES {
        let series: Vec<Series> = servers
            .iter()
            .map(|server| {
                let value =
                    |streams: &usize| results.median(&format!("{figure}.{streams}"), server.name);
                let points = GROWTH_STREAMS
                    .iter()
                    .filter_map(|streams| Some((*streams as f64, value(streams)?)));
                Series {
                    name: server.name,
                    points: points.collect(),
                }
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        if !series.is_empty() {
            lines(&folder.join(file), title, &series)
                .map_err(|error| format!("{file}: {error}"))?;
            drawn.push((title, file));
        }
    }
    Ok(drawn)
}

/// How much wider than its lines a chart is, so that the names of the lines stand beside them.
const LEGEND_ROOM: f64 = 1.3;

struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A horizontal bar for each server, with its value after the bar.
fn bars(path: &Path, title: &str, values: &[(&Server, f64)]) -> Drawn {
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let count = values.len();
    let area = SVGBackend::new(path, (720, 60 + 34 * count as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .y_label_area_size(120)
        .build_cartesian_2d(0.0..most * 1.15, (0..count - 1).into_segmented())?;
    // The first server stands on top.
    let name = |position: &SegmentValue<usize>| match position {
        SegmentValue::CenterOf(row) if *row < count => values[count - 1 - row].0.name.to_owned(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_mesh()
        .disable_x_axis()
        .y_labels(count)
        .y_label_formatter(&name)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (index, (server, value)) in values.iter().enumerate() {
        let row = count - 1 - index;
        let color = match server.role {
            Role::Own => OWN,
            Role::Peer => LINE_COLORS[1],
            Role::Reference => LINE_COLORS[5],
        };
        let corners = [
            (0.0, SegmentValue::Exact(row)),
            (*value, SegmentValue::Exact(row + 1)),
        ];
        let mut bar = Rectangle::new(corners, color.filled());
        bar.set_margin(5, 5, 0, 0);
        chart.draw_series([bar])?;
        let style = ("sans-serif", 14)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(HPos::Left, VPos::Center));
        let label = Text::new(
            format!(" {}", number(*value)),
            (*value, SegmentValue::CenterOf(row)),
            style,
        );
        chart.draw_series([label])?;
    }
    area.present()?;
    Ok(())
}

/// A line for each server over the number of streams.
fn lines(path: &Path, title: &str, all: &[Series]) -> Drawn {
    let points = all.iter().flat_map(|series| &series.points);
    let (right, top) = points.fold((0.0, 0.0), |(right, top), (x, y)| {
        (f64::max(right, *x), f64::max(top, *y))
    });
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..right * LEGEND_ROOM, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("streams")
        .x_label_formatter(&|streams| number(*streams))
        .y_label_formatter(&|value| number(*value))
        .draw()?;
    for (index, series) in all.iter().enumerate() {
        let style = LINE_COLORS[index % LINE_COLORS.len()].stroke_width(2);
        let line = LineSeries::new(series.points.iter().copied(), style).point_size(3);
        chart
            .draw_series(line)?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}
