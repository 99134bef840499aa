//! What an exchange costs: a GET through all callbacks of an empty filter, host calls with and without
//! the guest's memory, and 1,000 changes of headers, beside a bare call of wasmtime. See README.md
//! beside this file.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use filtergate::{
    bench::PhaseClock,
    exercise::{Exchange, Loaded, load_plugin, run_exchange, smoke_exchanges},
    host::{Plugin, Process},
    target::Target,
    verdict::check_statically,
    vm::{Compiler, Template, VmOptions, build_engine, on_a_guest_thread},
};
use wasmtime::{Instance, Linker, Module, Store, TypedFunc};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls of a host function in one call of the guest.
const CALLS: u64 = 1000;

/// A filter with every callback. `headers` is what its headers callback does.
fn filter(headers: &str) -> String {
    let callbacks = [
        ("proxy_on_request_body", "(param i32 i32 i32)"),
        ("proxy_on_request_trailers", "(param i32 i32)"),
        ("proxy_on_response_headers", "(param i32 i32 i32)"),
        ("proxy_on_response_body", "(param i32 i32 i32)"),
        ("proxy_on_response_trailers", "(param i32 i32)"),
        ("proxy_on_done", "(param i32)"),
        ("proxy_on_vm_start", "(param i32 i32)"),
        ("proxy_on_configure", "(param i32 i32)"),
    ];
    let answers = |name: &str| i32::from(!name.contains("request") && !name.contains("response"));
    let callbacks: String = callbacks
        .iter()
        .map(|(name, parameters)| {
            let answer = answers(name);
            format!("(func (export \"{name}\") {parameters} (result i32) (i32.const {answer}))")
        })
        .collect();
    format!(
        r#"(module
            (import "env" "proxy_set_effective_context" (func $plain (param i32) (result i32)))
            (import "env" "proxy_get_log_level" (func $memory (param i32) (result i32)))
            (import "env" "proxy_replace_header_map_value"
                (func $replace (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "x-benchvalue")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_log") (param i32))
            (func (export "proxy_on_delete") (param i32))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (local $left i32) {headers} (i32.const 0))
            {callbacks}
            (func (export "empty"))
            (func (export "plain") (local $left i32) {plain})
            (func (export "memory_access") (local $left i32) {memory}))"#,
        plain = many("(drop (call $plain (i32.const 0)))"),
        memory = many("(drop (call $memory (i32.const 64)))"),
    )
}

fn many(call: &str) -> String {
    format!(
        "(local.set $left (i32.const {CALLS}))
        (loop $again {call}
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
    )
}

fn template(text: &str) -> Template {
    compile(&wat::parse_str(text).expect("the filter is text that parses"))
}

fn compile(wasm: &[u8]) -> Template {
    let target = Target::default();
    let report = check_statically(wasm, &target);
    let facts = report.facts.expect("the filter is a module");
    let abi = report.abi.expect("the filter has a marker");
    let (vm, mut clock) = (VmOptions::default(), PhaseClock::default());
    Template::compile(wasm, facts, abi, &target, &vm, None, &mut clock)
        .expect("the filter compiles")
}

fn load(template: &Template) -> Loaded {
    let process = Arc::new(Process::new());
    let clock = &mut PhaseClock::default();
    let run = load_plugin(template, &Plugin::default(), &process, false, clock);
    run.loaded.expect("the filter loads")
}

/// A call of an empty function by wasmtime alone, in an engine of filtergate's configuration.
fn bare_call(criterion: &mut Criterion) {
    let engine = build_engine(Compiler::Winch, false).expect("an engine for this machine");
    let text = "(module (func (export \"empty\") (param i32 i32 i32) (result i32) (i32.const 0)))";
    let wasm = wat::parse_str(text).expect("text that parses");
    let module = Module::new(&engine, wasm).expect("a module");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1 << 40);
    let instance = Instance::new(&mut store, &module, &[]).expect("an instance");
    let function: TypedFunc<(u32, u32, u32), u32> =
        instance.get_typed_func(&mut store, "empty").expect("the function");
    criterion.bench_function("bare-call", |bencher| {
        bencher.iter(|| black_box(function.call(&mut store, (1, 2, 3)).is_ok()));
    });
}

/// Calls of an empty host function by wasmtime alone.
fn bare_host_call(criterion: &mut Criterion) {
    let engine = build_engine(Compiler::Winch, false).expect("an engine for this machine");
    let text = format!(
        r#"(module (import "env" "empty" (func $empty (param i32) (result i32)))
            (func (export "all") (local $left i32) {}))"#,
        many("(drop (call $empty (i32.const 0)))")
    );
    let module = Module::new(&engine, wat::parse_str(text).expect("text that parses"));
    let module = module.expect("a module");
    let mut linker = Linker::new(&engine);
    linker.func_wrap("env", "empty", |_: u32| 0_u32).expect("a function");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1 << 40);
    let instance = linker.instantiate(&mut store, &module).expect("an instance");
    let function: TypedFunc<(), ()> =
        instance.get_typed_func(&mut store, "all").expect("the function");
    let mut group = criterion.benchmark_group("bare-host-calls");
    group.throughput(Throughput::Elements(CALLS));
    group.bench_function("empty", |bencher| {
        bencher.iter(|| black_box(function.call(&mut store, ()).is_ok()));
    });
}

/// A filter of the Rust SDK that calls no host function for a request, if it is not configured.
const SDK_FILTER: &[u8] = include_bytes!("../filters/prebuilt/add-header.wasm");

/// What a GET calls in it, by wasmtime alone and with a host whose functions do nothing.
fn bare_stream(criterion: &mut Criterion) {
    const ROOT: u32 = 1;
    const STREAM: u32 = 2;
    let engine = build_engine(Compiler::Winch, false).expect("an engine for this machine");
    let module = Module::new(&engine, SDK_FILTER).expect("a module");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1 << 40);
    let mut linker = Linker::new(&engine);
    linker.define_unknown_imports_as_default_values(&mut store, &module).expect("a host");
    let instance = linker.instantiate(&mut store, &module).expect("an instance");
    let of_one = |store: &mut Store<()>, name: &str| -> TypedFunc<u32, ()> {
        instance.get_typed_func(store, name).expect("the function")
    };
    let of_two = |store: &mut Store<()>, name: &str| -> TypedFunc<(u32, u32), u32> {
        instance.get_typed_func(store, name).expect("the function")
    };
    let of_three = |store: &mut Store<()>, name: &str| -> TypedFunc<(u32, u32, u32), u32> {
        instance.get_typed_func(store, name).expect("the function")
    };
    let create: TypedFunc<(u32, u32), ()> =
        instance.get_typed_func(&mut store, "proxy_on_context_create").expect("the function");
    let initialize: TypedFunc<(), ()> =
        instance.get_typed_func(&mut store, "_initialize").expect("the function");
    let done: TypedFunc<u32, u32> =
        instance.get_typed_func(&mut store, "proxy_on_done").expect("the function");
    let [log, delete] = ["proxy_on_log", "proxy_on_delete"].map(|name| of_one(&mut store, name));
    let [vm_start, configure] =
        ["proxy_on_vm_start", "proxy_on_configure"].map(|name| of_two(&mut store, name));
    let [request, response, body] =
        ["proxy_on_request_headers", "proxy_on_response_headers", "proxy_on_response_body"]
            .map(|name| of_three(&mut store, name));
    initialize.call(&mut store, ()).expect("a start");
    create.call(&mut store, (ROOT, 0)).expect("a root");
    vm_start.call(&mut store, (ROOT, 0)).expect("a VM");
    configure.call(&mut store, (ROOT, 0)).expect("a configured root");
    let mut stream = || -> wasmtime::Result<()> {
        create.call(&mut store, (STREAM, ROOT))?;
        request.call(&mut store, (STREAM, 7, 1))?;
        response.call(&mut store, (STREAM, 4, 0))?;
        body.call(&mut store, (STREAM, 3, 1))?;
        done.call(&mut store, STREAM)?;
        log.call(&mut store, STREAM)?;
        delete.call(&mut store, STREAM)
    };
    criterion.bench_function("bare-stream", |bencher| {
        bencher.iter(|| stream().expect("a stream that does not trap"));
    });
}

fn get(criterion: &mut Criterion, name: &str, loaded: &mut Loaded, exchange: &Exchange) {
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| black_box(run_exchange(loaded, exchange, false)));
    });
}

fn host_calls(criterion: &mut Criterion, loaded: &mut Loaded) {
    let mut group = criterion.benchmark_group("host-calls");
    group.throughput(Throughput::Elements(CALLS));
    let Loaded { instance, root } = loaded;
    for name in ["empty", "plain", "memory_access"] {
        let function: TypedFunc<(), ()> = instance.export(name).expect("the function");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(instance.call(name, &function, *root, ()).is_ok()));
        });
    }
}

fn main() {
    let replace = many(
        "(drop (call $replace (i32.const 0) (i32.const 16) (i32.const 7) (i32.const 23) (i32.const 5)))",
    );
    let done = on_a_guest_thread(|| {
        let mut criterion = Criterion::default()
            .sample_size(30)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        let exchange = &smoke_exchanges()[0];
        let (empty, changing) = (template(&filter("")), template(&filter(&replace)));
        bare_call(&mut criterion);
        bare_host_call(&mut criterion);
        bare_stream(&mut criterion);
        get(&mut criterion, "get-through-sdk-filter", &mut load(&compile(SDK_FILTER)), exchange);
        host_calls(&mut criterion, &mut load(&empty));
        get(&mut criterion, "get-through-all-callbacks", &mut load(&empty), exchange);
        get(&mut criterion, "get-with-1000-header-changes", &mut load(&changing), exchange);
        criterion.final_summary();
    });
    if let Err(error) = done {
        eprintln!("error: {error}");
    }
}
