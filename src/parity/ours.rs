//! The record of filtergate.

use crate::{
    CheckOptions,
    exercise::{Connection, ExchangeResult, Filter, Message, RootRun, Step, TraceStage},
    host::{CallDirection, CallOutcome, LogLevel, LogLine, TracedCall},
    image::Image,
    verdict::{Finding, Rule, Severity, Verdict},
};

use super::{
    http1::Pairs,
    record::{
        Baseline, ConnectionRecord, MessageRecord, ReceivedRecord, Record, RequestRecord, Same,
        Status, UpstreamRecord, call_name, connections, long_text, mask_headers, module_lines,
        reason, requests, shorten_calls,
    },
};

/// How a record is made: one root_id, the requests and connections of records, and a trace.
#[must_use]
pub fn options(mut options: CheckOptions, root_id: &str) -> CheckOptions {
    options.root_ids = vec![root_id.to_owned()];
    options.exchanges = requests();
    options.connections = connections();
    options.controls = false;
    options.vm.trace = true;
    // Envoy logs every call only at this level.
    options.environment.log_level = LogLevel::Trace;
    options
}

/// A filter without callbacks.
const NOOP: &[u8] = include_bytes!("../../filters/prebuilt/noop.wasm");

/// The requests or connections without a filter. Here that is one that does nothing.
pub fn baseline_here(options: &CheckOptions) -> Baseline {
    let image = Image::of_module("noop", NOOP.to_vec());
    let mut record = ours(&crate::judge(&image, options));
    for request in &mut record.requests {
        request.calls.clear();
        request.plugin.clear();
    }
    for connection in &mut record.connections {
        connection.calls.clear();
    }
    let Record { requests: baseline, connections, .. } = record;
    Baseline { baseline, connections, envoy: options.target.to_string() }
}

/// What filtergate found out under [`options`].
pub fn ours(verdict: &Verdict) -> Record {
    let root = verdict.roots.first();
    let loads = verdict.loads;
    let log = if loads == Some(false) { own_lines(&verdict.findings) } else { Vec::new() };
    let (class, detail) = match verdict.envoy_class {
        _ if loads != Some(false) => (None, None),
        Some("hang") => (Some("hang"), None),
        known => {
            let (class, detail) = reason(&log);
            (known.or(class), detail)
        }
    };
    let canary = section(root, &TraceStage::Canary);
    let loading = if canary.is_empty() { &verdict.base_trace } else { canary };
    let logs = root.map_or(&[][..], |root| &root.logs);
    Record {
        sha256: verdict.module.as_ref().map(|module| module.sha256.clone()).unwrap_or_default(),
        path: verdict.reference.clone(),
        filter: verdict.filter.as_str(),
        root_id: root.map(|root| root.root_id.clone()).unwrap_or_default(),
        loads,
        reason: class,
        detail,
        log,
        plugin: of_module(&verdict.base_logs, logs),
        calls: calls(loading),
        requests: request_records(verdict, root),
        connections: connection_records(verdict, root),
        metrics: root.map(|root| root.metrics.clone()).unwrap_or_default(),
    }
}

/// Whether Envoy goes on after all that was run here: only a VM that has failed ends a run early.
fn goes_on(verdict: &Verdict) -> bool {
    let ends = |rule: &Rule| verdict.findings.iter().any(|finding| finding.rule == *rule);
    let hazards = [Rule::HazardCrashesEnvoy, Rule::HazardHangsEnvoy, Rule::RunTimeout];
    !verdict.undecided && !hazards.iter().any(ends)
}

fn connection_records(verdict: &Verdict, root: Option<&RootRun>) -> Vec<ConnectionRecord> {
    let (Some(true), Some(root), Filter::Network) = (verdict.loads, root, verdict.filter) else {
        return Vec::new();
    };
    let ran = root.connections.iter().map(|connection| ConnectionRecord {
        name: connection.name.clone(),
        client: ReceivedRecord::of(&connection.client),
        upstream: connection.upstream.as_ref().map(ReceivedRecord::of),
        calls: calls(section(Some(root), &TraceStage::Connection(connection.name.clone()))),
        plugin: of_module(&[], &connection.logs),
    });
    let mut records: Vec<_> = ran.collect();
    let hangs = verdict.findings.iter().any(|finding| finding.rule == Rule::RunTimeout);
    if hangs || goes_on(verdict) {
        let further = connections();
        let further = further.iter().skip(records.len());
        records.extend(further.map(|connection| not_served(connection, hangs)));
    }
    records
}

/// What becomes of a connection whose VM failed before: it is closed, or waits for a worker that hangs.
fn not_served(connection: &Connection, hangs: bool) -> ConnectionRecord {
    let ended = !hangs || connection.steps.contains(&Step::ClientResets);
    ConnectionRecord {
        name: connection.name.clone(),
        client: ReceivedRecord { ended, ..ReceivedRecord::default() },
        upstream: None,
        calls: Vec::new(),
        plugin: Vec::new(),
    }
}

fn request_records(verdict: &Verdict, root: Option<&RootRun>) -> Vec<RequestRecord> {
    let (Some(true), Some(root), Filter::Http) = (verdict.loads, root, verdict.filter) else {
        return Vec::new();
    };
    let mut records: Vec<_> =
        root.exchanges.iter().map(|exchange| our_request(exchange, Some(root))).collect();
    let crashes = verdict.findings.iter().any(|f| f.rule == Rule::HazardCrashesEnvoy);
    if let Some(last) = records.last_mut().filter(|_| crashes) {
        // What Envoy had written by then had not left yet.
        (last.status, last.response) = (Status::None("closed"), None);
    }
    records
}

fn section<'a>(root: Option<&'a RootRun>, stage: &TraceStage) -> &'a [TracedCall] {
    let section = root.and_then(|root| root.trace.iter().find(|section| section.stage == *stage));
    section.map_or(&[], |section| &section.calls)
}

fn of_module(base: &[LogLine], logs: &[LogLine]) -> Vec<String> {
    module_lines(base.iter().chain(logs).map(|line| {
        let level = if line.level == LogLevel::Warn { "warning" } else { line.level.as_str() };
        (level, line.message.as_str())
    }))
}

/// Envoy's lines for why it refuses the module. It stops at the first missing import and goes on
/// behind a wrong type of an export.
fn own_lines(findings: &[Finding]) -> Vec<String> {
    let mut errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let Some(first) = errors.next() else { return Vec::new() };
    let class = first.rule.envoy_class();
    let goes_on = class == Some("export-signature");
    let more = errors.filter(|error| goes_on && error.rule.envoy_class() == class);
    let mut entries: Vec<String> = Vec::new();
    for line in std::iter::once(first).chain(more).flat_map(|error| &error.envoy_messages) {
        match entries.last_mut() {
            Some(entry) if line.starts_with("Proxy-Wasm plugin in-VM") || line.starts_with(' ') => {
                entry.push('\n');
                entry.push_str(line);
            }
            _ => entries.push(line.clone()),
        }
    }
    let level = if class == Some("crash") { "critical" } else { "error" };
    let last = LAST_LINES.iter().find(|(of, _)| class == Some(of)).map(|(_, line)| *line);
    // Of an empty file Envoy says nothing at all.
    entries
        .extend(last.filter(|line| entries.last().is_some_and(|l| l != line)).map(str::to_owned));
    entries.iter().map(|entry| format!("{level}: {}", long_text(entry))).collect()
}

/// What Envoy logs last, behind the reason.
const LAST_LINES: &[(&str, &str)] = &[
    ("abi-unknown", "Wasm VM failed Failed to load Wasm code"),
    ("corrupt", "Wasm VM failed Failed to load Wasm code"),
    ("missing-import", "Wasm VM failed Failed to initialize Wasm code"),
    ("import-type", "Wasm VM failed Failed to initialize Wasm code"),
    ("export-signature", "Wasm VM failed Failed to initialize Wasm code"),
    ("instantiate", "Wasm VM failed Failed to initialize Wasm code"),
];

fn calls(calls: &[TracedCall]) -> Vec<String> {
    let shown = calls.iter().map(|call| {
        let name = match call.direction {
            CallDirection::GuestToHost => call_name(call.module, call.name),
            CallDirection::HostToGuest => {
                let words: Vec<_> = call.words.iter().map(u64::to_string).collect();
                format!("{}({})", call_name(None, call.name), words.join(","))
            }
        };
        match call.outcome {
            CallOutcome::NotReturned => format!("{name}=!"),
            CallOutcome::Returned(None) => name,
            CallOutcome::Returned(Some(result)) => format!("{name}={result}"),
        }
    });
    shorten_calls(shown.collect())
}

/// What became of an exchange here.
pub fn our_request(exchange: &ExchangeResult, root: Option<&RootRun>) -> RequestRecord {
    let text = |body: &[u8]| long_text(&String::from_utf8_lossy(body));
    let response = exchange.response.as_ref();
    RequestRecord {
        name: exchange.name.clone(),
        status: match response {
            Some(response) => Status::Code(response.status),
            None if exchange.closed => Status::None("closed"),
            None => Status::None("timeout"),
        },
        response: response.map(|response| MessageRecord {
            headers: mask_headers(&answer_headers(&response.message, exchange.closes)),
            body: text(&response.message.body),
            trailers: mask_headers(&response.message.trailers),
        }),
        upstream: exchange.upstream.as_ref().filter(|_| exchange.reached_upstream).map(|request| {
            let pseudo = |name| request.header(name).unwrap_or_default();
            UpstreamRecord {
                line: format!("{} {}", pseudo(":method"), pseudo(":path")),
                headers: mask_headers(&wire_headers(request)),
                body: text(&request.body),
                trailers: mask_headers(&request.trailers),
            }
        }),
        calls: calls(section(root, &TraceStage::Exchange(exchange.name.clone()))),
        plugin: of_module(&[], &exchange.logs),
        access: exchange.access.iter().map(ToString::to_string).collect(),
        same: Same::default(),
    }
}

/// Headers as an HTTP/1.1 peer sees them.
fn wire_headers(message: &Message) -> Pairs {
    let headers = message.headers.iter().filter_map(|(name, value)| {
        let name = if name == ":authority" { "host" } else { name };
        (!name.starts_with(':')).then(|| (name.to_owned(), value.clone()))
    });
    headers.collect()
}

/// The headers of an answer with those that Envoy adds behind all filters, in front of the codec's own.
fn answer_headers(message: &Message, closes: bool) -> Pairs {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = wire_headers(message);
    headers.retain(|(name, _)| name != "date" && name != "server");
    let framing = headers.pop_if(|(name, value)| {
        name == "transfer-encoding" || name == "content-length" && value == "0"
    });
    headers.push(pair("date", ""));
    headers.push(pair("server", "envoy"));
    if closes {
        headers.push(pair("connection", "close"));
    }
    headers.extend(framing);
    headers
}
