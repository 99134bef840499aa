//! Several workers of one plugin, and what a root does while no stream runs.

#[path = "support/check.rs"]
mod check;

use filtergate::{
    CheckOptions,
    exercise::{FailurePolicy, RootRun},
    verdict::Verdict,
};

fn run(text: &str, change: impl FnOnce(&mut CheckOptions)) -> Verdict {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("filter.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    let mut options = CheckOptions { controls: false, ..CheckOptions::default() };
    change(&mut options);
    check::check(path.to_str().unwrap(), &options)
}

fn lines(root: &RootRun) -> (Vec<String>, Vec<String>) {
    let text = |lines: &[filtergate::host::LogLine]| -> Vec<String> {
        lines.iter().map(|line| line.message.clone()).collect()
    };
    (
        root.exchanges.iter().flat_map(|exchange| text(&exchange.logs)).collect(),
        text(&root.idle_logs),
    )
}

/// What every filter here begins with. Memory from 64 on is what host functions write to.
const HEAD: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_done" (func $done (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "queue putgot ticked done")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $say (param i32 i32) (drop (call $log (i32.const 2) (local.get 0) (local.get 1))))"#;

/// The worker that registered the queue last is told of what another one puts there.
#[test]
fn a_queue_reaches_from_one_worker_to_another() {
    let text = format!(
        r#"(module {HEAD}
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $register (i32.const 0) (i32.const 5) (i32.const 64))) (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $say (i32.const 6) (i32.const 3))
                (drop (call $enqueue (i32.load (i32.const 64)) (i32.const 6) (i32.const 3)))
                (i32.const 0))
            (func (export "proxy_on_queue_ready") (param i32 i32)
                (drop (call $dequeue (local.get 1) (i32.const 72) (i32.const 76)))
                (call $say (i32.const 9) (i32.const 3))))"#
    );
    let one = run(&text, |_| {});
    let (in_exchanges, idle) = lines(&one.roots[0]);
    assert_eq!(in_exchanges, ["put", "got", "put", "got", "put", "got"]);
    assert!(idle.is_empty(), "{idle:?}");
    // The second worker owns the queue: it sees what it puts there itself, and what the first one does.
    let two = run(&text, |options| options.workers = 2);
    let (in_exchanges, idle) = lines(&two.roots[0]);
    assert_eq!(in_exchanges, ["put", "put", "got", "put"]);
    assert_eq!(idle, ["got", "got"]);
}

/// A root that is not done yet is waited for, and its ticks go on meanwhile.
#[test]
fn a_root_that_is_not_done_is_waited_for() {
    let text = format!(
        r#"(module {HEAD}
            (global $ends (mut i32) (i32.const 0))
            (func (export "proxy_on_done") (param $context i32) (result i32)
                (if (i32.ne (local.get $context) (i32.const 1)) (then (return (i32.const 1))))
                (global.set $ends (i32.const 1))
                (drop (call $tick (i32.const 200)))
                (i32.const 0))
            (func (export "proxy_on_tick") (param i32)
                (call $say (i32.const 13) (i32.const 6))
                (if (global.get $ends) (then (drop (call $done)))))
            (func (export "proxy_on_delete") (param i32)
                (if (i32.eq (local.get 0) (i32.const 1))
                    (then (call $say (i32.const 20) (i32.const 4))))))"#
    );
    let verdict = run(&text, |_| {});
    assert_eq!(lines(&verdict.roots[0]).1, ["ticked", "done"]);
}

/// A tick that traps before the first request fails the VM for all of them, and what becomes of the
/// requests is the policy's.
#[test]
fn a_trap_before_the_first_request_fails_all() {
    let text = format!(
        r#"(module {HEAD}
            (global $ticks (mut i32) (i32.const 0))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (drop (call $tick (i32.const 100))) (i32.const 1))
            (func (export "proxy_on_tick") (param i32) (unreachable)))"#
    );
    let statuses = |policy| -> Vec<u32> {
        let verdict = run(&text, |options| options.failure_policy = policy);
        let exchanges = verdict.roots[0].exchanges.iter();
        exchanges.map(|exchange| exchange.response.as_ref().unwrap().status).collect()
    };
    assert_eq!(statuses(FailurePolicy::Closed), [503, 503, 503]);
    assert_eq!(statuses(FailurePolicy::Open), [200, 200, 200]);
    assert_eq!(statuses(FailurePolicy::Reload), [200, 200, 200]);
}

/// A counter that each instance raises while it is configured: those of the canary, the main thread and
/// the worker. Seen in Envoy 1.36.4 and 1.40.0.
#[test]
fn the_main_thread_has_an_instance_too() {
    let text = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_increment_metric" (func $raise (param i32 i64) (result i32)))
        (import "env" "proxy_get_metric" (func $get (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "count")
        (global $id (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func $say
            (drop (call $get (global.get $id) (i32.const 64)))
            (i32.store8 (i32.const 80) (i32.add (i32.const 48) (i32.load8_u (i32.const 64))))
            (drop (call $log (i32.const 2) (i32.const 80) (i32.const 1))))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $define (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 72)))
            (global.set $id (i32.load (i32.const 72)))
            (drop (call $raise (global.get $id) (i64.const 1)))
            (call $say) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $say) (i32.const 0)))"#;
    let one = run(text, |_| {});
    assert_eq!(one.roots[0].logs[0].message, "1");
    assert_eq!(lines(&one.roots[0]).0, ["3", "3", "3"]);
    let two = run(text, |options| options.workers = 2);
    assert_eq!(lines(&two.roots[0]).0, ["4", "4", "4"]);
}
