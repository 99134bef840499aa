//! What was measured under each compiler: counters, times, workers, and the compilers side by side.

use crate::{
    bench::{
        Phase,
        report::{Load, Measured, Root, TimesPair, Way},
    },
    host::Counters,
    report::{
        escape::{escape, quote},
        human::root_label,
        units,
    },
};

use super::cells::{table, thousands, words};

/// Whose a row is, where several roots were measured.
pub(in crate::report) fn of_root(measured: &Measured, root_id: Option<&str>) -> String {
    let shown = root_id.filter(|_| measured.roots.len() > 1);
    shown.map_or(String::new(), |root_id| format!(" of {}", root_label(root_id)))
}

fn exchange_label(measured: &Measured, root: &Root, name: &str) -> String {
    format!("exchange {}{}", quote(name), of_root(measured, Some(&root.root_id)))
}

pub(super) fn counters_table(measured: &Measured, callbacks: bool) -> String {
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
    let memory = |stage: &str, root: usize| {
        let stages = measured.roots.get(root).map_or(&[][..], |root| &root.memory);
        let pages = stages.iter().find(|memory| memory.stage == stage).map(|memory| memory.pages);
        pages.map_or(String::new(), |pages| units::count(pages as usize, "page"))
    };
    let index_of = |root_id: Option<&str>| {
        let mut all = measured.roots.iter();
        all.position(|root| Some(root.root_id.as_str()) == root_id).unwrap_or(0)
    };
    let phases = &measured.load.phases;
    for phase in phases.iter().filter(|phase| phase.counters.fuel.is_some()) {
        let name = phase.name.as_str();
        let root_id = phase.root_id.as_deref();
        let label = format!("{name}{}", of_root(measured, root_id));
        rows.push(counter_row(label, &phase.counters, memory(name, index_of(root_id))));
    }
    for (index, root) in measured.roots.iter().enumerate() {
        for exchange in &root.exchanges {
            let label = exchange_label(measured, root, &exchange.name);
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

pub(super) fn times_table(measured: &Measured, callbacks: bool) -> String {
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
    for phase in &load.phases {
        let name = phase.name.as_str();
        let label = format!("{name}{}", of_root(measured, phase.root_id.as_deref()));
        rows.push(time_row(label, &phase.times));
    }
    rows.push(time_row("total".to_owned(), &load.total));
    for root in &measured.roots {
        for exchange in root.exchanges.iter().filter(|exchange| exchange.failed.is_none()) {
            let label = exchange_label(measured, root, &exchange.name);
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

pub(super) fn workers_line(measured: &Measured) -> String {
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

/// What each compiler makes of the same module, cold and from the store. Fuel is not among it: it does not
/// mean the same.
pub(super) fn side_by_side(all: &[Measured]) -> String {
    let columns: Vec<(&Measured, Way, &Load)> = all
        .iter()
        .flat_map(|measured| measured.loads().map(move |(way, load)| (measured, way, load)))
        .collect();
    let ([first, ..], [_, _, ..]) = (all, columns.as_slice()) else { return String::new() };
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(|(measured, way, _)| way.of(&measured.compiler)));
    let mut rows = vec![head];
    let mut row = |label: String, value: &dyn Fn(&Measured, Way, &Load) -> Option<String>| {
        let cells = columns.iter().map(|(measured, way, load)| value(measured, *way, load));
        rows.push(
            [label].into_iter().chain(cells.map(|cell| cell.unwrap_or("-".to_owned()))).collect(),
        );
    };
    if all.len() > 1 {
        row("machine code".to_owned(), &|measured, _, _| {
            Some(units::size(measured.compiled_bytes))
        });
    }
    for (name, root_id) in phases(columns.iter().map(|(_, _, load)| *load)) {
        row(format!("{}{}", name.as_str(), of_root(first, root_id)), &|_, _, load| {
            let mut all = load.phases.iter();
            let phase = all.find(|row| row.name == name && row.root_id.as_deref() == root_id)?;
            Some(units::time(phase.times.cpu_ns.median()))
        });
    }
    row("total".to_owned(), &|_, _, load| Some(units::time(load.total.cpu_ns.median())));
    row("total, wall time".to_owned(), &|_, _, load| {
        Some(units::time(load.total.wall_ns.median()))
    });
    // Of one compiler they stand above.
    let exchanges = first.roots.iter().enumerate().filter(|_| all.len() > 1);
    for (root, in_root) in exchanges {
        for (index, exchange) in in_root.exchanges.iter().enumerate() {
            row(exchange_label(first, in_root, &exchange.name), &|measured, way, _| {
                let exchange = measured.roots.get(root)?.exchanges.get(index)?;
                let summary = exchange.times.cpu_ns.summary.filter(|_| way == Way::Cold)?;
                Some(units::time(summary.median))
            });
        }
    }
    format!("\nside by side, medians of CPU time\n{}", table(&rows))
}

/// The phases of all loads with their root_ids, in order.
fn phases<'a>(loads: impl Iterator<Item = &'a Load>) -> Vec<(Phase, Option<&'a str>)> {
    let mut all: Vec<(Phase, Option<&str>)> = Vec::new();
    for load in loads {
        for row in &load.phases {
            let phase = (row.name, row.root_id.as_deref());
            if !all.contains(&phase) {
                // A phase that only some loads have stands before the later ones.
                let later = all.iter().position(|(name, _)| phase.1.is_none() && *name > phase.0);
                all.insert(later.unwrap_or(all.len()), phase);
            }
        }
    }
    all
}
