//! What one side did with a module, in the form in which records of real proxies are kept: one line of
//! JSON for each module.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::exercise::{Connection, Exchange, Received, Step, smoke_connections};

use super::http1::Pairs;

/// Most log lines of a module that a list shows.
const MAX_LINES: usize = 14;
/// Most calls that a list shows.
const MAX_CALLS: usize = 60;
/// Most characters of a module's log line.
const MAX_TEXT: usize = 400;
/// Most characters of a line of Envoy's own, and of a body.
const MAX_LONG_TEXT: usize = 4000;

/// The requests of a record.
pub fn requests() -> Vec<Exchange> {
    // The text is part of the program, and a test reads it.
    serde_json::from_str(include_str!("requests.json")).unwrap_or_default()
}

/// The connections of a record: those of the smoke test, and two that are broken off.
pub fn connections() -> Vec<Connection> {
    let broken_off = |name: &str, step| Connection {
        name: name.to_owned(),
        upstream: Default::default(),
        steps: vec![Step::ClientSends("hello".to_owned()), step],
    };
    let mut connections = smoke_connections();
    connections.push(broken_off("client-resets", Step::ClientResets));
    connections.push(broken_off("upstream-resets", Step::UpstreamResets));
    connections
}

/// What one side did with a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    /// SHA-256 of the module.
    pub sha256: String,
    /// Where it came from.
    pub path: String,
    /// `http`, `network`.
    pub filter: &'static str,
    /// The plugin's root_id.
    pub root_id: String,
    /// Whether the configuration is accepted; `None` where that was not found out.
    pub loads: Option<bool>,
    /// The class of the refusal.
    pub reason: Option<&'static str>,
    /// What exactly was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Envoy's own lines, `level: text`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// The module's lines in the base VM and in the canary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugin: Vec<String>,
    /// The calls of the canary, or of the base VM where there was none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// The requests; none where it does not load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestRecord>,
    /// Counters and gauges of the module at the end, `name: value`. No part of the printed record.
    #[serde(skip)]
    pub metrics: Vec<String>,
    /// The connections, for a network filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionRecord>,
}

/// What became of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionRecord {
    /// Its name.
    pub name: String,
    /// What the client got.
    pub client: ReceivedRecord,
    /// What the upstream got, if a connection reached it.
    pub upstream: Option<ReceivedRecord>,
    /// The calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// The module's lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugin: Vec<String>,
}

/// What an end of a connection got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReceivedRecord {
    /// The bytes as text.
    pub data: String,
    /// Whether it saw the end.
    pub ended: bool,
}

impl ReceivedRecord {
    pub(super) fn of(received: &Received) -> Self {
        Self { data: long_text(&String::from_utf8_lossy(&received.data)), ended: received.ended }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its name.
    pub name: String,
    /// How it was answered.
    pub status: Status,
    /// The answer.
    pub response: Option<MessageRecord>,
    /// What the upstream got, whole.
    pub upstream: Option<UpstreamRecord>,
    /// The calls.
    pub calls: Vec<String>,
    /// The module's lines.
    pub plugin: Vec<String>,
    /// What the access log says: status, details, and bytes in and out. No part of the printed record.
    pub access: Vec<String>,
    /// The parts that are as in the baseline.
    pub same: Same,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// With this status.
    Code(u32),
    /// Not at all: `timeout`, `closed`.
    None(&'static str),
}

/// The answer that the client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord {
    /// Headers in order.
    pub headers: Pairs,
    /// The body as text.
    pub body: String,
    /// Trailers in order.
    pub trailers: Pairs,
}

/// What the upstream got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamRecord {
    /// `GET /`.
    pub line: String,
    /// Headers in order.
    pub headers: Pairs,
    /// The body as text.
    pub body: String,
    /// Trailers in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailers: Pairs,
}

/// Which parts of a request's record are as in the baseline; those print as `=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Same {
    headers: bool,
    body: bool,
    trailers: bool,
    upstream: bool,
}

impl Serialize for RequestRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("status", &self.status)?;
        let Same { headers, body, trailers, upstream } = self.same;
        if let Some(response) = &self.response {
            map.serialize_entry("headers", &Part(&response.headers, headers))?;
            map.serialize_entry("body", &Part(&response.body, body))?;
            if !response.trailers.is_empty() {
                map.serialize_entry("trailers", &Part(&response.trailers, trailers))?;
            }
        }
        map.serialize_entry("upstream", &Part(&self.upstream, upstream))?;
        for (name, lines) in [("calls", &self.calls), ("plugin", &self.plugin)] {
            if !lines.is_empty() {
                map.serialize_entry(name, lines)?;
            }
        }
        map.end()
    }
}

/// A part, and whether it is as in the baseline.
struct Part<'a, T>(&'a T, bool);

impl<T: Serialize> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.1 { serializer.serialize_str("=") } else { self.0.serialize(serializer) }
    }
}

/// The requests or connections without a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Baseline {
    /// The requests.
    pub baseline: Vec<RequestRecord>,
    /// The connections, for network filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionRecord>,
    /// The release of Envoy.
    pub envoy: String,
}

impl Record {
    /// Marks what is as in the baseline.
    pub fn relate(&mut self, baseline: &[RequestRecord]) {
        for request in &mut self.requests {
            let Some(base) = baseline.iter().find(|base| base.name == request.name) else {
                continue;
            };
            let same = |part: fn(&MessageRecord) -> (&Pairs, &str)| {
                request.response.as_ref().map(part) == base.response.as_ref().map(part)
            };
            request.same = Same {
                headers: same(|message| (&message.headers, "")),
                body: request.response.as_ref().map(|m| &m.body)
                    == base.response.as_ref().map(|m| &m.body),
                trailers: same(|message| (&message.trailers, "")),
                upstream: request.upstream == base.upstream,
            };
        }
    }
}

/// The line of a record or baseline.
pub fn line(value: &impl Serialize) -> String {
    crate::exercise::spaced_json(value)
}

/// The class of a refusal and what was refused, by Envoy's own lines.
pub(super) fn reason(log: &[String]) -> (Option<&'static str>, Option<String>) {
    // Each line's text begins as in the table; the first row that fits any line decides.
    for (beginning, class, detail) in REASONS {
        let rest = log.iter().find_map(|line| {
            let (_, text) = line.split_once(": ")?;
            text.strip_prefix(beginning)
        });
        if let Some(rest) = rest {
            let rest = rest.lines().next().unwrap_or_default();
            let detail = match detail {
                Detail::None => None,
                Detail::Rest => Some(rest.to_owned()),
                Detail::Function(name) => Some(format!("{name}: {rest}")),
                Detail::Is(text) => Some((*text).to_owned()),
            };
            return (Some(class), detail);
        }
    }
    (None, None)
}

enum Detail {
    None,
    Rest,
    Function(&'static str),
    Is(&'static str),
}

const CORRUPTED: &str = "Failed to parse corrupted Wasm module";

const REASONS: &[(&str, &str, Detail)] = &[
    ("Caught ", "crash", Detail::None),
    ("Wasm VM failed Missing or unknown Proxy-Wasm ABI version", "abi-unknown", Detail::None),
    ("Wasm VM failed Failed to parse corrupted Wasm module", "corrupt", Detail::Is(CORRUPTED)),
    (
        "Wasm VM failed Failed to load Wasm bytecode",
        "corrupt",
        Detail::Is("Failed to load Wasm bytecode"),
    ),
    ("Failed to load Wasm module due to a missing import: ", "missing-import", Detail::Rest),
    ("Failed to load Wasm module due to an import type mismatch: ", "import-type", Detail::Rest),
    ("Wasm VM failed Wasm module is missing malloc function.", "export-signature", Detail::None),
    ("Bad function signature for: ", "export-signature", Detail::Rest),
    ("Failed to create new Wasm instance", "instantiate", Detail::None),
    ("Function: _initialize failed: ", "start-trap", Detail::Function("_initialize")),
    ("Function: _start failed: ", "start-trap", Detail::Function("_start")),
    ("Function: main failed: ", "start-trap", Detail::Function("main")),
    ("Function: __main_void failed: ", "start-trap", Detail::Function("__main_void")),
    ("Function: proxy_on_context_create failed: ", "context-create-trap", Detail::Rest),
    ("Function: proxy_on_vm_start failed: ", "vm-start-trap", Detail::Rest),
    ("Function: proxy_on_configure failed: ", "configure-trap", Detail::Rest),
    ("Wasm VM failed Failed to start base Wasm", "vm-start-false", Detail::None),
    ("Wasm VM failed Failed to configure base Wasm plugin", "configure-false", Detail::None),
];

/// A call's name as records have it: `on_configure`, `<log`, `<wasi.fd_write`.
pub(super) fn call_name(module: Option<&str>, name: &str) -> String {
    let short = name.strip_prefix("proxy_").unwrap_or(name);
    match module {
        None => short.to_owned(),
        Some("wasi_snapshot_preview1" | "wasi_unstable") => format!("<wasi.{short}"),
        Some(_) => format!("<{short}"),
    }
}

/// A list of calls as records have it.
pub(super) fn shorten_calls(calls: Vec<String>) -> Vec<String> {
    shorten(calls, MAX_CALLS)
}

/// The lines of a module as records have them, each `level: text`.
pub(super) fn module_lines<'a>(lines: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let lines = lines.map(|(level, text)| format!("{level}: {}", cut(&mask(text), MAX_TEXT)));
    shorten(lines.collect(), MAX_LINES)
}

/// A line of Envoy's own, or a body.
pub(super) fn long_text(text: &str) -> String {
    cut(&mask(text), MAX_LONG_TEXT)
}

fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…+{}", &text[..at], text[at..].chars().count()),
    }
}

/// Repeated entries become one with `xN`, and what is beyond the limit is only counted.
fn shorten(lines: Vec<String>, limit: usize) -> Vec<String> {
    let mut runs: Vec<(String, usize)> = Vec::new();
    for line in lines {
        match runs.last_mut() {
            Some((last, count)) if *last == line => *count += 1,
            _ => runs.push((line, 1)),
        }
    }
    let beyond = runs.len().saturating_sub(limit);
    runs.truncate(limit);
    let shown = |(line, count)| if count > 1 { format!("{line} x{count}") } else { line };
    let mut shown: Vec<_> = runs.into_iter().map(shown).collect();
    if beyond > 0 {
        shown.push(format!("…+{beyond}"));
    }
    shown
}

/// What differs from run to run, and what stands for it: `h` is a hexadecimal digit, `d` a decimal one.
const MASKS: &[(&str, &str)] =
    &[("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "<uuid>"), ("dddd-dd-ddTdd:dd:dd", TIME)];

const TIME: &str = "<time>";

/// Headers whose value differs from run to run.
const HEADER_MASKS: &[(&str, &str)] =
    &[("date", "<date>"), ("x-envoy-upstream-service-time", "<ms>")];

fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut rest = 0;
    let mut at = 0;
    while at < bytes.len() {
        let found = MASKS.iter().find(|(pattern, _)| fits(pattern, &bytes[at..]));
        if let Some((pattern, name)) = found {
            out.push_str(&text[rest..at]);
            out.push_str(name);
            at += pattern.len();
            if *name == TIME {
                at += fraction(&bytes[at..]);
            }
            rest = at;
        } else {
            at += 1;
        }
    }
    out.push_str(&text[rest..]);
    out
}

/// How long the fraction of a second is.
fn fraction(bytes: &[u8]) -> usize {
    match bytes.split_first() {
        Some((b'.', digits)) => 1 + digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    }
}

fn fits(pattern: &str, bytes: &[u8]) -> bool {
    bytes.len() >= pattern.len()
        && pattern.bytes().zip(bytes).all(|(pattern, byte)| match pattern {
            b'h' => byte.is_ascii_hexdigit(),
            b'd' => byte.is_ascii_digit(),
            literal => literal == *byte,
        })
}

/// Headers as records have them.
pub(super) fn mask_headers(headers: &Pairs) -> Pairs {
    let masked = |(name, value): &(String, String)| {
        let known = HEADER_MASKS.iter().find(|(masked, _)| masked == name);
        let value = known.map_or_else(|| mask(value), |(_, mask)| (*mask).to_owned());
        (name.clone(), value)
    };
    headers.iter().map(masked).collect()
}

#[cfg(test)]
mod tests {
    use super::{cut, mask, reason, requests, shorten};

    #[test]
    fn there_are_four_requests() {
        let names: Vec<_> = requests().into_iter().map(|request| request.name).collect();
        assert_eq!(names, ["get", "post", "query", "trailers"]);
    }

    #[test]
    fn what_is_random_is_masked() {
        assert_eq!(
            mask("é 01234567-89ab-cdef-0123-456789abcdef, 2025-01-02T03:04:05.678Z"),
            "é <uuid>, <time>Z"
        );
    }

    #[test]
    fn long_lists_and_texts_are_cut() {
        let lines = ["a", "a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(shorten(lines, 2), ["a x2", "b", "…+1"]);
        assert_eq!(cut("äöü", 2), "äö…+1");
    }

    #[test]
    fn the_first_cause_is_the_reason() {
        let log = [
            "error: Function: _start failed: Uncaught Error: restricted_callback\nmore",
            "error: Wasm VM failed Failed to initialize Wasm code",
        ];
        let (class, detail) = reason(&log.map(str::to_owned));
        assert_eq!(class, Some("start-trap"));
        assert_eq!(detail.as_deref(), Some("_start: Uncaught Error: restricted_callback"));
    }
}
