//! The load here beside that in a real Envoy.

use crate::{bench::BenchReport, report::units};

use super::cells;

/// The load here beside that in a real Envoy.
pub(super) fn table(report: &BenchReport) -> String {
    let Some(envoy) = &report.in_envoy else { return String::new() };
    let mut head = vec!["wall time".to_owned(), format!("Envoy {}", envoy.release)];
    head.extend(
        report.measured.iter().map(|measured| format!("here, {}, cold", measured.compiler)),
    );
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
        cells::table(&rows),
        units::count(envoy.runs, "start")
    )
}
