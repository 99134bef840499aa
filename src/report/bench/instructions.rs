//! The processor's own count of instructions, or why there is none.

use crate::{
    bench::{BenchReport, figures::times_of},
    report::escape::escape,
};

use super::{cells, comparison::place};

/// Why nothing was counted, in the words of every report.
pub(in crate::report) fn not_available(why: &str) -> String {
    format!("hardware instructions: not available ({})", escape(why))
}

/// Places by compilers, the compilers' names on top: medians, each with its 95 % interval. Empty where
/// nothing was counted.
pub(in crate::report) fn rows(report: &BenchReport) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (column, measured) in report.measured.iter().enumerate() {
        head.extend([measured.compiler.clone(), "95 % interval".to_owned()]);
        let counted = times_of(measured).into_iter().filter_map(|(of, pair)| {
            let counted = pair.instructions.as_ref()?.summary?;
            Some((place(&of), counted))
        });
        for (label, counted) in counted {
            let known = rows.iter().position(|row| row[0] == label);
            let row = known.unwrap_or_else(|| {
                rows.push(vec![label]);
                rows.len() - 1
            });
            // What another compiler alone has a count of stays empty.
            rows[row].resize(1 + 2 * column, String::new());
            let interval = [counted.low, counted.high].map(cells::thousands);
            rows[row].extend([cells::thousands(counted.median), interval.join(" … ")]);
        }
    }
    if !rows.is_empty() {
        rows.insert(0, head);
    }
    rows
}

/// The count as a table, or the reason for which there is none.
pub(super) fn table(report: &BenchReport) -> String {
    if let Some(why) = &report.instructions_not_counted {
        return format!("\n{}\n", not_available(why));
    }
    let rows = rows(report);
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\nhardware instructions in user mode, medians; they are not gated\n{}",
        cells::table(&rows)
    )
}
