//! Nothing that a module does hangs filtergate, crashes it or fills its memory.

#[path = "support/check.rs"]
mod check;

use std::time::Duration;

use filtergate::{
    CheckOptions,
    verdict::{Outcome, Rule, Severity, Verdict},
};

/// A filter of ABI 0.2.1 with these parts in place of the usual ones.
fn filter(parts: &str) -> String {
    let given = |name: &str| parts.contains(&format!("\"{name}\""));
    let mut usual = String::new();
    let mut add = |name: &str, text: &str| {
        if !given(name) {
            usual.push_str(text);
        }
    };
    add("memory", r#"(memory (export "memory") 1)"#);
    add("malloc", r#"(func (export "malloc") (param i32) (result i32) (i32.const 1024))"#);
    add(
        "proxy_on_vm_start",
        r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))"#,
    );
    add(
        "proxy_on_configure",
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))"#,
    );
    // Imports come first in a module.
    format!(r#"(module {parts} {usual} (func (export "proxy_abi_version_0_2_1")))"#)
}

fn check_with(wat: &str, change: impl FnOnce(&mut CheckOptions)) -> Verdict {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("filter.wasm");
    std::fs::write(&path, wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}")))
        .unwrap();
    let reference = path.to_str().unwrap();
    let mut options = CheckOptions::default();
    options.vm.callback_timeout = Duration::from_millis(300);
    change(&mut options);
    check::check(reference, &options)
}

fn check(wat: &str) -> Verdict {
    check_with(wat, |_| {})
}

fn errors(verdict: &Verdict) -> Vec<Rule> {
    verdict
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| finding.rule)
        .collect()
}

const LOOP: &str = "(loop $forever (br $forever))";

#[test]
fn an_endless_loop_while_loading_is_a_hazard() {
    let in_main = format!(
        r#"(func (export "_initialize")) (func (export "main") (param i32 i32) (result i32) {LOOP} (i32.const 0))"#
    );
    let cases = [
        ("start section", format!("(func $s {LOOP}) (start $s)")),
        ("_start", format!(r#"(func (export "_start") {LOOP})"#)),
        ("_initialize", format!(r#"(func (export "_initialize") {LOOP})"#)),
        ("main", in_main),
        (
            "context_create",
            format!(r#"(func (export "proxy_on_context_create") (param i32 i32) {LOOP})"#),
        ),
        (
            "vm_start",
            format!(
                r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) {LOOP} (i32.const 1))"#
            ),
        ),
        (
            "configure",
            format!(
                r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) {LOOP} (i32.const 1))"#
            ),
        ),
    ];
    for (place, parts) in cases {
        let verdict = check(&filter(&parts));
        assert_eq!(errors(&verdict), [Rule::HazardHangsEnvoy], "{place}");
        assert_eq!((verdict.loads, verdict.envoy_class), (Some(false), Some("hang")), "{place}");
    }
}

#[test]
fn an_endless_loop_while_serving_is_a_time_out() {
    let callbacks = [
        ("proxy_on_request_headers", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("proxy_on_request_body", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("proxy_on_request_trailers", "(param i32 i32) (result i32)", "(i32.const 0)"),
        ("proxy_on_response_headers", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("proxy_on_response_body", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("proxy_on_response_trailers", "(param i32 i32) (result i32)", "(i32.const 0)"),
        ("proxy_on_log", "(param i32)", ""),
        ("proxy_on_done", "(param i32) (result i32)", "(i32.const 1)"),
        ("proxy_on_delete", "(param i32)", ""),
    ];
    for (name, ty, result) in callbacks {
        let verdict = check(&filter(&format!(r#"(func (export "{name}") {ty} {LOOP} {result})"#)));
        assert_eq!(errors(&verdict), [Rule::RunTimeout], "{name}");
        assert_eq!(verdict.loads, Some(true), "{name}");
        assert!(verdict.findings[0].message.contains(name), "{name}");
    }
}

#[test]
fn an_endless_loop_in_a_tick_is_a_time_out() {
    let verdict = check(&filter(&format!(
        r#"(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $tick (i32.const 1000))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) {LOOP})"#
    )));
    assert_eq!(errors(&verdict), [Rule::RunTimeout]);
}

#[test]
fn an_endless_loop_in_the_allocator_is_a_hazard() {
    let verdict = check(&filter(&format!(
        r#"(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 16) "plugin_name")
        (func (export "malloc") (param i32) (result i32) {LOOP} (i32.const 0))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (drop (call $get (i32.const 16) (i32.const 11) (i32.const 64) (i32.const 68))) (i32.const 1))"#
    )));
    assert_eq!(errors(&verdict), [Rule::HazardHangsEnvoy]);
}

#[test]
fn a_loop_of_host_calls_ends_too() {
    let verdict = check(&filter(
        r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (loop $again (drop (call $log (i32.const 2) (i32.const 0) (i32.const 65536))) (br $again)) (i32.const 1))"#,
    ));
    assert_eq!(errors(&verdict), [Rule::HazardHangsEnvoy]);
    let kept: usize = verdict.roots[0].logs.iter().map(|line| line.message.len()).sum();
    assert!(kept < 4 << 20, "{kept} bytes of log were kept");
}

#[test]
fn what_the_host_keeps_is_limited() {
    let verdict = check_with(
        &filter(
            r#"(import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 16)
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
              (local $i i32)
              (loop $again
                (i32.store (i32.const 0) (local.get $i))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (drop (call $set (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 1048576) (i32.const 0)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 4096))))
              (i32.const 1))"#,
        ),
        |options| options.vm.callback_timeout = Duration::from_secs(20),
    );
    assert!(verdict.findings.iter().any(|finding| finding.rule == Rule::LimitReached));
    assert_eq!(verdict.outcome, Outcome::Undecided);
}

#[test]
fn memory_grows_to_the_cap_and_no_further() {
    let grow = |pages: u32| {
        filter(&format!(
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
              (i32.ne (memory.grow (i32.const {pages})) (i32.const -1)))"#
        ))
    };
    assert_eq!(check(&grow(16383)).outcome, Outcome::Pass);
    assert_eq!(errors(&check(&grow(16384))), [Rule::RootConfigureFalse]);
}

#[test]
fn a_table_grows_to_a_limit() {
    let verdict = check(&filter(
        r#"(table $t 1 funcref)
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (i32.ne (table.grow $t (ref.null func) (i32.const 100000000)) (i32.const -1)))"#,
    ));
    assert_eq!(errors(&verdict), [Rule::RootConfigureFalse]);
}

#[test]
fn endless_recursion_is_a_trap() {
    let verdict = check(&filter(
        r#"(func $deep (param i64 i64 i64 i64) (result i64)
          (i64.add (call $deep (local.get 3) (local.get 2) (local.get 1) (local.get 0)) (local.get 0)))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (i32.wrap_i64 (call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4))))"#,
    ));
    assert_eq!(errors(&verdict), [Rule::RootConfigureTrap]);
    assert!(verdict.findings[0].message.contains("Maximum call stack size exceeded"));
}

/// The allocator may call the host, and the host the allocator: that recursion ends as well.
#[test]
fn recursion_through_the_host_is_a_trap() {
    let verdict = check(&filter(
        r#"(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 16) "plugin_name")
        (func $ask (result i32) (call $get (i32.const 16) (i32.const 11) (i32.const 64) (i32.const 68)))
        (func (export "malloc") (param i32) (result i32) (drop (call $ask)) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $ask)) (i32.const 1))"#,
    ));
    // Envoy forbids the inner call, and takes the result of the outer callback all the same.
    assert_eq!(errors(&verdict), [Rule::RootConfigureTrap]);
    assert_eq!(verdict.loads, Some(true));
}

#[test]
fn a_crowd_of_root_ids_is_cut_and_said() {
    let verdict = check_with(&filter(""), |options| {
        options.root_ids = (0..1000).map(|n| format!("root-{n}")).collect();
    });
    assert_eq!(verdict.roots.len(), 64);
    assert!(verdict.findings.iter().any(|finding| finding.rule == Rule::RootNotExercised));
    assert_eq!(verdict.outcome, Outcome::Undecided);
}
