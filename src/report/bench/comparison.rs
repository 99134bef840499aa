//! What differs from a baseline, and what was spent of the budgets.

use crate::{
    bench::{
        budget::{BudgetUnit, Spent},
        figures::{Place, Unit},
        gate::{Change, Comparison, Difference},
    },
    report::{
        escape::{escape, quote},
        human::root_label,
        units,
    },
};

use super::cells::{table, thousands, words};

/// A place in words.
pub(in crate::report) fn place(place: &Place) -> String {
    let mut out = match (&place.what, &place.name) {
        (&"memory", Some(stage)) => format!("memory after {}", escape(stage)),
        (&"total", Some(way)) => format!("total {}", escape(way)),
        (what, Some(name)) => format!("{what} {}", quote(name)),
        (what, None) => (*what).to_owned(),
    };
    if let Some(root_id) = &place.root_id {
        out.push_str(&format!(" of {}", root_label(root_id)));
    }
    out
}

/// A metric in words.
pub(in crate::report) fn metric(name: &str) -> &str {
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

pub(in crate::report) fn amount(unit: Unit, value: u64) -> String {
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

pub(in crate::report) fn change(difference: &Difference) -> String {
    difference.change.map_or("from nothing".to_owned(), percent)
}

pub(in crate::report) fn label(difference: &Difference) -> String {
    match (difference.place.what, difference.metric) {
        (_, "pages" | "cpu_ns") => place(&difference.place),
        ("module", name) => metric(name).to_owned(),
        (_, name) => format!("{}: {}", place(&difference.place), metric(name)),
    }
}

pub(in crate::report) fn word(change: Change) -> String {
    match change {
        Change::Same => "",
        Change::Better => "better",
        Change::Worse => "WORSE",
        Change::NotGated => "not gated",
    }
    .to_owned()
}

pub(super) fn comparison_table(comparison: &Comparison) -> String {
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
pub(in crate::report) fn budget_amount(unit: BudgetUnit, value: u64) -> String {
    match unit {
        BudgetUnit::Ns => units::time(value),
        BudgetUnit::Bytes => units::size(value),
        BudgetUnit::Count => thousands(value),
    }
}

pub(super) fn budgets_table(budgets: &[Spent]) -> String {
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

pub(in crate::report) fn reason(difference: &Difference) -> String {
    match difference.metric {
        "cpu_ns" => format!("CPU time of {}", place(&difference.place)),
        _ => label(difference),
    }
}
