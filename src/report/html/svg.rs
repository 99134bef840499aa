//! Static charts as SVG. Their colours are classes, so that the page's style sheet has them for light and
//! dark. Whatever comes from outside is escaped here.

use std::fmt::Write as _;

use super::text;

/// Units of the view box; the page scales it.
const WIDTH: f64 = 860.0;
/// The column for labels.
const LABELS: f64 = 250.0;
/// The column for totals.
const TOTALS: f64 = 90.0;
const ROW: f64 = 30.0;

fn begin(out: &mut String, height: f64, label: &str) {
    let _ = write!(
        out,
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#,
        text(label)
    );
}

/// A text that is cut where it would run into the chart.
fn label(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    const MOST: usize = 36;
    let mut short: String = words.chars().take(MOST).collect();
    if short.len() < words.len() {
        short.push('…');
    }
    let _ = write!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{}</text>"#,
        text(&short)
    );
}

/// A bar of a chart.
pub struct Bar {
    /// What it is of.
    pub label: String,
    /// Its parts: name, class and length.
    pub parts: Vec<(String, usize, f64)>,
    /// What is written at its end.
    pub total: String,
}

/// Horizontal bars on one scale, each of parts.
pub fn bars(title: &str, bars: &[Bar], show: impl Fn(f64) -> String) -> String {
    let mut out = String::new();
    let height = ROW * bars.len() as f64 + 16.0;
    begin(&mut out, height, title);
    let sum = |bar: &Bar| bar.parts.iter().map(|(_, _, length)| length).sum::<f64>();
    let most = bars.iter().map(sum).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - TOTALS) / most;
    for (index, bar) in bars.iter().enumerate() {
        let y = 8.0 + ROW * index as f64;
        label(&mut out, LABELS - 10.0, y + 19.0, "", "end", &bar.label);
        let mut x = LABELS;
        for (name, class, length) in &bar.parts {
            let width = length * scale;
            let _ = write!(
                out,
                r#"<rect x="{x:.2}" y="{:.1}" width="{:.2}" height="20" class="s{class}"><title>{}: {}</title></rect>"#,
                y + 5.0,
                (width - 1.0).max(0.5),
                text(name),
                text(&show(*length)),
            );
            x += width;
        }
        label(&mut out, x + 6.0, y + 19.0, "dim", "start", &bar.total);
    }
    out.push_str("</svg>");
    out
}

/// The samples of a distribution as dots on a line, and its median and interval.
pub struct Dots {
    /// What it is of.
    pub label: String,
    /// The samples.
    pub samples: Vec<u64>,
    /// Low end of the interval, median, high end.
    pub summary: (u64, u64, u64),
}

/// Distributions, each on a scale of its own from its least to its largest sample.
pub fn distributions(title: &str, rows: &[Dots], show: impl Fn(f64) -> String) -> String {
    const TALL: f64 = 52.0;
    let mut out = String::new();
    begin(&mut out, TALL * rows.len() as f64 + 10.0, title);
    for (index, row) in rows.iter().enumerate() {
        let y = 5.0 + TALL * index as f64;
        let least = row.samples.iter().min().copied().unwrap_or(0) as f64;
        let most = row.samples.iter().max().copied().unwrap_or(0) as f64;
        let width = WIDTH - LABELS - 30.0;
        let at = |value: f64| LABELS + (value - least) / (most - least).max(1.0) * width;
        label(&mut out, LABELS - 10.0, y + 22.0, "", "end", &row.label);
        let (low, median, high) = row.summary;
        let (left, right) = (at(low as f64), at(high as f64));
        let _ = write!(
            out,
            r#"<line x1="{LABELS}" x2="{:.1}" y1="{:.1}" y2="{:.1}" class="axis"/>"#,
            LABELS + width,
            y + 18.0,
            y + 18.0
        );
        let _ = write!(
            out,
            r#"<rect x="{left:.1}" y="{:.1}" width="{:.1}" height="16" class="s2" opacity="0.35"><title>95 % interval of the median: {} … {}</title></rect>"#,
            y + 10.0,
            (right - left).max(1.0),
            text(&show(low as f64)),
            text(&show(high as f64)),
        );
        for (order, sample) in row.samples.iter().enumerate() {
            // Apart, so that equal ones are seen.
            let lift = (order % 5) as f64 * 3.0 - 6.0;
            let _ = write!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="2.4" class="s1" opacity="0.75"/>"#,
                at(*sample as f64),
                y + 18.0 + lift
            );
        }
        let _ = write!(
            out,
            r#"<rect x="{:.1}" y="{:.1}" width="2" height="22" class="s8"><title>median {}</title></rect>"#,
            at(median as f64) - 1.0,
            y + 7.0,
            text(&show(median as f64)),
        );
        label(&mut out, LABELS, y + 43.0, "dim", "start", &show(least));
        label(&mut out, LABELS + width, y + 43.0, "dim", "end", &show(most));
        let middle = at(median as f64).clamp(LABELS + 110.0, LABELS + width - 110.0);
        let words = format!("median {}", show(median as f64));
        label(&mut out, middle, y + 43.0, "", "middle", &words);
    }
    out.push_str("</svg>");
    out
}

/// A line through the points of several measurements, from 0 up.
pub fn history(title: &str, points: &[(String, f64)], show: impl Fn(f64) -> String) -> String {
    const HEIGHT: f64 = 150.0;
    let mut out = String::new();
    begin(&mut out, HEIGHT, title);
    let most = points.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let step = (WIDTH - LABELS - 60.0) / (points.len().max(2) - 1) as f64;
    let x = |index: usize| LABELS + step * index as f64;
    let y = |value: f64| HEIGHT - 30.0 - value / most * (HEIGHT - 60.0);
    label(&mut out, LABELS - 14.0, y(most) + 4.0, "dim", "end", &show(most));
    label(&mut out, LABELS - 14.0, y(0.0) + 4.0, "dim", "end", "0");
    label(&mut out, 12.0, HEIGHT / 2.0, "", "start", title);
    let _ = write!(
        out,
        r#"<line x1="{LABELS}" x2="{:.1}" y1="{:.1}" y2="{:.1}" class="axis"/>"#,
        x(points.len() - 1),
        y(0.0),
        y(0.0)
    );
    let line: Vec<_> = points
        .iter()
        .enumerate()
        .map(|(index, (_, value))| format!("{:.1},{:.1}", x(index), y(*value)))
        .collect();
    let _ = write!(out, r#"<polyline points="{}" class="l1"/>"#, line.join(" "));
    for (index, (name, value)) in points.iter().enumerate() {
        let _ = write!(
            out,
            r#"<circle cx="{:.1}" cy="{:.1}" r="4" class="s1"><title>{}: {}</title></circle>"#,
            x(index),
            y(*value),
            text(name),
            text(&show(*value))
        );
    }
    if let (Some((first, _)), Some((last, value))) = (points.first(), points.last()) {
        label(&mut out, x(0), HEIGHT - 10.0, "dim", "start", first);
        label(&mut out, x(points.len() - 1), HEIGHT - 10.0, "dim", "end", last);
        label(&mut out, x(points.len() - 1), y(*value) - 9.0, "", "end", &show(*value));
    }
    out.push_str("</svg>");
    out
}
