//! What `filtergate bench` prints.

mod cells;
mod comparison;
mod envoy;
pub(super) mod instructions;
mod measured;
mod scale;

use serde::Serialize;

use crate::bench::{BenchReport, budget::Spent, gate::Comparison};

use super::{
    escape::{escape, quote},
    json::{self, Layout},
    units,
};

pub(super) use cells::thousands;
pub(super) use comparison::{amount, budget_amount, change, label, metric, place, reason, word};
pub(super) use measured::of_root;

/// Everything about one image.
#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    /// What was measured.
    #[serde(flatten)]
    pub report: BenchReport,
    /// How it differs from a baseline.
    pub comparisons: Vec<Comparison>,
    /// What was spent of the budgets.
    pub budgets: Vec<Spent>,
}

impl Bench {
    /// Whether the gate fails.
    pub fn fails(&self) -> bool {
        self.comparisons.iter().any(|comparison| comparison.regressions().next().is_some())
            || self.budgets.iter().any(|spent| spent.over)
    }
}

/// As JSON, without the samples.
pub fn render_json(bench: Bench, layout: Layout) -> String {
    json::to_string(&Bench { report: bench.report.without_samples(), ..bench }, layout)
}

/// As text. `gated` says whether there is a verdict at its end, `callbacks` whether each of them has a row.
pub fn render_human(bench: &Bench, gated: bool, callbacks: bool) -> String {
    let report = &bench.report;
    let module = &report.module;
    let mut out = format!(
        "{}, {}, {} functions with {} of code\n",
        quote(&report.reference),
        units::size(module.size),
        module.functions,
        units::size(module.code_bytes),
    );
    for measured in &report.measured {
        out.push_str(&measured::counters_table(measured, callbacks));
        out.push_str(&measured::times_table(measured, callbacks));
        out.push_str(&measured::workers_line(measured));
    }
    out.push_str(&measured::side_by_side(&report.measured));
    out.push_str(&instructions::table(report));
    out.push_str(&scale::tables(&report.scale));
    out.push_str(&envoy::table(report));
    for comparison in &bench.comparisons {
        out.push_str(&comparison::comparison_table(comparison));
    }
    out.push_str(&comparison::budgets_table(&bench.budgets));
    if !report.warnings.is_empty() {
        out.push('\n');
    }
    for warning in &report.warnings {
        out.push_str(&format!("warning: {}\n", escape(warning)));
    }
    if gated {
        out.push_str(&verdict_line(bench));
    }
    out
}

fn verdict_line(bench: &Bench) -> String {
    let regressions = bench.comparisons.iter().flat_map(Comparison::regressions);
    let mut reasons: Vec<String> =
        regressions.map(|worse| format!("{} {}", reason(worse), change(worse))).collect();
    for spent in bench.budgets.iter().filter(|spent| spent.over) {
        reasons.push(format!("{} over its budget", spent.budget));
    }
    let reference = escape(&bench.report.reference);
    match reasons.as_slice() {
        [] => format!("\nPASS {reference}: nothing is worse\n"),
        [one] => format!("\nFAIL {reference}: {one}\n"),
        [first, rest @ ..] => {
            format!("\nFAIL {reference}: {first}, and {} more\n", rest.len())
        }
    }
}
