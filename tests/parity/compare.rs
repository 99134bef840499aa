//! What differs between a verdict and a real Envoy.
//!
//! What is left out of the comparison, and why:
//! - `date`, `server` and `connection` of a response: Envoy adds them after all filters; the last one
//!   where it answers before it has the whole request;
//! - the values of `x-request-id` and `x-envoy-upstream-service-time`: random, and a time;
//! - in the log, all but the lines of the module and of the Wasm extension, which filtergate predicts;
//! - an incomplete request at the upstream: how much of it arrives is a race.

use std::collections::BTreeSet;

use filtergate::{
    exercise::{ExchangeResult, RootRun},
    host::LogLevel,
    parity::{Entry, Envoy, Exchanged, Message, Pairs, find},
    verdict::{Severity, Verdict},
};

/// The differences for one root, in words.
pub struct Differences<'a> {
    case: &'a str,
    found: Vec<String>,
}

impl<'a> Differences<'a> {
    pub fn new(case: &'a str) -> Self {
        Self { case, found: Vec::new() }
    }

    pub fn into_found(self) -> Vec<String> {
        self.found
    }

    pub fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: T, envoys: T) {
        if ours != envoys {
            let case = self.case;
            self.found.push(format!("{case}: {what}:\n    here  {ours:?}\n    Envoy {envoys:?}"));
        }
    }

    /// The lines that the errors predict are in Envoy's log.
    pub fn predicted_lines(&mut self, verdict: &Verdict, root_id: &str, envoy: &Envoy) {
        let errors = verdict.findings.iter().filter(|finding| {
            finding.severity == Severity::Error
                && finding.root_id.as_deref().is_none_or(|root| root == root_id)
        });
        for finding in errors {
            for line in &finding.envoy_messages {
                if !envoy.wait(|entries| {
                    entries
                        .iter()
                        .flat_map(|entry| entry.text.lines())
                        .any(|logged| is(logged, line))
                }) {
                    self.found.push(format!(
                        "{}: {}: Envoy did not log {line:?}, but\n        {}",
                        self.case,
                        finding.rule,
                        of_interest(&envoy.entries(0)).join("\n        ")
                    ));
                }
            }
        }
    }

    /// The module logged the same.
    pub fn module_logs(&mut self, root: &RootRun, envoy: &Envoy) {
        let ours: BTreeSet<String> = (root.logs.iter())
            .chain(root.exchanges.iter().flat_map(|exchange| &exchange.logs))
            .filter(|line| line.level >= LogLevel::Info)
            .map(|line| {
                let level =
                    if line.level == LogLevel::Warn { "warning" } else { line.level.as_str() };
                let text = line.message.lines().next().unwrap_or_default();
                without_request_id(format!("[{level}] {text}"))
            })
            .collect();
        // One pass over all lines: a module may log thousands.
        let mut missing = ours.clone();
        if !missing.is_empty() {
            let mut seen = 0;
            envoy.wait(|entries| {
                for line in entries[seen..].iter().filter_map(of_module) {
                    missing.remove(&line);
                }
                // The last one may still grow by a line.
                seen = entries.len().saturating_sub(1);
                missing.is_empty()
            });
        }
        let envoys: BTreeSet<String> = envoy.entries(0).iter().filter_map(of_module).collect();
        let only = |here: &BTreeSet<String>, there: &BTreeSet<String>| {
            here.difference(there).cloned().collect::<Vec<_>>()
        };
        let (only_ours, only_envoys) = (only(&ours, &envoys), only(&envoys, &ours));
        self.expect("lines that only one has", only_ours, only_envoys);
    }

    /// The client and the upstream got the same.
    pub fn exchange(&mut self, ours: &ExchangeResult, envoys: &Exchanged) {
        let what = |part: &str| format!("exchange `{}`: {part}", envoys.name);
        let our_status = ours.response.as_ref().map(|response| response.status);
        let envoys_status = envoys.response.as_ref().and_then(Message::status);
        self.expect(&what("status"), our_status, envoys_status);
        if let (Some(ours), Some(envoys)) = (&ours.response, &envoys.response) {
            let ours = &ours.message;
            self.expect(
                &what("response headers"),
                comparable(&ours.headers),
                comparable(&envoys.headers),
            );
            self.expect(&what("response trailers"), &ours.trailers, &envoys.trailers);
        }
        let our_body = (ours.response.as_ref()).map(|response| {
            without_id(&response.message.body, ours.upstream.as_ref().map(|u| &u.headers))
        });
        let envoys_body = (envoys.response.as_ref()).map(|response| {
            without_id(&response.body, envoys.upstream.first().map(|u| &u.headers))
        });
        self.expect(&what("response body"), our_body, envoys_body);

        match (&ours.upstream, envoys.upstream.as_slice()) {
            (Some(ours), [envoys]) => {
                let line = format!(
                    "{} {} HTTP/1.1",
                    find(&ours.headers, ":method").unwrap_or_default(),
                    find(&ours.headers, ":path").unwrap_or_default()
                );
                self.expect(&what("request line"), &line, &envoys.start);
                self.expect(
                    &what("request headers"),
                    comparable(&ours.headers),
                    comparable(&envoys.headers),
                );
                self.expect(&what("request body"), text(&ours.body), text(&envoys.body));
                self.expect(&what("request trailers"), &ours.trailers, &envoys.trailers);
            }
            // A part of it may have left before the filter answered.
            (Some(_), []) if our_status != Some(200) => {}
            (ours, envoys) => {
                self.expect(
                    &what("requests at the upstream"),
                    usize::from(ours.is_some()),
                    envoys.len(),
                );
            }
        }
    }
}

/// Whether the line is the predicted one; where a crash hit memory differs from build to build.
fn is(line: &str, predicted: &str) -> bool {
    const CRASH: &str = "Caught Segmentation fault, suspect faulting address ";
    line == predicted || line.starts_with(CRASH) && predicted.starts_with(CRASH)
}

/// A line of the module with its level.
fn of_module(entry: &Entry) -> Option<String> {
    let text = entry.of_module()?.lines().next().unwrap_or_default();
    Some(without_request_id(format!("[{}] {text}", entry.level)))
}

/// A line without the `x-request-id` that the upstream's echo shows in it: it is random.
fn without_request_id(mut line: String) -> String {
    const BEFORE: &str = r#"["x-request-id", ""#;
    const LENGTH: usize = "00000000-0000-4000-8000-000000000001".len();
    if let Some(at) = line.find(BEFORE) {
        let start = at + BEFORE.len();
        let end = line.len().min(start + LENGTH);
        if line.is_char_boundary(end) {
            line.replace_range(start..end, "");
        }
    }
    line
}

/// The lines of Envoy's log that say something of the module.
fn of_interest(entries: &[Entry]) -> Vec<String> {
    let of_interest =
        entries.iter().filter(|entry| entry.level != "info" || entry.logger == "wasm");
    of_interest.map(|entry| format!("[{}] {}", entry.level, entry.text)).take(40).collect()
}

/// Headers as an HTTP/1.1 peer sees them, without what differs from run to run.
fn comparable(headers: &Pairs) -> Pairs {
    headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "server" | "connection"))
        .filter(|(name, _)| name == ":authority" || !name.starts_with(':'))
        .map(|(name, value)| {
            let varies = matches!(name.as_str(), "x-request-id" | "x-envoy-upstream-service-time");
            let name = if name == ":authority" { "host" } else { name };
            (name.to_owned(), if varies { "*".to_owned() } else { value.clone() })
        })
        .collect()
}

/// A body as text, with the request id that it repeats taken out.
fn without_id(body: &[u8], request_headers: Option<&Pairs>) -> String {
    let text = text(body);
    match request_headers.and_then(|headers| find(headers, "x-request-id")) {
        Some(id) => text.replace(id, "*"),
        None => text,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
