//! The record of a real Envoy.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
};

use crate::exercise::{Exchange, Filter};

use super::{
    ANSWER_LIMIT, ParityError,
    envoy::{Envoy, Exchanged, Setup},
    log::{Entry, calls},
    record::{
        Baseline, ConnectionRecord, MessageRecord, ReceivedRecord, Record, RequestRecord, Same,
        Status, UpstreamRecord, connections, long_text, mask_headers, module_lines, reason,
        shorten_calls,
    },
    upstream::request_line,
};

/// Most bytes read of what a binary says of its version.
const MAX_VERSION: u64 = 4096;

/// The release that a binary says it is: `1.40.0`.
///
/// # Errors
///
/// Where it does not run, or is no Envoy.
pub fn release(binary: &Path) -> Result<String, ParityError> {
    let failed = |source| ParityError::Binary { binary: binary.to_owned(), source };
    let mut child = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // It may be any program: one that never ends, or that prints without end.
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = stdout.take(MAX_VERSION).read_to_end(&mut text);
            let _ = sender.send(read.map(|_| text));
        });
    }
    let text = receiver.recv_timeout(ANSWER_LIMIT);
    let _ = child.kill();
    let _ = child.wait();
    let text = text.map_err(std::io::Error::other).map_err(failed)?.map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    // `…/envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL`
    let build = text.split_once("version: ").map(|(_, build)| build);
    let release = build.and_then(|build| build.split('/').nth(1));
    release
        .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .ok_or_else(|| ParityError::NotEnvoy { binary: binary.to_owned() })
}

/// The requests or connections through an Envoy without a Wasm filter.
///
/// # Errors
///
/// Where Envoy does not start.
pub fn baseline(
    binary: &Path,
    filter: Filter,
    exchanges: &[Exchange],
) -> Result<Baseline, ParityError> {
    let release = release(binary)?;
    let http2 = exchanges.iter().any(Exchange::is_http2);
    let mut envoy =
        Envoy::start(binary, &Setup { filter, http2, trace: true, ..Setup::default() })?;
    if !envoy.loads() {
        let reason = envoy.entries(0).pop().map(|entry| entry.text).unwrap_or_default();
        return Err(ParityError::NoStart { reason });
    }
    let (baseline, connections) = run(&mut envoy, filter, exchanges);
    Ok(Baseline { baseline, connections, envoy: release })
}

/// Runs a module in a real Envoy.
///
/// # Errors
///
/// Where Envoy cannot be run. One that refuses the module, hangs or crashes is a record.
pub fn theirs(binary: &Path, setup: &Setup, exchanges: &[Exchange]) -> Result<Record, ParityError> {
    let mut envoy = Envoy::start(binary, &Setup { trace: true, ..setup.clone() })?;
    let entries = envoy.entries(0);
    let loads = envoy.loads();
    let instances = Instances::of(&entries);
    let mut log = own_lines(instances.until_canary_ends);
    if loads {
        log.clear();
    }
    let (class, detail) = match loads {
        true => (None, None),
        false if envoy.hangs() => (Some("hang"), None),
        false => match reason(&log) {
            (None, _) if !exits(&entries) => (Some("crash"), None),
            (None, _) if refuses_plugin(&entries) => (Some("corrupt"), None),
            known => known,
        },
    };
    if !loads && class.is_none() {
        let reason = entries.last().map(|entry| entry.text.clone()).unwrap_or_default();
        return Err(ParityError::NoStart { reason });
    }
    let (requests, connections) =
        if loads { run(&mut envoy, setup.filter, exchanges) } else { (Vec::new(), Vec::new()) };
    Ok(Record {
        root_id: setup.plugin.root_id.clone(),
        filter: setup.filter.as_str(),
        loads: Some(loads),
        reason: class,
        detail,
        log,
        plugin: of_module(instances.until_canary_ends),
        calls: shorten_calls(calls(instances.canary)),
        requests,
        connections,
        metrics: if loads { envoy.metrics() } else { Vec::new() },
        ..Record::default()
    })
}

/// Whether Envoy ends in good order.
fn exits(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.logger == "main" && entry.text.starts_with("exiting"))
}

/// Whether it is the plugin that Envoy does not take. Of an empty file it says nothing else.
fn refuses_plugin(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.logger == "wasm" && entry.text.starts_with("Plugin "))
}

/// Where in the log of a load the instances are.
struct Instances<'a> {
    /// The canary, or the base VM where there was none.
    canary: &'a [Entry],
    /// Everything up to the end of the canary.
    until_canary_ends: &'a [Entry],
}

impl<'a> Instances<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let begins = |entry: &Entry| {
            entry.logger == "wasm"
                && entry.level == "debug"
                && ["Base Wasm created", "Thread-Local Wasm created"]
                    .iter()
                    .any(|line| entry.text.starts_with(line))
        };
        let mut begun = entries.iter().enumerate().filter(|(_, entry)| begins(entry));
        let base = begun.next().map_or(0, |(at, _)| at);
        let canary = begun.next().map_or(base, |(at, _)| at);
        let end = begun.next().map_or(entries.len(), |(at, _)| at);
        Self { canary: &entries[canary..end], until_canary_ends: &entries[..end] }
    }
}

/// Lines that Envoy itself logs as errors of the Wasm extension, and of its own crash.
fn own_lines(entries: &[Entry]) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in entries {
        let of_wasm =
            entry.logger == "wasm" && entry.level == "error" && entry.of_module().is_none();
        // The engine's last words come without a level, behind whatever was logged before.
        if let Some((_, fatal)) = entry.text.split_once("\n# Fatal error") {
            let words = format!("# Fatal error{fatal}");
            let words = words.lines().filter(|line| line.starts_with("# "));
            lines.extend(words.map(|line| format!("critical: {line}")));
        }
        if of_wasm || entry.logger == "backtrace" && entry.text.starts_with("Caught ") {
            lines.push(format!("{}: {}", entry.level, long_text(&entry.text)));
        }
    }
    lines
}

fn of_module(entries: &[Entry]) -> Vec<String> {
    let lines = entries.iter().filter_map(|entry| Some((entry.level.as_str(), entry.of_module()?)));
    module_lines(lines)
}

/// The requests, or the connections.
fn run(
    envoy: &mut Envoy,
    filter: Filter,
    exchanges: &[Exchange],
) -> (Vec<RequestRecord>, Vec<ConnectionRecord>) {
    match filter {
        Filter::Http => (run_requests(envoy, exchanges), Vec::new()),
        Filter::Network => (Vec::new(), run_connections(envoy)),
    }
}

fn run_connections(envoy: &mut Envoy) -> Vec<ConnectionRecord> {
    let mut records = Vec::new();
    for connection in connections() {
        envoy.rest();
        let begun = envoy.log_count();
        let Ok(connected) = envoy.connection(&connection) else { break };
        let entries = envoy.entries(begun);
        records.push(ConnectionRecord {
            name: connected.name,
            client: ReceivedRecord::of(&connected.client),
            upstream: connected.upstream.as_ref().map(ReceivedRecord::of),
            calls: shorten_calls(calls(&entries)),
            plugin: of_module(&entries),
        });
        if envoy.has_ended() {
            break;
        }
    }
    records
}

fn run_requests(envoy: &mut Envoy, exchanges: &[Exchange]) -> Vec<RequestRecord> {
    let mut records = Vec::new();
    envoy.rest();
    for exchange in exchanges {
        let begun = envoy.log_count();
        let exchanged = envoy.exchange(exchange);
        envoy.rest();
        records.push(their_request(exchanged, &envoy.entries(begun)));
        if envoy.has_ended() {
            break;
        }
    }
    records
}

/// What became of an exchange through Envoy, which logged `entries` meanwhile.
pub fn their_request(exchanged: Exchanged, entries: &[Entry]) -> RequestRecord {
    let code = exchanged.response.as_ref().and_then(super::http1::Message::status);
    let text = |body: &[u8]| long_text(&String::from_utf8_lossy(body));
    RequestRecord {
        name: exchanged.name,
        status: match code {
            Some(code) => Status::Code(code),
            None if exchanged.timed_out => Status::None("timeout"),
            None => Status::None("closed"),
        },
        response: exchanged.response.map(|response| MessageRecord {
            headers: mask_headers(&response.headers),
            body: text(&response.body),
            trailers: mask_headers(&response.trailers),
        }),
        upstream: exchanged.upstream.iter().find(|request| !is_a_call(request)).map(|request| {
            UpstreamRecord {
                line: request_line(request).to_owned(),
                headers: mask_headers(&request.headers),
                body: text(&request.body),
                trailers: mask_headers(&request.trailers),
            }
        }),
        calls: shorten_calls(calls(entries)),
        plugin: of_module(entries),
        access: entries
            .iter()
            .filter(|entry| entry.logger == "access")
            .map(|entry| entry.text.clone())
            .collect(),
        same: Same::default(),
    }
}

/// Whether a request is a module's own call, and not the client's.
fn is_a_call(request: &super::http1::Message) -> bool {
    request.header("x-envoy-internal") == Some("true")
}
