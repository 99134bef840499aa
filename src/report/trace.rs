//! A trace of calls across the boundary, as text and as JSON lines, in the order in which Envoy's
//! `wasm:trace` log begins them.

use serde::Serialize;

use crate::{
    abi::Status,
    exercise::TraceStage,
    host::{CallDirection, CallOutcome, Decoded, TracedCall, TracedValue},
    verdict::Verdict,
};

use super::{
    escape::escape,
    json::{self, Layout},
    units,
};

/// Sections of a verdict's trace: the root_id (none for the base VM), the stage and its calls.
fn sections(verdict: &Verdict) -> Vec<(Option<&str>, String, &[TracedCall])> {
    let mut sections = Vec::new();
    if !verdict.base_trace.is_empty() {
        sections.push((None, "base".to_owned(), verdict.base_trace.as_slice()));
    }
    for root in &verdict.roots {
        for section in &root.trace {
            let stage = match &section.stage {
                TraceStage::Canary => "canary".to_owned(),
                TraceStage::Worker => "worker".to_owned(),
                TraceStage::Exchange(name) => format!("exchange {name}"),
                TraceStage::Connection(name) => format!("connection {name}"),
                TraceStage::End => "end".to_owned(),
            };
            sections.push((Some(root.root_id.as_str()), stage, section.calls.as_slice()));
        }
    }
    sections
}

/// A line for each call: when it began, what it was, what came back and how long it took.
pub fn render_text(verdict: &Verdict) -> String {
    let mut out = String::new();
    for (root_id, stage, calls) in sections(verdict) {
        let place = match root_id {
            None => stage,
            Some("") => format!("(the empty root_id), {stage}"),
            Some(root_id) => format!("`{root_id}`, {stage}"),
        };
        out.push_str(&format!("trace   {}\n", escape(&place)));
        for call in calls {
            out.push_str(&line(call));
            out.push('\n');
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

fn line(call: &TracedCall) -> String {
    let arrow = match call.direction {
        CallDirection::HostToGuest => "->",
        CallDirection::GuestToHost => "<-",
    };
    let indent = "  ".repeat(call.depth);
    let module = match call.module {
        Some(module) if module != "env" => format!("{module}."),
        _ => String::new(),
    };
    let mut text = format!(
        "{:>9}  {indent}{arrow} {module}{}({})",
        units::time(call.begun_ns),
        call.name,
        values(&call.arguments)
    );
    match call.outcome {
        CallOutcome::NotReturned => text.push_str(" did not return"),
        CallOutcome::Returned(None) => {}
        CallOutcome::Returned(Some(code)) => text.push_str(&format!(" = {}", result(call, code))),
    }
    if !call.results.is_empty() {
        text.push_str(&format!(", {}", values(&call.results)));
    }
    if matches!(call.outcome, CallOutcome::Returned(_)) {
        text.push_str(&format!("  [{}]", units::time(call.took_ns)));
    }
    text
}

/// A result code by its name where it has one.
fn result(call: &TracedCall, code: u32) -> String {
    let named = call.direction == CallDirection::GuestToHost && call.name != "pthread_equal";
    match Status::from_code(code).filter(|_| named && call.module == Some("env")) {
        Some(status) => format!("{status:?}"),
        None => code.to_string(),
    }
}

fn values(values: &[TracedValue]) -> String {
    let shown: Vec<_> =
        values.iter().map(|value| format!("{}={}", value.name, decoded(&value.value))).collect();
    shown.join(", ")
}

fn decoded(value: &Decoded) -> String {
    match value {
        Decoded::Number(number) => number.to_string(),
        Decoded::Signed(number) => number.to_string(),
        Decoded::Flag(yes) => yes.to_string(),
        Decoded::Name(name) => (*name).to_owned(),
        Decoded::Bytes(bytes, all) => cut(text(bytes), bytes.len(), *all, "bytes"),
        Decoded::Path(parts) => {
            parts.iter().map(|part| escaped(part)).collect::<Vec<_>>().join(".")
        }
        Decoded::Pairs(pairs, all) => {
            let shown: Vec<_> = pairs
                .iter()
                .map(|(name, value)| format!("{}: {}", escaped(name), text(value)))
                .collect();
            cut(format!("{{{}}}", shown.join(", ")), pairs.len(), *all, "pairs")
        }
        Decoded::Invalid => "(not in the module's memory)".to_owned(),
    }
}

fn cut(shown: String, kept: usize, all: usize, what: &str) -> String {
    if kept == all { shown } else { format!("{shown}… ({all} {what})") }
}

fn escaped(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes)).into_owned()
}

fn text(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes))
}

/// One call as JSON.
#[derive(Serialize)]
struct CallJson<'a> {
    reference: &'a str,
    root_id: Option<&'a str>,
    stage: &'a str,
    direction: &'static str,
    depth: usize,
    module: Option<&'static str>,
    name: &'static str,
    words: &'a [u64],
    arguments: serde_json::Map<String, serde_json::Value>,
    returned: bool,
    result: Option<u32>,
    results: serde_json::Map<String, serde_json::Value>,
    begun_ns: u64,
    took_ns: u64,
}

/// A JSON object for each call, one a line.
pub fn render_json(verdict: &Verdict) -> String {
    let mut out = String::new();
    for (root_id, stage, calls) in sections(verdict) {
        for call in calls {
            let (returned, result) = match call.outcome {
                CallOutcome::NotReturned => (false, None),
                CallOutcome::Returned(result) => (true, result),
            };
            let line = CallJson {
                reference: &verdict.reference,
                root_id,
                stage: &stage,
                direction: match call.direction {
                    CallDirection::HostToGuest => "host-to-guest",
                    CallDirection::GuestToHost => "guest-to-host",
                },
                depth: call.depth,
                module: call.module,
                name: call.name,
                words: &call.words,
                arguments: values_json(&call.arguments),
                returned,
                result,
                results: values_json(&call.results),
                begun_ns: call.begun_ns,
                took_ns: call.took_ns,
            };
            out.push_str(&json::to_string(&line, Layout::Line));
        }
    }
    out
}

fn values_json(values: &[TracedValue]) -> serde_json::Map<String, serde_json::Value> {
    values.iter().map(|value| (value.name.to_owned(), value_json(&value.value))).collect()
}

/// Bytes that are no UTF-8 lose what is none; `words` says where the module has them.
fn value_json(value: &Decoded) -> serde_json::Value {
    let text = |bytes: &[u8]| serde_json::Value::from(String::from_utf8_lossy(bytes).into_owned());
    match value {
        Decoded::Number(number) => (*number).into(),
        Decoded::Signed(number) => (*number).into(),
        Decoded::Flag(yes) => (*yes).into(),
        Decoded::Name(name) => (*name).into(),
        Decoded::Bytes(bytes, _) => text(bytes),
        Decoded::Path(parts) => parts.iter().map(|part| text(part)).collect(),
        Decoded::Pairs(pairs, _) => pairs
            .iter()
            .map(|(name, value)| serde_json::Value::from(vec![text(name), text(value)]))
            .collect(),
        Decoded::Invalid => serde_json::Value::Null,
    }
}
