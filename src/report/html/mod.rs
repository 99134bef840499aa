//! A bench as one page that needs nothing else: no script, no font, no picture from elsewhere.

mod svg;

use crate::{
    bench::{
        BenchReport, Phase,
        figures::{exact, times_of},
        gate::{Change, Comparison},
        report::{Load, Measured, Times},
    },
    report::{bench as words, escape::escape, units},
};

use self::svg::{Bar, Dots};

use super::bench::Bench;

const STYLE: &str = include_str!("style.css");

/// Text for HTML. Control characters and the like are made visible first.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in escape(raw).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page of several images, with what was saved before: the oldest first.
pub fn render(benches: &[Bench], history: &[BenchReport]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>filtergate bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    for bench in benches {
        image(&mut out, bench, history);
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn image(out: &mut String, bench: &Bench, history: &[BenchReport]) {
    let report = &bench.report;
    let module = &report.module;
    let machine = &report.fingerprint.machine;
    out.push_str(&format!(
        "<h1>{}</h1>\n<p class=\"dim\">{}, {} functions with {} of code, sha256 {}; {} of {}, {}, {}, filtergate {}</p>\n",
        text(&report.reference),
        units::size(module.size),
        words::thousands(module.functions),
        units::size(module.code_bytes),
        text(module.sha256.get(..12).unwrap_or_default()),
        machine.cores,
        text(machine.cpu.as_deref().unwrap_or("a processor")),
        text(&report.fingerprint.engine),
        text(&report.target),
        text(&report.fingerprint.filtergate),
    ));
    verdict(out, bench);
    for warning in &report.warnings {
        out.push_str(&format!("<p class=\"warning\">{}</p>\n", text(warning)));
    }
    load(out, report, history);
    instructions(out, report);
    exchanges(out, report);
    memory(out, report);
    distributions(out, report);
    differences(out, bench);
    progress(out, report, history);
    for measured in &report.measured {
        counters(out, report, measured);
    }
}

fn verdict(out: &mut String, bench: &Bench) {
    let regressions: Vec<_> = bench.comparisons.iter().flat_map(Comparison::regressions).collect();
    let over: Vec<_> = bench.budgets.iter().filter(|spent| spent.over).collect();
    if bench.comparisons.is_empty() && bench.budgets.is_empty() {
        return;
    }
    if regressions.is_empty() && over.is_empty() {
        out.push_str("<p class=\"good\">Nothing is worse.</p>\n");
        return;
    }
    for worse in regressions {
        let line = format!("{}: {}", words::label(worse), words::change(worse));
        out.push_str(&format!("<p class=\"bad\">WORSE {}</p>\n", text(&line)));
    }
    for spent in over {
        let line = format!(
            "{}: {} of {}",
            spent.budget,
            spent.spent.map_or("-".to_owned(), |value| words::budget_amount(spent.unit, value)),
            words::budget_amount(spent.unit, spent.limit)
        );
        out.push_str(&format!("<p class=\"bad\">OVER BUDGET {}</p>\n", text(&line)));
    }
}

/// Nanoseconds.
fn ns(value: f64) -> String {
    units::time(value.max(0.0).round() as u64)
}

/// The phases of the first root as parts of a bar.
fn parts(measured: &Measured, load: &Load) -> Vec<(String, usize, f64)> {
    let first = measured.roots.first().map(|root| root.root_id.as_str());
    let phases = load.phases.iter().filter(|phase| {
        let of_first = phase.root_id.is_none() || phase.root_id.as_deref() == first;
        let counted = !(load.fetched_once && matches!(phase.name, Phase::Fetch | Phase::Verify));
        of_first && counted
    });
    phases
        .map(|phase| {
            let name = phase.name.as_str().to_owned();
            (name, phase.name as usize, phase.times.cpu_ns.median() as f64)
        })
        .collect()
}

fn load(out: &mut String, report: &BenchReport, history: &[BenchReport]) {
    out.push_str(
        "<h2>Load, by phase</h2>\n<p class=\"dim\">Medians of CPU time for the first root; cold, and from a store that has the module compiled.</p>\n",
    );
    let mut bars = Vec::new();
    let mut push = |measured: &Measured, when: &str| {
        for (way, load) in measured.loads() {
            let parts = parts(measured, load);
            let total = parts.iter().map(|(_, _, length)| length).sum();
            let label = way.of(&measured.compiler) + when;
            bars.push(Bar { label, parts, total: ns(total) });
        }
    };
    for older in history.iter().rev().take(1) {
        older.measured.iter().for_each(|measured| push(measured, ", before"));
    }
    report.measured.iter().for_each(|measured| push(measured, ""));
    if let Some(envoy) = &report.in_envoy {
        let parts: Vec<_> = envoy
            .phases
            .iter()
            .map(|phase| {
                let name = format!("{} in Envoy (wall)", phase.name.as_str());
                (name, phase.name as usize, phase.wall_ns.median() as f64)
            })
            .collect();
        let total = parts.iter().map(|(_, _, length)| length).sum();
        bars.push(Bar {
            label: format!("Envoy {} (wall)", envoy.release),
            parts,
            total: ns(total),
        });
    }
    out.push_str(&svg::bars("CPU time of the phases of a load", &bars, ns));
    out.push_str("\n<p class=\"legend\">");
    for phase in Phase::ALL {
        let name = phase.as_str();
        if bars.iter().any(|bar| bar.parts.iter().any(|(_, class, _)| *class == phase as usize)) {
            out.push_str(&format!("<span><i class=\"b{}\"></i>{name}</span>", phase as usize));
        }
    }
    out.push_str("</p>\n");
    for measured in &report.measured {
        let mut rows = vec![
            ["", "wall", "95 % interval", "CPU", "95 % interval", "min", "outliers"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(times_of(measured).into_iter().map(|(place, pair)| {
            let (Some(wall), Some(cpu)) = (pair.wall_ns.summary, pair.cpu_ns.summary) else {
                return vec![words::place(&place)];
            };
            let time = units::time;
            vec![
                words::place(&place),
                time(wall.median),
                format!("{} … {}", time(wall.low), time(wall.high)),
                time(cpu.median),
                format!("{} … {}", time(cpu.low), time(cpu.high)),
                time(cpu.min),
                cpu.outliers.max(wall.outliers).to_string(),
            ]
        }));
        out.push_str(&format!(
            "<p>{}, {} runs</p>\n",
            text(&measured.compiler),
            measured.load.runs
        ));
        table(out, &rows);
    }
}

/// The processor's own count of instructions, or why there is none.
fn instructions(out: &mut String, report: &BenchReport) {
    let rows = words::instructions::rows(report);
    match &report.instructions_not_counted {
        Some(why) => {
            let words = words::instructions::not_available(why);
            out.push_str(&format!("<p class=\"dim\">{}</p>\n", text(&words)));
        }
        None if rows.is_empty() => {}
        None => {
            out.push_str("<h2>Hardware instructions</h2>\n<p class=\"dim\">In user mode, medians. They are not gated.</p>\n");
            table(out, &rows);
        }
    }
}

/// Fuel of each exchange, callback by callback.
fn exchanges(out: &mut String, report: &BenchReport) {
    for measured in &report.measured {
        let mut bars = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for root in &measured.roots {
            for exchange in root.exchanges.iter().filter(|exchange| exchange.failed.is_none()) {
                let of = words::of_root(measured, Some(&root.root_id));
                let parts = exchange.callbacks.iter().map(|row| {
                    let known = names.iter().position(|name| *name == row.name);
                    let class = known.unwrap_or_else(|| {
                        names.push(&row.name);
                        names.len() - 1
                    });
                    (row.name.clone(), class % 10, row.counters.fuel.unwrap_or(0) as f64)
                });
                bars.push(Bar {
                    label: format!("{}{of}", exchange.name),
                    parts: parts.collect(),
                    total: words::thousands(exchange.counters.fuel.unwrap_or(0)),
                });
            }
        }
        if bars.is_empty() {
            continue;
        }
        out.push_str(&format!("<h2>Fuel of an exchange, by {}</h2>\n", text(&measured.compiler)));
        out.push_str(&svg::bars("Fuel of the exchanges", &bars, |fuel| {
            words::thousands(fuel as u64)
        }));
        out.push_str("\n<p class=\"legend\">");
        for (index, name) in names.iter().enumerate() {
            out.push_str(&format!("<span><i class=\"b{}\"></i>{}</span>", index % 10, text(name)));
        }
        out.push_str("</p>\n");
    }
}

fn memory(out: &mut String, report: &BenchReport) {
    let Some(measured) = report.measured.first() else { return };
    out.push_str("<h2>Memory, by stage</h2>\n");
    let mut bars = Vec::new();
    for root in &measured.roots {
        for stage in &root.memory {
            let of = words::of_root(measured, Some(&root.root_id));
            let bytes = stage.pages << 16;
            bars.push(Bar {
                label: format!("{}{of}", stage.stage),
                parts: vec![(stage.stage.clone(), 1, bytes as f64)],
                total: units::size(bytes),
            });
        }
    }
    out.push_str(&svg::bars("Memory of the module", &bars, |bytes| units::size(bytes as u64)));
    out.push('\n');
}

fn distributions(out: &mut String, report: &BenchReport) {
    out.push_str("<h2>Distributions of CPU time</h2>\n<p class=\"dim\">Each dot is a run, the bar across the median, the band its 95 % interval.</p>\n");
    let mut rows = Vec::new();
    let mut push = |label: String, times: &Times| {
        if let Some(summary) = times.summary
            && !times.samples.is_empty()
        {
            let summary = (summary.low, summary.median, summary.high);
            rows.push(Dots { label, samples: times.samples.clone(), summary });
        }
    };
    for measured in &report.measured {
        let compiler = &measured.compiler;
        for (way, load) in measured.loads() {
            push(format!("total, {}", way.of(compiler)), &load.total.cpu_ns);
        }
        push(format!("the reference, {compiler}"), &measured.reference_ns);
        for root in &measured.roots {
            for exchange in &root.exchanges {
                let of = words::of_root(measured, Some(&root.root_id));
                push(format!("{}{of}, {compiler}", exchange.name), &exchange.times.cpu_ns);
            }
        }
    }
    out.push_str(&svg::distributions("Distributions of CPU time", &rows, ns));
    out.push('\n');
}

fn differences(out: &mut String, bench: &Bench) {
    for comparison in &bench.comparisons {
        out.push_str(&format!(
            "<h2>Against {}, under {}</h2>\n",
            text(&comparison.with),
            text(&comparison.compiler)
        ));
        let mut rows = vec![["", "before", "now", "change", "p", ""].map(str::to_owned).to_vec()];
        let changed =
            comparison.exact.iter().filter(|difference| difference.before != difference.after);
        for difference in changed.chain(&comparison.times) {
            rows.push(vec![
                words::reason(difference),
                words::amount(difference.unit, difference.before),
                words::amount(difference.unit, difference.after),
                words::change(difference),
                difference.p.map_or(String::new(), |p| format!("{p:.4}")),
                match difference.verdict {
                    Change::Same => String::new(),
                    verdict => words::word(verdict),
                },
            ]);
        }
        table(out, &rows);
        for remark in &comparison.remarks {
            out.push_str(&format!("<p class=\"dim\">{}</p>\n", text(remark)));
        }
    }
}

/// What became of the numbers over what was saved.
fn progress(out: &mut String, report: &BenchReport, history: &[BenchReport]) {
    if history.is_empty() {
        return;
    }
    out.push_str("<h2>History</h2>\n");
    for measured in &report.measured {
        let mut all: Vec<(&BenchReport, &Measured)> = history
            .iter()
            .filter_map(|older| Some((older, older.under(&measured.compiler)?)))
            .collect();
        all.push((report, measured));
        let mut draw = |title: &str,
                        value: &dyn Fn(&BenchReport, &Measured) -> Option<u64>,
                        show: fn(f64) -> String| {
            let points = all.iter().filter_map(|(report, measured)| {
                Some((date(report.created), value(report, measured)? as f64))
            });
            let points: Vec<_> = points.collect();
            // One alone is no course.
            if points.len() > 1 {
                let title = format!("{title}, {}", measured.compiler);
                out.push_str(&svg::history(&title, &points, show));
            }
        };
        draw("CPU time, cold", &|_, measured| Some(measured.load.total.cpu_ns.median()), ns);
        let from_store = |_: &BenchReport, measured: &Measured| {
            Some(measured.from_store.as_ref()?.total.cpu_ns.median())
        };
        draw("CPU time, from the store", &from_store, ns);
        for (title, metric, what) in [
            ("fuel of configure", "fuel", "configure"),
            ("fuel of an exchange", "fuel", "exchange"),
            ("bytes of code", "code_bytes", "module"),
        ] {
            let counter = |report: &BenchReport, measured: &Measured| {
                let mut all = exact(report, measured).into_iter();
                Some(all.find(|e| e.metric == metric && e.place.what == what)?.value)
            };
            draw(title, &counter, |value| words::thousands(value as u64));
        }
        out.push('\n');
    }
}

/// `2026-11-25 17:04` in UTC.
fn date(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(1 << 36));
    // `Wed, 25 Nov 2026 17:04:05 GMT`
    let words = httpdate::fmt_http_date(time);
    words.get(5..22).unwrap_or_default().to_owned()
}

fn counters(out: &mut String, report: &BenchReport, measured: &Measured) {
    out.push_str(&format!("<h2>Exact counters, by {}</h2>\n", text(&measured.compiler)));
    let mut rows = vec![vec![String::new(), "value".to_owned()]];
    for exact in exact(report, measured) {
        let label = match (exact.place.what, exact.metric) {
            ("module", metric) => words::metric(metric).to_owned(),
            ("memory", _) => words::place(&exact.place),
            (_, metric) => format!("{}: {}", words::place(&exact.place), words::metric(metric)),
        };
        // What did not happen need not be read.
        if exact.value > 0 {
            rows.push(vec![label, words::amount(exact.unit, exact.value)]);
        }
    }
    table(out, &rows);
}

fn table(out: &mut String, rows: &[Vec<String>]) {
    out.push_str("<div class=\"scroll\"><table>\n");
    for (index, row) in rows.iter().enumerate() {
        out.push_str("<tr>");
        for cell in row {
            let tag = if index == 0 { "th" } else { "td" };
            let class = match cell.as_str() {
                "WORSE" | "OVER" => " class=\"bad\"",
                "better" => " class=\"good\"",
                _ => "",
            };
            out.push_str(&format!("<{tag}{class}>{}</{tag}>", text(cell)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text() {
        assert_eq!(text("<script>\"&'"), "&lt;script&gt;&quot;&amp;&#39;");
        assert!(!text("a\u{1b}[31m").contains('\u{1b}'));
        assert_eq!(date(0), "01 Jan 1970 00:00");
    }

    #[test]
    fn the_style_takes_nothing_from_elsewhere() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !STYLE.contains('<'));
        assert!(STYLE.contains("prefers-color-scheme: dark"));
    }
}
