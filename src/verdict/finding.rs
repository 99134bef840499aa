//! Findings, and what they add up to.

use super::rule::{Rule, Severity};

/// One fact about an image or module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of fact.
    pub rule: Rule,
    /// How much it weighs.
    pub severity: Severity,
    /// The thing and the reason: a lowercase fragment of one line.
    pub message: String,
    /// The lines that Envoy logs for it. Of an image and its configuration they are Istio's, which
    /// fetches it.
    pub envoy_messages: Vec<String>,
    /// The root_id under which it was found.
    pub root_id: Option<String>,
    /// The next step.
    pub help: Option<String>,
    /// Backtrace lines and the like.
    pub evidence: Vec<String>,
}

impl Finding {
    /// A finding without the optional parts.
    pub fn new(rule: Rule, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            rule,
            severity,
            message: message.into(),
            envoy_messages: Vec::new(),
            root_id: None,
            help: None,
            evidence: Vec::new(),
        }
    }

    /// An error.
    pub fn error(rule: Rule, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Error, message)
    }

    /// A warning.
    pub fn warning(rule: Rule, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Warning, message)
    }

    /// A note.
    pub fn note(rule: Rule, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Note, message)
    }

    /// Adds a line that Envoy logs.
    #[must_use]
    pub fn envoy(mut self, line: impl Into<String>) -> Self {
        self.envoy_messages.push(line.into());
        self
    }

    /// Adds the lines of a text that Envoy or Istio logs; an empty one adds none.
    #[must_use]
    pub fn envoy_text(mut self, text: &str) -> Self {
        self.envoy_messages.extend(text.lines().map(str::to_owned));
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds lines of evidence.
    #[must_use]
    pub fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(lines);
        self
    }

    /// Names the root.
    #[must_use]
    pub fn root(mut self, root_id: &str) -> Self {
        self.root_id = Some(root_id.to_owned());
        self
    }
}

/// What the findings add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// No error.
    Pass,
    /// An error that is the image's.
    Fail,
    /// The image could not be had, or a limit of this machine kept it from being judged.
    Undecided,
}

impl Outcome {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Undecided => "undecided",
        }
    }

    /// What several come to: fail before undecided before pass.
    pub fn worst(outcomes: impl IntoIterator<Item = Self>) -> Self {
        outcomes.into_iter().fold(Self::Pass, |worst, outcome| match (worst, outcome) {
            (Self::Fail, _) | (_, Self::Fail) => Self::Fail,
            (Self::Undecided, _) | (_, Self::Undecided) => Self::Undecided,
            (Self::Pass, Self::Pass) => Self::Pass,
        })
    }

    /// Fail if any finding is an error, else undecided if something kept the check from its end.
    pub fn of(findings: &[Finding], undecided: bool) -> Self {
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            Self::Fail
        } else if undecided {
            Self::Undecided
        } else {
            Self::Pass
        }
    }
}
