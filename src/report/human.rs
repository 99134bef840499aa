//! The default report, for a person with a failed pipeline: a line for each stage, the findings with
//! the gravest last, and one line with the verdict and its first reason at the very end.

use anstyle::{AnsiColor, Style};

use crate::{
    exercise::{Filter, RootRun},
    host::{LogLevel, LogLine},
    verdict::{Finding, Outcome, Rule, Severity, Verdict},
};

use super::{
    escape::{escape, quote},
    stages, units,
};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Detail {
    /// The verdict's line.
    VerdictOnly,
    /// Stages, findings, and the first log lines of each root.
    #[default]
    Normal,
    /// Every log line, the help of notes, CPU times.
    Everything,
}

/// Log lines of one root that are shown, unless everything is.
const MAX_LOG_LINES: usize = 20;
/// Characters of one log line that are shown, unless everything is.
const MAX_LOG_CHARS: usize = 400;
/// Characters of the first reason that are shown beside the verdict.
const MAX_REASON_CHARS: usize = 300;
/// Frames of a backtrace that are shown, unless everything is.
const MAX_EVIDENCE_LINES: usize = 8;

/// The verdict as text.
pub fn render(verdict: &Verdict, detail: Detail, colour: bool) -> String {
    let mut page = Page { out: String::new(), colour, detail };
    if detail > Detail::VerdictOnly {
        page.stages(verdict);
        // Where only the empty root_id was exercised there is no other place.
        let places = verdict.roots.iter().any(|root| !root.root_id.is_empty());
        page.findings(&verdict.findings, places);
    }
    page.verdict(verdict);
    page.out
}

/// A line about several images.
pub fn tally(outcomes: &[Outcome]) -> String {
    let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count();
    let parts: Vec<_> =
        [(Outcome::Pass, "passed"), (Outcome::Fail, "failed"), (Outcome::Undecided, "undecided")]
            .into_iter()
            .filter(|(outcome, _)| count(*outcome) > 0)
            .map(|(outcome, word)| format!("{} {word}", count(outcome)))
            .collect();
    format!("{}: {}\n", units::count(outcomes.len(), "image"), parts.join(", "))
}

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const RED: Style = AnsiColor::Red.on_default().bold();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const GREEN: Style = AnsiColor::Green.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();

fn style_of(severity: Severity) -> Style {
    match severity {
        Severity::Error => RED,
        Severity::Warning => YELLOW,
        Severity::Note => CYAN,
    }
}

pub(super) struct Page {
    pub(super) out: String,
    pub(super) colour: bool,
    pub(super) detail: Detail,
}

impl Page {
    /// Text in a style. Whatever it is, it is escaped here.
    pub(super) fn put(&mut self, style: Style, text: &str) {
        let text = escape(text);
        if self.colour && style != PLAIN {
            self.out.push_str(&format!("{style}{text}{style:#}"));
        } else {
            self.out.push_str(&text);
        }
    }

    /// A line: its label in the first column, and the rest.
    pub(super) fn stage(&mut self, label: &str, text: &str) {
        self.put(BOLD, &format!("{label:<8}"));
        self.put(PLAIN, text);
        self.end();
    }

    /// A further line of what is above.
    pub(super) fn below(&mut self, label: &str, style: Style, text: &str) {
        self.put(DIM, &format!("  {label:<6} "));
        self.put(style, text);
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.out.push('\n');
    }

    fn stages(&mut self, verdict: &Verdict) {
        self.stage("image", &stages::image_line(verdict));
        if let Some(image) = &verdict.image
            && let Some(line) = stages::config_line(image)
        {
            self.stage("config", &line);
        }
        if let Some(module) = &verdict.module {
            self.stage("module", &stages::module_line(module));
            if let Some(line) = stages::link_line(module, verdict) {
                self.stage("link", &line);
            }
        }
        if let Some(line) = stages::load_line(verdict) {
            self.stage("load", &line);
        }
        // Each root's instance starts as the base VM did, and logs the same.
        let told_by_roots = verdict.roots.iter().any(|root| root.accepted || !root.logs.is_empty());
        if !told_by_roots || self.detail == Detail::Everything {
            self.logs(&verdict.base_logs.iter().collect::<Vec<_>>());
        }
        for root in &verdict.roots {
            self.root(root);
        }
        if let Some(line) = stages::time_line(&verdict.phases, self.detail) {
            self.stage("time", &line);
        }
    }

    fn root(&mut self, root: &RootRun) {
        self.put(BOLD, &format!("{:<8}", "root"));
        self.put(PLAIN, &root_label(&root.root_id));
        match root.outcome {
            None => self.put(GREEN, " ok"),
            Some(rule) => self.put(RED, &format!(" {rule}")),
        }
        for exchange in &root.exchanges {
            self.put(PLAIN, &format!(", {}", stages::exchange_word(exchange)));
        }
        for connection in &root.connections {
            self.put(PLAIN, &format!(", {}", stages::connection_word(connection)));
        }
        self.end();
        let exchanges = root.exchanges.iter().flat_map(|exchange| &exchange.logs);
        let connections = root.connections.iter().flat_map(|connection| &connection.logs);
        let lines: Vec<_> =
            root.logs.iter().chain(exchanges).chain(connections).chain(&root.idle_logs).collect();
        self.logs(&lines);
    }

    fn logs(&mut self, lines: &[&LogLine]) {
        let shown = match self.detail {
            Detail::Everything => lines.len(),
            _ => lines.len().min(MAX_LOG_LINES),
        };
        for line in &lines[..shown] {
            self.log(line);
        }
        if shown < lines.len() {
            let more = units::count(lines.len() - shown, "more line");
            self.below("log", DIM, &format!("… {more}; -v shows them"));
        }
    }

    fn log(&mut self, line: &LogLine) {
        let style = match line.level {
            LogLevel::Error | LogLevel::Critical => RED,
            LogLevel::Warn => YELLOW,
            _ => PLAIN,
        };
        let message = match self.detail {
            Detail::Everything => line.message.clone(),
            _ => shortened(&line.message, MAX_LOG_CHARS),
        };
        self.put(DIM, &format!("  {:<6} ", "log"));
        self.put(style, &format!("[{}]", line.level.as_str()));
        self.put(PLAIN, &format!(" {message}"));
        self.end();
    }

    /// Notes, then warnings, then errors: what matters most is nearest to the verdict. Within each
    /// the order is Envoy's.
    pub(super) fn findings(&mut self, findings: &[Finding], places: bool) {
        if findings.is_empty() {
            return;
        }
        self.end();
        for severity in [Severity::Note, Severity::Warning, Severity::Error] {
            let mut findings = findings.iter().filter(|f| f.severity == severity).peekable();
            while let Some(finding) = findings.next() {
                // The same step is said once for a row of findings.
                let again = findings.peek().is_some_and(|next| next.help == finding.help);
                self.finding(finding, places, !again);
            }
        }
        self.end();
    }

    fn finding(&mut self, finding: &Finding, places: bool, with_help: bool) {
        self.put(style_of(finding.severity), &format!("{}[{}]", finding.severity, finding.rule));
        // The controls name their root themselves.
        let place = match &finding.root_id {
            Some(root_id) if places && finding.rule != Rule::RootUnknownId => {
                format!(" root {}", root_label(root_id))
            }
            _ => String::new(),
        };
        self.put(PLAIN, &format!("{place}: {}", finding.message));
        self.end();
        if finding.severity == Severity::Note && self.detail < Detail::Everything {
            return;
        }
        let evidence = &finding.evidence;
        let shown = match self.detail {
            Detail::Everything => evidence.len(),
            _ => evidence.len().min(MAX_EVIDENCE_LINES),
        };
        for line in &evidence[..shown] {
            self.below("at", PLAIN, line);
        }
        if shown < evidence.len() {
            self.below("at", DIM, &format!("… {} more; -v shows them", evidence.len() - shown));
        }
        // The backtrace in Envoy's words repeats the evidence.
        let is_frame = |line: &str| {
            line.starts_with("Proxy-Wasm plugin in-VM backtrace")
                || evidence.iter().any(|frame| line.ends_with(frame.as_str()))
        };
        for line in &finding.envoy_messages {
            if self.detail == Detail::Everything || !is_frame(line) {
                self.below(speaker(finding.rule), PLAIN, line.trim());
            }
        }
        if with_help && let Some(help) = &finding.help {
            self.below("help", PLAIN, help);
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let (word, style) = word(verdict.outcome);
        self.put(style, word);
        self.put(BOLD, &format!(" {} {}", verdict.reference, verdict.target));
        let text = match first_reason(verdict) {
            Some(reason) => {
                let more = verdict
                    .findings
                    .iter()
                    .filter(|finding| finding.severity == Severity::Error)
                    .count()
                    .saturating_sub(1);
                let more = match more {
                    0 => String::new(),
                    more => format!(" (and {})", units::count(more, "more error")),
                };
                // A reason that is one of Envoy's own is that of a root, or of the requests after a load.
                let not_envoys = reason.rule.envoy_class().is_none();
                let serves = match (verdict.outcome, verdict.loads) {
                    (Outcome::Fail, Some(true)) if not_envoys => "; Envoy loads it all the same",
                    _ => "",
                };
                // The whole text stands above.
                let message = match self.detail {
                    Detail::VerdictOnly => reason.message.clone(),
                    _ => shortened(&reason.message, MAX_REASON_CHARS),
                };
                format!(": {}: {message}{more}{serves}", reason.rule)
            }
            None => summary(verdict),
        };
        self.put(PLAIN, &text);
        self.end();
    }
}

/// The word of the last line, and its colour.
pub(super) fn word(outcome: Outcome) -> (&'static str, Style) {
    match outcome {
        Outcome::Pass => ("PASS", GREEN),
        Outcome::Fail => ("FAIL", RED),
        Outcome::Undecided => ("UNDECIDED", YELLOW),
    }
}

/// Who logs the text: images are fetched and their layout is judged before Envoy sees a module.
fn speaker(rule: Rule) -> &'static str {
    let name = rule.name();
    if name.starts_with("image/") || name.starts_with("config/") { "istio" } else { "envoy" }
}

/// The first characters of a long text.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The reason for a verdict other than pass.
pub(super) fn first_reason(verdict: &Verdict) -> Option<&Finding> {
    let findings = &verdict.findings;
    match verdict.outcome {
        Outcome::Pass => None,
        Outcome::Fail => findings.iter().find(|finding| finding.severity == Severity::Error),
        Outcome::Undecided => {
            let of_filtergate = |finding: &&Finding| {
                matches!(
                    finding.rule,
                    Rule::LimitReached | Rule::ModuleFeature | Rule::RootNotExercised
                )
            };
            let serious = || findings.iter().filter(|f| f.severity != Severity::Note);
            serious().find(of_filtergate).or_else(|| serious().next())
        }
    }
}

/// What a pass rests on.
fn summary(verdict: &Verdict) -> String {
    let roots = verdict.roots.len();
    let ran = match verdict.filter {
        Filter::Http => {
            let exchanges = verdict.roots.iter().map(|root| root.exchanges.len()).sum();
            units::count(exchanges, "exchange")
        }
        Filter::Network => {
            let connections = verdict.roots.iter().map(|root| root.connections.len()).sum();
            units::count(connections, "connection")
        }
    };
    let mut text = format!(": {} and {ran}", units::count(roots, "root_id"));
    let warnings =
        verdict.findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
    if warnings > 0 {
        text.push_str(&format!(", {}", units::count(warnings, "warning")));
    }
    text
}

pub(crate) fn root_label(root_id: &str) -> String {
    if root_id.is_empty() { "(the empty root_id)".to_owned() } else { quote(root_id) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        exercise::ExchangeResult,
        image::ImageError,
        report::escape::is_deceptive,
        target::Target,
        verdict::{ImageFacts, ModuleFacts},
    };

    use super::*;

    fn line(message: &str) -> LogLine {
        LogLine { level: LogLevel::Warn, message: message.to_owned() }
    }

    /// A verdict with `text` wherever a module, image or registry could have put it.
    fn verdict(text: &str) -> Verdict {
        let error = ImageError::FileNotFound { path: text.into() };
        let mut verdict = Verdict::of_image_error(text, &Target::default(), &error);
        verdict.image = Some(ImageFacts {
            named_digest: None,
            manifest_digest: Some(text.to_owned()),
            shape: "file",
            runtime_config: Some(crate::image::RuntimeConfig {
                r#type: Some(text.to_owned()),
                abi_versions: vec![text.to_owned()],
                root_ids: vec![text.to_owned()],
                raw: serde_json::Value::Null,
            }),
        });
        verdict.module = Some(ModuleFacts {
            sha256: text.to_owned(),
            size: 1,
            abi: Some("0.2.1"),
            language: None,
            toolchain: Some(text.to_owned()),
            imports: Vec::new(),
            exports: Vec::new(),
            functions: 1,
            code_bytes: 1,
            initial_pages: None,
        });
        verdict.base_logs = vec![line(text)];
        verdict.findings.push(
            Finding::error(Rule::RunTrap, text)
                .envoy(text)
                .help(text)
                .evidence([text.to_owned()])
                .root(text),
        );
        verdict.roots = vec![RootRun {
            root_id: text.to_owned(),
            logs: vec![line(text)],
            exchanges: vec![ExchangeResult { name: text.to_owned(), ..ExchangeResult::default() }],
            ..RootRun::default()
        }];
        verdict.conclude();
        verdict
    }

    proptest! {
        #[test]
        fn no_line_has_an_effect(text in "(\\PC|\\pC|##\\[|::|\r|\n|\u{1b}\\[|\u{202e}){0,12}") {
            let verdict = verdict(&text);
            for detail in [Detail::VerdictOnly, Detail::Normal, Detail::Everything] {
                let plain = render(&verdict, detail, false);
                for line in plain.lines() {
                    prop_assert!(!line.chars().any(is_deceptive), "{line:?}");
                    prop_assert!(!line.contains("##["), "{line:?}");
                    prop_assert!(!line.trim_start().starts_with("::"), "{line:?}");
                }
                // A line more would be one that the text made.
                prop_assert_eq!(plain.lines().count(), render(&self::verdict("x"), detail, false).lines().count());
            }
        }
    }

    #[test]
    fn colour_adds_nothing_but_styles() {
        let verdict = verdict("text");
        let mut coloured = render(&verdict, Detail::Everything, true);
        while let Some(start) = coloured.find('\u{1b}') {
            let end = start + coloured[start..].find('m').unwrap();
            coloured.replace_range(start..=end, "");
        }
        assert_eq!(coloured, render(&verdict, Detail::Everything, false));
    }

    #[test]
    fn the_first_reason_of_an_undecided_verdict_is_what_left_it_open() {
        let error = ImageError::FileNotFound { path: "x".into() };
        let mut verdict = Verdict::of_image_error("x", &Target::default(), &error);
        let text = render(&verdict, Detail::VerdictOnly, false);
        assert_eq!(text, "UNDECIDED x envoy:1.40: image/not-found: x: no such file\n");
        verdict.findings = vec![
            Finding::warning(Rule::ImageShape, "odd"),
            Finding::warning(Rule::LimitReached, "too much"),
        ];
        verdict.conclude();
        let text = render(&verdict, Detail::VerdictOnly, false);
        assert_eq!(text, "UNDECIDED x envoy:1.40: limit/reached: too much\n");
    }
}
