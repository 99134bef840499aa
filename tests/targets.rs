//! Several targets at once, and what a filter sees of the release that it runs in.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use filtergate::{
    CheckOptions, Judge,
    image::{self, Image, NoProgress, Source},
    parity::{self, Envoy, Setup},
    report::json::{self, Layout},
    target::Target,
    verdict::Verdict,
};

fn image(path: &std::path::Path) -> Image {
    let source = Source::parse(path.to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let options = CheckOptions::default().fetch;
    runtime.block_on(image::fetch(&source, "filter.wasm", &options, &NoProgress)).unwrap()
}

fn image_of(wat: &str) -> Image {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("filter.wasm");
    std::fs::write(&path, wat::parse_str(wat).unwrap_or_else(|e| panic!("{e}\n{wat}"))).unwrap();
    image(&path)
}

fn options(target: &str) -> CheckOptions {
    CheckOptions {
        target: target.parse().unwrap_or_else(|error| panic!("{error}")),
        ..CheckOptions::default()
    }
}

/// The report without what differs from run to run.
fn report(verdict: &Verdict) -> serde_json::Value {
    let mut report: serde_json::Value =
        serde_json::from_str(&json::render(verdict, Layout::Line)).unwrap();
    report.as_object_mut().unwrap().remove("load");
    for root in report["roots"].as_array_mut().unwrap() {
        root.as_object_mut().unwrap().remove("load");
    }
    report
}

#[test]
fn one_compilation_gives_the_verdicts_of_many() {
    let filters = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt");
    for name in ["add-header.wasm", "deny-path.wasm", "rate-limit.wasm", "noop.wasm"] {
        let image = image(&filters.join(name));
        let mut judge = Judge::new(&image);
        for target in ["envoy:1.40", "envoy:1.22", "istio:1.24", "envoy:1.36", "envoy:1.40"] {
            let options = options(target);
            let alone = filtergate::judge(&image, &options);
            assert_eq!(report(&judge.judge(&options)), report(&alone), "{name} {target}");
        }
    }
}

/// What `_initialize` and `proxy_on_vm_start` logged, each a digit.
fn logs(image: &Image, target: &str) -> Vec<String> {
    let verdict = filtergate::judge(image, &options(target));
    assert_eq!(verdict.loads, Some(true), "{target}: {:?}", verdict.findings);
    verdict.roots[0].logs.iter().map(|line| line.message.clone()).collect()
}

/// Logs a digit when `__main_void` runs (7), and what poll_oneoff returns: 0, or `d` for 52.
const SWITCHES: &str = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func $say (param i32)
            (i32.store8 (i32.const 0) (i32.add (i32.const 48) (local.get 0)))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))
        (func (export "_initialize"))
        (func (export "__main_void") (result i32) (call $say (i32.const 7)) (i32.const 0))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
            (call $say (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 256)))
            (i32.const 1))
        (func (export "proxy_abi_version_0_2_1")))"#;

#[test]
fn a_filter_sees_the_switches_of_its_release() {
    let image = image_of(SWITCHES);
    for (target, expected) in [
        ("envoy:1.33", &["d"][..]),
        ("envoy:1.38", &["d"]),
        ("istio:1.30", &["d"]),
        ("envoy:1.39", &["7", "0"]),
        ("envoy-gateway:1.9", &["7", "0"]),
        ("envoy:1.40", &["7", "0"]),
    ] {
        assert_eq!(logs(&image, target), expected, "{target}");
    }
}

#[test]
fn a_real_envoy_has_the_switches_of_its_release() {
    let Some(binary) = support::needs("FILTERGATE_ENVOY", "the path of an Envoy") else { return };
    let binary = std::path::Path::new(&binary);
    let target = format!("envoy:{}", parity::release(binary).unwrap());
    let module = Some(wat::parse_str(SWITCHES).unwrap());
    let envoy = Envoy::start(binary, &Setup { module, ..Setup::default() }).unwrap();
    assert!(envoy.loads(), "{target}: {:?}", envoy.entries(0));
    envoy.rest();
    let theirs: BTreeSet<_> = envoy
        .entries(0)
        .into_iter()
        .filter(|entry| entry.text.contains("wasm log"))
        .filter_map(|entry| entry.text.trim_end().chars().last())
        .map(String::from)
        .collect();
    let ours: BTreeSet<_> = logs(&image_of(SWITCHES), &target).into_iter().collect();
    assert_eq!(theirs, ours, "{target}");
}

#[test]
fn the_start_is_restricted_since_1_24_and_memory_since_1_23() {
    let restricted = image_of(
        r#"(module
        (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_initialize") (drop (call $now (i32.const 0))))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_abi_version_0_2_1")))"#,
    );
    let large = image_of(
        r#"(module
        (memory (export "memory") 16385)
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_abi_version_0_2_1")))"#,
    );
    let loads = |image, target| filtergate::judge(image, &options(target)).loads;
    for (target, starts, fits) in
        [("envoy:1.22", true, true), ("envoy:1.23", true, false), ("envoy:1.24", false, false)]
    {
        assert_eq!(loads(&restricted, target), Some(starts), "{target}");
        assert_eq!(loads(&large, target), Some(fits), "{target}");
    }
}

#[test]
fn every_target_judges() {
    let image = image_of(
        r#"(module
        (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_abi_version_0_2_1")))"#,
    );
    let mut judge = Judge::new(&image);
    for target in Target::all() {
        let verdict = judge.judge(&options(target.name()));
        assert_eq!(verdict.loads, Some(true), "{target}: {:?}", verdict.findings);
    }
}
