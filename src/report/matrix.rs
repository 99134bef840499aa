//! One image under several targets: a line for each, and what they come to.

use crate::verdict::{Outcome, Verdict};

use super::{
    human::{self, BOLD, Detail, PLAIN, Page, first_reason, shortened, word},
    stages, units,
};

/// Characters of a first reason that are shown in its line.
const MAX_REASON_CHARS: usize = 120;

/// The verdicts as a matrix; with every detail, each report of a target that does not pass after it.
pub fn render(verdicts: &[Verdict], detail: Detail, colour: bool) -> String {
    let mut page = Page { out: String::new(), colour, detail };
    if detail > Detail::VerdictOnly {
        page.lines(verdicts);
    }
    if detail == Detail::Everything {
        for verdict in verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Pass) {
            page.out.push_str(&human::render(verdict, detail, colour));
            page.end();
        }
    }
    page.sum(verdicts);
    page.out
}

impl Page {
    fn lines(&mut self, verdicts: &[Verdict]) {
        if let Some(verdict) = verdicts.first() {
            self.stage("image", &stages::image_line(verdict));
            if let Some(module) = &verdict.module {
                self.stage("module", &stages::module_line(module));
            }
            self.end();
        }
        let names: Vec<_> = verdicts.iter().map(|verdict| verdict.target.to_string()).collect();
        let width = names.iter().map(String::len).max().unwrap_or_default();
        for (verdict, name) in verdicts.iter().zip(&names) {
            let (_, style) = word(verdict.outcome);
            self.put(BOLD, &format!("{name:<width$}  "));
            let outcome = verdict.outcome.as_str();
            match first_reason(verdict) {
                None => self.put(style, outcome),
                Some(reason) => {
                    self.put(style, &format!("{outcome:<9}"));
                    let message = shortened(&reason.message, MAX_REASON_CHARS);
                    self.put(PLAIN, &format!("  {}: {message}", reason.rule));
                }
            }
            self.end();
        }
        self.end();
    }

    fn sum(&mut self, verdicts: &[Verdict]) {
        let outcome = Outcome::worst(verdicts.iter().map(|verdict| verdict.outcome));
        let (word, style) = word(outcome);
        self.put(style, word);
        if let Some(verdict) = verdicts.first() {
            self.put(BOLD, &format!(" {}", verdict.reference));
        }
        let of = units::count(verdicts.len(), "target");
        let alike = verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
        let text = match outcome {
            Outcome::Pass => format!(": passes under {of}"),
            Outcome::Fail => format!(": fails under {alike} of {of}"),
            Outcome::Undecided => format!(": undecided under {alike} of {of}"),
        };
        let more = match (outcome, self.detail) {
            (Outcome::Fail | Outcome::Undecided, Detail::Normal) => "; -v shows each report",
            _ => "",
        };
        self.put(PLAIN, &format!("{text}{more}"));
        self.end();
    }
}
