//! The machine-readable result: one object for each image and target. Field names are an API; fields may be
//! added, and `schema` counts up when one changes its meaning.

use std::io;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::{
    abi::FuncType,
    bench::{Phase, PhaseClock, PhaseTime},
    exercise::{ConnectionResult, ExchangeResult, Filter, Message, Received, RootRun},
    host::LogLine,
    image::RuntimeConfig,
    module::ExternKind,
    verdict::{Finding, ImageFacts, ModuleFacts, Rule, Severity, Verdict},
    vm::Compiler,
};

use super::escape::{is_command_anywhere, is_deceptive};

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// How the object is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Indented, for one image.
    Pretty,
    /// On one line, so that several make JSON Lines.
    Line,
}

/// The verdict as JSON, with a line end.
pub fn render(verdict: &Verdict, layout: Layout) -> String {
    to_string(&Report::of(verdict), layout)
}

/// Any value as JSON that is safe to show in a terminal or log, with a line end.
pub fn to_string(value: &impl Serialize, layout: Layout) -> String {
    let mut out = Vec::with_capacity(4096);
    // Writing to memory does not fail, and no map in a report has keys other than strings.
    let _ = match layout {
        Layout::Pretty => {
            let formatter = Shown(PrettyFormatter::new());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
        Layout::Line => {
            let formatter = Shown(CompactFormatter);
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
    };
    out.push(b'\n');
    String::from_utf8(out).unwrap_or_default()
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    reference: &'a str,
    target: &'a str,
    envoy: String,
    /// Left out for the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'static str>,
    verdict: &'static str,
    loads: Option<bool>,
    envoy_class: Option<&'static str>,
    compiler: Option<&'static str>,
    image: Option<ImageJson<'a>>,
    module: Option<ModuleJson<'a>>,
    findings: Vec<FindingJson<'a>>,
    base_logs: Vec<LogJson<'a>>,
    roots: Vec<RootJson<'a>>,
    load: Load,
}

impl<'a> Report<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        Self {
            schema: SCHEMA,
            reference: &verdict.reference,
            target: verdict.target.name(),
            envoy: verdict.target.envoy_name(),
            filter: (verdict.filter != Filter::Http).then(|| verdict.filter.as_str()),
            verdict: verdict.outcome.as_str(),
            loads: verdict.loads,
            envoy_class: verdict.envoy_class,
            compiler: verdict.compiler.map(Compiler::as_str),
            image: verdict.image.as_ref().map(ImageJson::of),
            module: verdict.module.as_ref().map(ModuleJson::of),
            findings: verdict.findings.iter().map(FindingJson::of).collect(),
            base_logs: logs(&verdict.base_logs),
            roots: verdict.roots.iter().map(RootJson::of).collect(),
            load: Load::of(&verdict.phases),
        }
    }
}

#[derive(Serialize)]
struct ImageJson<'a> {
    digest: Option<&'a str>,
    shape: &'static str,
    runtime_config: Option<RuntimeConfigJson<'a>>,
}

#[derive(Serialize)]
pub(super) struct RuntimeConfigJson<'a> {
    r#type: Option<&'a str>,
    abi_versions: &'a [String],
    root_ids: &'a [String],
}

impl<'a> ImageJson<'a> {
    fn of(image: &'a ImageFacts) -> Self {
        Self {
            digest: image.manifest_digest.as_deref(),
            shape: image.shape,
            runtime_config: image.runtime_config.as_ref().map(RuntimeConfigJson::of),
        }
    }
}

impl<'a> RuntimeConfigJson<'a> {
    pub(super) fn of(config: &'a RuntimeConfig) -> Self {
        Self {
            r#type: config.r#type.as_deref(),
            abi_versions: &config.abi_versions,
            root_ids: &config.root_ids,
        }
    }
}

#[derive(Serialize)]
struct ModuleJson<'a> {
    sha256: &'a str,
    size: u64,
    abi: Option<&'static str>,
    language: Option<&'static str>,
    toolchain: Option<&'a str>,
    functions: u32,
    code_bytes: u64,
    imports: Vec<ExternJson<'a>>,
    exports: Vec<ExternJson<'a>>,
}

#[derive(Serialize)]
struct ExternJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    name: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
}

impl<'a> ModuleJson<'a> {
    fn of(module: &'a ModuleFacts) -> Self {
        Self {
            sha256: &module.sha256,
            size: module.size,
            abi: module.abi,
            language: module.language,
            toolchain: module.toolchain.as_deref(),
            functions: module.functions,
            code_bytes: module.code_bytes,
            imports: module
                .imports
                .iter()
                .map(|import| ExternJson::of(Some(&import.module), &import.name, &import.kind))
                .collect(),
            exports: module
                .exports
                .iter()
                .map(|export| ExternJson::of(None, &export.name, &export.kind))
                .collect(),
        }
    }
}

impl<'a> ExternJson<'a> {
    fn of(module: Option<&'a str>, name: &'a str, kind: &ExternKind) -> Self {
        Self { module, name, kind: kind.keyword(), r#type: kind.func().map(FuncType::to_string) }
    }
}

#[derive(Serialize)]
pub(super) struct FindingJson<'a> {
    rule: &'static str,
    severity: Severity,
    message: &'a str,
    envoy_message: Option<String>,
    root_id: Option<&'a str>,
    help: Option<&'a str>,
    evidence: &'a [String],
}

impl<'a> FindingJson<'a> {
    pub(super) fn of(finding: &'a Finding) -> Self {
        let lines = &finding.envoy_messages;
        Self {
            rule: finding.rule.name(),
            severity: finding.severity,
            message: &finding.message,
            envoy_message: (!lines.is_empty()).then(|| lines.join("\n")),
            root_id: finding.root_id.as_deref(),
            help: finding.help.as_deref(),
            evidence: &finding.evidence,
        }
    }
}

#[derive(Serialize)]
struct RootJson<'a> {
    root_id: &'a str,
    outcome: &'static str,
    accepted: bool,
    peak_memory_bytes: usize,
    logs: Vec<LogJson<'a>>,
    idle_logs: Vec<LogJson<'a>>,
    exchanges: Vec<ExchangeJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connections: Vec<ConnectionJson<'a>>,
    load: Load,
}

impl<'a> RootJson<'a> {
    fn of(root: &'a RootRun) -> Self {
        Self {
            root_id: &root.root_id,
            outcome: root.outcome.map_or("ok", Rule::name),
            accepted: root.accepted,
            peak_memory_bytes: root.peak_memory_bytes,
            logs: logs(&root.logs),
            idle_logs: logs(&root.idle_logs),
            exchanges: root.exchanges.iter().map(ExchangeJson::of).collect(),
            connections: root.connections.iter().map(ConnectionJson::of).collect(),
            load: Load::of(&root.phases),
        }
    }
}

#[derive(Serialize)]
struct LogJson<'a> {
    level: &'static str,
    message: &'a str,
}

fn logs(lines: &[LogLine]) -> Vec<LogJson<'_>> {
    lines
        .iter()
        .map(|line| LogJson { level: line.level.as_str(), message: &line.message })
        .collect()
}

type Pairs = [(String, String)];

#[derive(Serialize)]
struct ExchangeJson<'a> {
    name: &'a str,
    response: Option<ResponseJson<'a>>,
    upstream: Option<MessageJson<'a>>,
    logs: Vec<LogJson<'a>>,
}

#[derive(Serialize)]
struct ResponseJson<'a> {
    status: u32,
    #[serde(flatten)]
    message: MessageJson<'a>,
}

#[derive(Serialize)]
struct MessageJson<'a> {
    headers: &'a Pairs,
    body_b64: String,
    trailers: &'a Pairs,
}

impl<'a> MessageJson<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            headers: &message.headers,
            body_b64: BASE64_STANDARD.encode(&message.body),
            trailers: &message.trailers,
        }
    }
}

impl<'a> ExchangeJson<'a> {
    fn of(exchange: &'a ExchangeResult) -> Self {
        Self {
            name: &exchange.name,
            response: exchange.response.as_ref().map(|response| ResponseJson {
                status: response.status,
                message: MessageJson::of(&response.message),
            }),
            upstream: exchange.upstream.as_ref().map(MessageJson::of),
            logs: logs(&exchange.logs),
        }
    }
}

#[derive(Serialize)]
struct ConnectionJson<'a> {
    name: &'a str,
    client: ReceivedJson,
    upstream: Option<ReceivedJson>,
    closed_by_filter: bool,
    logs: Vec<LogJson<'a>>,
}

/// What an end of a connection got.
#[derive(Serialize)]
struct ReceivedJson {
    data_b64: String,
    ended: bool,
}

impl ReceivedJson {
    fn of(received: &Received) -> Self {
        Self { data_b64: BASE64_STANDARD.encode(&received.data), ended: received.ended }
    }
}

impl<'a> ConnectionJson<'a> {
    fn of(connection: &'a ConnectionResult) -> Self {
        Self {
            name: &connection.name,
            client: ReceivedJson::of(&connection.client),
            upstream: connection.upstream.as_ref().map(ReceivedJson::of),
            closed_by_filter: connection.closed_by_filter,
            logs: logs(&connection.logs),
        }
    }
}

#[derive(Serialize)]
struct Load {
    phases: Vec<PhaseJson>,
}

#[derive(Serialize)]
struct PhaseJson {
    name: &'static str,
    wall_ns: u64,
    cpu_ns: u64,
    fuel: Option<u64>,
}

impl Load {
    fn of(phases: &PhaseClock) -> Self {
        let phase = |(phase, time): (Phase, PhaseTime)| PhaseJson {
            name: phase.as_str(),
            wall_ns: time.wall_ns,
            cpu_ns: time.cpu_ns,
            // The gate's engine does not count fuel.
            fuel: None,
        };
        Self { phases: phases.iter().map(phase).collect() }
    }
}

/// Escapes in strings what JSON itself would leave as it is and what should not reach a terminal or
/// CI log: a reader of the JSON gets the same text.
struct Shown<F>(F);

/// Passes a method on.
macro_rules! forward {
    ($($method:ident($($arg:ident: $ty:ty),*);)*) => {
        $(fn $method<W: ?Sized + io::Write>(&mut self, writer: &mut W, $($arg: $ty),*) -> io::Result<()> {
            self.0.$method(writer, $($arg),*)
        })*
    };
}

impl<F: Formatter> Formatter for Shown<F> {
    forward! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        for (at, c) in fragment.char_indices() {
            let command = c == '#' && is_command_anywhere(&fragment[at..]);
            if !command && !is_deceptive(c) {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[written..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_survive_and_are_safe(text in any::<String>(), tail in "(##\\[x\\]|\u{202e}|\u{9b}|\u{e0041}|\\\\|\")*") {
            let text = format!("{text}{tail}");
            let json = to_string(&text, Layout::Line);
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            let line = json.strip_suffix('\n').unwrap();
            prop_assert!(!line.chars().any(is_deceptive), "{line:?}");
            prop_assert!(!line.contains("##["), "{line:?}");
        }
    }

    #[test]
    fn layouts() {
        let value = serde_json::json!({"a": [1, {"b": null}], "c": {}});
        assert_eq!(to_string(&value, Layout::Line), "{\"a\":[1,{\"b\":null}],\"c\":{}}\n");
        let pretty = to_string(&value, Layout::Pretty);
        assert_eq!(pretty, serde_json::to_string_pretty(&value).unwrap() + "\n");
    }
}
