//! What `filtergate bench` prints.

use serde::Serialize;

use crate::{
    bench::{
        BenchReport,
        budget::{BudgetUnit, Spent},
        gate::{Change, Comparison, Difference, Place, Unit},
        report::{Measured, TimesPair},
        scale::Axis,
    },
    host::Counters,
};

use super::{
    escape::{escape, quote},
    human::root_label,
    json::{self, Layout},
    units,
};

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
        out.push_str(&counters_table(measured, callbacks));
        out.push_str(&times_table(measured, callbacks));
        out.push_str(&workers_line(measured));
    }
    out.push_str(&side_by_side(&report.measured));
    out.push_str(&scale_tables(&report.scale));
    out.push_str(&envoy_table(report));
    for comparison in &bench.comparisons {
        out.push_str(&comparison_table(comparison));
    }
    out.push_str(&budgets_table(&bench.budgets));
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

/// Rows of cells as columns: the first to the left, the others to the right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            match column {
                0 => line.push_str(&format!("{cell}{space}")),
                _ => line.push_str(&format!("  {space}{cell}")),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn words(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn counters_table(measured: &Measured, callbacks: bool) -> String {
    let mut rows = vec![words(&[
        "",
        "fuel",
        "host calls",
        "to host",
        "to guest",
        "allocations",
        "allocated",
        "memory",
    ])];
    let several = measured.roots.len() > 1;
    let memory = |stage: &str, root: usize| {
        let stages = measured.roots.get(root).map_or(&[][..], |root| &root.memory);
        let pages = stages.iter().find(|memory| memory.stage == stage).map(|memory| memory.pages);
        pages.map_or(String::new(), |pages| units::count(pages as usize, "page"))
    };
    let of_root = |root_id: Option<&str>| {
        let all = measured.roots.iter();
        all.into_iter().position(|root| Some(root.root_id.as_str()) == root_id).unwrap_or(0)
    };
    let phases = &measured.load.phases;
    for phase in phases.iter().filter(|phase| phase.counters.fuel.is_some()) {
        let name = phase.name.as_str();
        let root_id = phase.root_id.as_deref();
        let label = match root_id {
            Some(root_id) if several => format!("{name} of {}", root_label(root_id)),
            _ => name.to_owned(),
        };
        rows.push(counter_row(label, &phase.counters, memory(name, of_root(root_id))));
    }
    for (index, root) in measured.roots.iter().enumerate() {
        for exchange in &root.exchanges {
            let mut label = format!("exchange {}", quote(&exchange.name));
            if several {
                label.push_str(&format!(" of {}", root_label(&root.root_id)));
            }
            if let Some(why) = &exchange.failed {
                rows.push(vec![format!("{label}: not measured, {}", escape(why))]);
                continue;
            }
            rows.push(counter_row(label, &exchange.counters, memory("exchanges", index)));
            for row in exchange.callbacks.iter().filter(|_| callbacks) {
                let times =
                    if row.calls == 1 { String::new() } else { format!(" ×{}", row.calls) };
                let label = format!("  {}{times}", row.name);
                rows.push(counter_row(label, &row.counters, String::new()));
            }
        }
    }
    let unsteady: Vec<_> = measured
        .roots
        .iter()
        .flat_map(|root| &root.exchanges)
        .filter(|exchange| !exchange.steady)
        .map(|exchange| quote(&exchange.name))
        .collect();
    let mut out = format!(
        "\nexact counters, by {}, which made {} of machine code of it\n{}",
        measured.compiler,
        units::size(measured.compiled_bytes),
        table(&rows)
    );
    if !unsteady.is_empty() {
        out.push_str(&format!(
            "these exchanges cost something else each time (the median is shown): {}\n",
            unsteady.join(", ")
        ));
    }
    out
}

fn counter_row(label: String, counters: &Counters, memory: String) -> Vec<String> {
    let Counters { fuel, host_calls, bytes_to_host, bytes_to_guest, allocations, allocated_bytes } =
        *counters;
    vec![
        label,
        fuel.map_or("-".to_owned(), thousands),
        thousands(host_calls),
        units::size(bytes_to_host),
        units::size(bytes_to_guest),
        thousands(allocations),
        units::size(allocated_bytes),
        memory,
    ]
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn times_table(measured: &Measured, callbacks: bool) -> String {
    let load = &measured.load;
    let mut rows = vec![words(&[
        "",
        "wall median",
        "95 % interval",
        "min",
        "CPU median",
        "95 % interval",
        "min",
        "outliers",
    ])];
    let several = measured.roots.len() > 1;
    for phase in &load.phases {
        let name = phase.name.as_str();
        let label = match &phase.root_id {
            Some(root_id) if several => format!("{name} of {}", root_label(root_id)),
            _ => name.to_owned(),
        };
        rows.push(time_row(label, &phase.times));
    }
    rows.push(time_row("total".to_owned(), &load.total));
    for root in &measured.roots {
        for exchange in root.exchanges.iter().filter(|exchange| exchange.failed.is_none()) {
            let mut label = format!("exchange {}", quote(&exchange.name));
            if several {
                label.push_str(&format!(" of {}", root_label(&root.root_id)));
            }
            rows.push(time_row(label, &exchange.times));
            for row in exchange.callbacks.iter().filter(|_| callbacks) {
                let mut cells = vec![format!("  {}", row.name), units::time(row.wall_ns)];
                cells.extend([String::new(), String::new(), units::time(row.cpu_ns)]);
                rows.push(cells);
            }
        }
    }
    let mut out = format!(
        "\ntimes of {} after {} of warm-up, compiled with {}\n{}",
        units::count(load.runs, "cold load"),
        load.warmup,
        measured.compiler,
        table(&rows)
    );
    if load.fetched_once {
        out.push_str(
            "fetch and verify were measured once, over the network, and are not in the total\n",
        );
    }
    out
}

fn time_row(label: String, times: &TimesPair) -> Vec<String> {
    let mut cells = vec![label];
    let (Some(wall), Some(cpu)) = (times.wall_ns.summary, times.cpu_ns.summary) else {
        cells.push("not measured".to_owned());
        return cells;
    };
    for summary in [wall, cpu] {
        cells.push(units::time(summary.median));
        cells.push(format!("{} … {}", units::time(summary.low), units::time(summary.high)));
        cells.push(units::time(summary.min));
    }
    cells.push(format!("{} of {}", cpu.outliers.max(wall.outliers), times.cpu_ns.samples.len()));
    cells
}

fn workers_line(measured: &Measured) -> String {
    let Some(workers) = &measured.workers else { return String::new() };
    let resident = match workers.resident_bytes {
        Some(bytes) => format!("; the process has {} more in RAM", units::size(bytes)),
        None => String::new(),
    };
    format!(
        "\n{} workers: {} of wasm memory in each, {} together{resident}; one starts in {} ({} of CPU)\n",
        workers.count,
        units::size(workers.memory_bytes_each),
        units::size(workers.memory_bytes),
        units::time(workers.start.wall_ns.median()),
        units::time(workers.start.cpu_ns.median()),
    )
}

/// What several compilers make of the same module. Fuel is not among it: it does not mean the same.
fn side_by_side(all: &[Measured]) -> String {
    let [first, _, ..] = all else { return String::new() };
    let mut head = vec![String::new()];
    head.extend(all.iter().map(|measured| measured.compiler.clone()));
    let mut rows = vec![head];
    let mut row = |label: String, value: &dyn Fn(&Measured) -> Option<String>| {
        let mut cells = vec![label];
        cells.extend(all.iter().map(|measured| value(measured).unwrap_or("-".to_owned())));
        rows.push(cells);
    };
    row("machine code".to_owned(), &|measured| Some(units::size(measured.compiled_bytes)));
    for (index, phase) in first.load.phases.iter().enumerate() {
        let name = phase.name.as_str();
        let root_id = phase.root_id.as_deref().filter(|_| first.roots.len() > 1);
        let of = root_id.map_or(String::new(), |id| format!(" of {}", root_label(id)));
        row(format!("{name}{of}, CPU"), &|measured| {
            Some(units::time(measured.load.phases.get(index)?.times.cpu_ns.median()))
        });
    }
    row("total, CPU".to_owned(), &|measured| {
        Some(units::time(measured.load.total.cpu_ns.median()))
    });
    for (root, of_root) in first.roots.iter().enumerate() {
        for (index, exchange) in of_root.exchanges.iter().enumerate() {
            let of = match first.roots.len() {
                1 => String::new(),
                _ => format!(" of {}", root_label(&of_root.root_id)),
            };
            row(format!("exchange {}{of}, CPU", quote(&exchange.name)), &|measured| {
                let exchange = measured.roots.get(root)?.exchanges.get(index)?;
                Some(units::time(exchange.times.cpu_ns.summary?.median))
            });
        }
    }
    format!("\nside by side\n{}", table(&rows))
}

/// How the cost grows, an axis after the other.
fn scale_tables(axes: &[Axis]) -> String {
    let mut out = String::new();
    for axis in axes {
        let mut rows = vec![words(&[&axis.name, &format!("CPU, {}", axis.cost), "fuel", "memory"])];
        for point in &axis.points {
            rows.push(vec![
                if axis.in_bytes { units::size(point.x) } else { thousands(point.x) },
                units::time(point.cpu_ns),
                point.fuel.map_or("-".to_owned(), thousands),
                match point.memory_bytes {
                    0 => "-".to_owned(),
                    bytes => units::size(bytes),
                },
            ]);
        }
        out.push_str(&format!("\n{}", table(&rows)));
        let (factor, unit) = if axis.in_bytes { (1024.0, "KiB") } else { (1.0, "one more") };
        if let Some(each) = axis.cpu_ns_each {
            let each = each * factor;
            let sign = if each < 0.0 { "-" } else { "" };
            out.push_str(&format!("{unit}: {sign}{}", units::time(each.abs().round() as u64)));
            if let Some(fuel) = axis.fuel_each {
                out.push_str(&format!(", {} of fuel", thousands((fuel * factor).max(0.0) as u64)));
            }
            out.push('\n');
        }
        if let Some(remark) = &axis.remark {
            out.push_str(&format!("note: {}\n", escape(remark)));
        }
    }
    out
}

/// The load here beside that in a real Envoy.
fn envoy_table(report: &BenchReport) -> String {
    let Some(envoy) = &report.in_envoy else { return String::new() };
    let mut head = vec!["wall time".to_owned(), format!("Envoy {}", envoy.release)];
    head.extend(report.measured.iter().map(|measured| format!("here, {}", measured.compiler)));
    let mut rows = vec![head];
    for phase in &envoy.phases {
        let mut row = vec![phase.name.as_str().to_owned(), units::time(phase.wall_ns.median())];
        for measured in &report.measured {
            let ours = measured.load.phases.iter().find(|ours| ours.name == phase.name);
            row.push(ours.map_or("-".to_owned(), |ours| units::time(ours.times.wall_ns.median())));
        }
        rows.push(row);
    }
    let mut row = vec!["until it serves".to_owned(), units::time(envoy.ready_ns.median())];
    row.extend(report.measured.iter().map(|m| units::time(m.load.total.wall_ns.median())));
    rows.push(row);
    rows.push(vec!["without the filter".to_owned(), units::time(envoy.without_filter_ns.median())]);
    format!(
        "\n{}medians of {} by Envoy's own log, the first plugin it loads; its compile has linking and instantiation in it\n",
        table(&rows),
        units::count(envoy.runs, "start")
    )
}

/// A place in words.
pub(super) fn place(place: &Place) -> String {
    let mut out = match (&place.what, &place.name) {
        (&"memory", Some(stage)) => format!("memory after {}", escape(stage)),
        (what, Some(name)) => format!("{what} {}", quote(name)),
        (what, None) => (*what).to_owned(),
    };
    if let Some(root_id) = &place.root_id {
        out.push_str(&format!(" of {}", root_label(root_id)));
    }
    out
}

/// A metric in words.
pub(super) fn metric(name: &str) -> &str {
    match name {
        "host_calls" => "host calls",
        "bytes_to_host" => "bytes to host",
        "bytes_to_guest" => "bytes to guest",
        "allocated_bytes" => "bytes allocated",
        "code_bytes" => "code",
        "compiled_bytes" => "machine code",
        "cpu_ns" => "CPU time",
        other => other,
    }
}

pub(super) fn amount(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Count => thousands(value),
        Unit::Bytes => format!("{} B", thousands(value)),
        Unit::Pages => units::count(value as usize, "page"),
        Unit::Ns => units::time(value),
    }
}

/// `+5.0 %`.
fn percent(part: f64) -> String {
    format!("{:+.1} %", part * 100.0)
}

pub(super) fn change(difference: &Difference) -> String {
    difference.change.map_or("from nothing".to_owned(), percent)
}

pub(super) fn label(difference: &Difference) -> String {
    match (difference.place.what, difference.metric) {
        (_, "pages" | "cpu_ns") => place(&difference.place),
        ("module", name) => metric(name).to_owned(),
        (_, name) => format!("{}: {}", place(&difference.place), metric(name)),
    }
}

pub(super) fn word(change: Change) -> String {
    match change {
        Change::Same => "",
        Change::Better => "better",
        Change::Worse => "WORSE",
        Change::NotGated => "not gated",
    }
    .to_owned()
}

fn comparison_table(comparison: &Comparison) -> String {
    let mut rows = vec![words(&["", "before", "now", "change", ""])];
    let (same, differ): (Vec<_>, Vec<_>) =
        comparison.exact.iter().partition(|difference| difference.before == difference.after);
    for difference in differ {
        rows.push(vec![
            label(difference),
            amount(difference.unit, difference.before),
            amount(difference.unit, difference.after),
            change(difference),
            word(difference.verdict),
        ]);
    }
    let mut out = format!("\nagainst {}, under {}\n", quote(&comparison.with), comparison.compiler);
    if rows.len() > 1 {
        out.push_str(&table(&rows));
        out.push_str(&format!(
            "{} are the same\n",
            units::count(same.len(), "other exact counter")
        ));
    } else {
        out.push_str(&format!("all {} are the same\n", units::count(same.len(), "exact counter")));
    }
    if !comparison.times.is_empty() {
        let mut rows =
            vec![words(&["CPU time", "before", "now", "change", "95 % interval", "p", ""])];
        for difference in &comparison.times {
            let interval = difference.interval.map_or(String::new(), |(low, high)| {
                format!("{} … {}", percent(low), percent(high))
            });
            rows.push(vec![
                place(&difference.place),
                amount(difference.unit, difference.before),
                amount(difference.unit, difference.after),
                change(difference),
                interval,
                difference.p.map_or(String::new(), |p| format!("{p:.4}")),
                word(difference.verdict),
            ]);
        }
        out.push('\n');
        out.push_str(&table(&rows));
    }
    if let Some(slower) = comparison.slower_machine
        && (slower - 1.0).abs() > 0.05
    {
        let (factor, word) =
            if slower > 1.0 { (slower, "slower") } else { (1.0 / slower, "faster") };
        out.push_str(&format!(
            "the machine was {factor:.2} times {word} than for the baseline, by a piece of work that is always the same\n"
        ));
    }
    for remark in &comparison.remarks {
        out.push_str(&format!("note: {}\n", escape(remark)));
    }
    out
}

/// An amount of a budget.
pub(super) fn budget_amount(unit: BudgetUnit, value: u64) -> String {
    match unit {
        BudgetUnit::Ns => units::time(value),
        BudgetUnit::Bytes => units::size(value),
        BudgetUnit::Count => thousands(value),
    }
}

fn budgets_table(budgets: &[Spent]) -> String {
    if budgets.is_empty() {
        return String::new();
    }
    let mut rows = vec![words(&["budget", "limit", "spent", "", ""])];
    for spent in budgets {
        let verdict = match (spent.spent, spent.over) {
            (None, _) => "not measured",
            (_, true) => "OVER",
            (_, false) => "",
        };
        rows.push(vec![
            spent.budget.to_owned(),
            budget_amount(spent.unit, spent.limit),
            spent.spent.map_or("-".to_owned(), |value| budget_amount(spent.unit, value)),
            verdict.to_owned(),
            format!("({})", spent.compiler),
        ]);
    }
    format!("\n{}", table(&rows))
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

pub(super) fn reason(difference: &Difference) -> String {
    match difference.metric {
        "cpu_ns" => format!("CPU time of {}", place(&difference.place)),
        _ => label(difference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [words(&["", "one", "two"]), words(&["name", "1", "22222"])];
        assert_eq!(table(&rows), "      one    two\nname    1  22222\n");
    }
}
