//! What `filtergate bench` prints.

use serde::Serialize;

use crate::{
    bench::{Samples, Series, Summary},
    target::Target,
    vm::Compiler,
};

use super::{
    escape::quote,
    human::root_label,
    json::{self, Layout, SCHEMA},
    units,
};

/// What was measured, and how.
#[derive(Debug)]
pub struct LoadTime<'a> {
    /// The reference as it was typed.
    pub reference: &'a str,
    /// The proxy release.
    pub target: &'a Target,
    /// SHA-256 of the module.
    pub sha256: &'a str,
    /// Bytes of the module.
    pub size: u64,
    /// Bytes of its code section.
    pub code_bytes: u64,
    /// The root_id that was loaded.
    pub root_id: &'a str,
    /// The compiler that ran.
    pub compiler: Compiler,
    /// Loads that are not in the samples.
    pub warmup: u32,
    /// Whether fetch and verify were measured once only.
    pub fetched_once: bool,
    /// The times.
    pub samples: &'a Samples,
}

/// The times as a table.
pub fn render_human(load: &LoadTime<'_>) -> String {
    let runs = load.samples.total().wall().map_or(0, |wall| wall.runs);
    let mut out = format!(
        "{}, {}, {} of code, root {}\n{} cold loads after {} of warm-up, compiled with {}\n\n",
        quote(load.reference),
        units::size(load.size),
        units::size(load.code_bytes),
        root_label(load.root_id),
        runs,
        load.warmup,
        load.compiler,
    );
    out.push_str(&row(
        "",
        ["wall median", "MAD", "min", "CPU median", "MAD", "min"].map(String::from),
    ));
    for (phase, series) in load.samples.phases() {
        out.push_str(&series_row(phase.as_str(), series));
    }
    out.push_str(&series_row("total", load.samples.total()));
    let mut remarks = load.samples.warnings();
    if load.fetched_once {
        remarks.push(
            "fetch and verify were measured once, over the network, and are not in the total"
                .to_owned(),
        );
    }
    if !remarks.is_empty() {
        out.push('\n');
    }
    for remark in remarks {
        out.push_str(&format!("warning: {remark}\n"));
    }
    out
}

fn series_row(name: &str, series: &Series) -> String {
    let (Some(wall), Some(cpu)) = (series.wall(), series.cpu()) else { return String::new() };
    let cells = [wall.median, wall.mad, wall.min, cpu.median, cpu.mad, cpu.min];
    row(name, cells.map(units::time))
}

fn row(name: &str, cells: [String; 6]) -> String {
    let mut line = format!("{name:<12}");
    for cell in cells {
        line.push_str(&format!("{cell:>12}"));
    }
    line.push('\n');
    line
}

/// The times as JSON.
pub fn render_json(load: &LoadTime<'_>) -> String {
    let phases = load
        .samples
        .phases()
        .filter_map(|(phase, series)| SeriesJson::of(phase.as_str(), series))
        .collect();
    let report = LoadTimeJson {
        schema: SCHEMA,
        reference: load.reference,
        target: load.target.name(),
        envoy: load.target.envoy_name(),
        module: ModuleJson { sha256: load.sha256, size: load.size, code_bytes: load.code_bytes },
        root_id: load.root_id,
        compiler: load.compiler.as_str(),
        warmup: load.warmup,
        phases,
        total: SeriesJson::of("total", load.samples.total()),
        warnings: load.samples.warnings(),
    };
    json::to_string(&report, Layout::Pretty)
}

#[derive(Serialize)]
struct LoadTimeJson<'a> {
    schema: u32,
    reference: &'a str,
    target: &'a str,
    envoy: String,
    module: ModuleJson<'a>,
    root_id: &'a str,
    compiler: &'static str,
    warmup: u32,
    phases: Vec<SeriesJson>,
    total: Option<SeriesJson>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ModuleJson<'a> {
    sha256: &'a str,
    size: u64,
    code_bytes: u64,
}

#[derive(Serialize)]
struct SeriesJson {
    name: &'static str,
    runs: usize,
    wall_ns: SummaryJson,
    cpu_ns: SummaryJson,
}

impl SeriesJson {
    fn of(name: &'static str, series: &Series) -> Option<Self> {
        let (wall, cpu) = (series.wall()?, series.cpu()?);
        Some(Self { name, runs: wall.runs, wall_ns: wall.into(), cpu_ns: cpu.into() })
    }
}

#[derive(Serialize)]
struct SummaryJson {
    median: u64,
    mad: u64,
    min: u64,
}

impl From<Summary> for SummaryJson {
    fn from(summary: Summary) -> Self {
        Self { median: summary.median, mad: summary.mad, min: summary.min }
    }
}
