//! Load time of every prebuilt filter: compiling it bare and through the template, having it from the
//! store, an instance of it, the whole load from bytes to a configured root, and a whole check. See
//! README.md beside this file.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Bencher, BenchmarkId, Criterion, Throughput};
use filtergate::{
    CheckOptions,
    bench::{LoadConditions, PhaseClock, cold_load},
    check,
    exercise::load_plugin,
    host::{Environment, Plugin, Process},
    image::{Digest, NoProgress, Source},
    store::Store,
    target::Target,
    verdict::check_statically,
    vm::{Artifacts, Compiler, Template, VmOptions, build_engine, on_a_guest_thread},
};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Filter {
    name: String,
    path: PathBuf,
    wasm: Vec<u8>,
    conditions: LoadConditions,
}

fn filters() -> Vec<Filter> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("filters/prebuilt is part of the repository")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let root_id = if name == "deny-path" { "deny_path" } else { "" };
            let plugins = vec![Plugin { root_id: root_id.to_owned(), ..Plugin::default() }];
            let environment = Environment::default();
            let wasm = fs::read(&path).expect("a prebuilt filter can be read");
            let (target, vm) = (Target::default(), VmOptions::default());
            Filter {
                name,
                path,
                wasm,
                conditions: LoadConditions { target, vm, plugins, environment },
            }
        })
        .collect()
}

fn template(filter: &Filter) -> Option<Template> {
    template_of(filter, None)
}

fn template_of(filter: &Filter, artifacts: Option<&Artifacts>) -> Option<Template> {
    let LoadConditions { target, vm, .. } = &filter.conditions;
    let report = check_statically(&filter.wasm, target);
    let facts = report.facts.unwrap_or_default();
    let mut clock = PhaseClock::default();
    Template::compile(&filter.wasm, facts, report.abi?, target, vm, artifacts, &mut clock).ok()
}

/// Measures `work` without the drop of what it makes.
fn timed<T>(bencher: &mut Bencher<'_>, work: impl Fn() -> T) {
    bencher.iter_custom(|iterations| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            let begun = Instant::now();
            let made = black_box(work());
            elapsed += begun.elapsed();
            drop(made);
        }
        elapsed
    });
}

/// The floor: what the engine takes for the module when nothing of filtergate is around it.
fn bare_compile(criterion: &mut Criterion, filters: &[Filter], compiler: Compiler) {
    let mut group = criterion.benchmark_group(format!("bare-compile-{compiler}"));
    for filter in filters {
        group.throughput(Throughput::Bytes(filter.wasm.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&filter.name), |bencher| {
            timed(bencher, || {
                let engine = build_engine(compiler, false).expect("an engine for this machine");
                wasmtime::Module::from_binary(&engine, &filter.wasm)
            });
        });
    }
}

fn compile(criterion: &mut Criterion, filters: &[Filter]) {
    let mut group = criterion.benchmark_group("compile-and-link");
    for filter in filters {
        group.throughput(Throughput::Bytes(filter.wasm.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&filter.name), |bencher| {
            timed(bencher, || template(filter));
        });
    }
}

/// The same of a module that the store has compiled.
fn deserialize(criterion: &mut Criterion, filters: &[Filter]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warn = |text: &str| eprintln!("warning: {text}");
    let store = Arc::new(Store::open(folder.path(), warn).expect("a store"));
    let mut group = criterion.benchmark_group("deserialize-and-link");
    for filter in filters {
        let artifacts = Artifacts::new(&store, Digest::sha256(&filter.wasm).hex());
        // The first keeps it.
        let mut is_kept = false;
        group.bench_function(BenchmarkId::from_parameter(&filter.name), |bencher| {
            if !std::mem::replace(&mut is_kept, true) {
                drop(template_of(filter, Some(&artifacts)));
                store.finish();
            }
            timed(bencher, || template_of(filter, Some(&artifacts)));
        });
    }
}

/// Measures `work` on a compiled module.
fn of_template(
    criterion: &mut Criterion,
    name: &str,
    filters: &[Filter],
    work: impl Fn(&Template, &Plugin) -> bool,
) {
    let mut group = criterion.benchmark_group(name);
    for filter in filters {
        // Made here, so that a filter that was not asked for costs nothing.
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(&filter.name), |bencher| {
            let Some(template) = made.get_or_insert_with(|| template(filter)) else { return };
            bencher.iter(|| black_box(work(template, &filter.conditions.plugins[0])));
        });
    }
}

fn instantiate(criterion: &mut Criterion, filters: &[Filter]) {
    let process = Arc::new(Process::new());
    of_template(criterion, "instantiate", filters, |template, plugin| {
        template.instantiate(plugin.clone(), Arc::clone(&process)).is_ok()
    });
}

/// What a process that runs on takes for one more: instantiate, start, `proxy_on_vm_start`,
/// `proxy_on_configure`.
fn fresh_instance(criterion: &mut Criterion, filters: &[Filter]) {
    of_template(criterion, "fresh-instance", filters, |template, plugin| {
        let process = Arc::new(Process::new());
        let clock = &mut PhaseClock::default();
        load_plugin(template, plugin, &process, false, clock).loaded.is_some()
    });
}

fn load(criterion: &mut Criterion, filters: &[Filter]) {
    let mut group = criterion.benchmark_group("load");
    for filter in filters {
        group.throughput(Throughput::Bytes(filter.wasm.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&filter.name), |bencher| {
            timed(bencher, || cold_load(&filter.wasm, &filter.conditions, PhaseClock::default()));
        });
    }
}

/// The verdict on a file, with its exchanges, in a process that runs on and without a store.
fn whole_check(criterion: &mut Criterion, filters: &[Filter]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("whole-check");
    for filter in filters {
        let reference = filter.path.display().to_string();
        let source = Source::File(filter.path.clone());
        let options = CheckOptions::default();
        group.throughput(Throughput::Bytes(filter.wasm.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&filter.name), |bencher| {
            timed(bencher, || {
                runtime.block_on(check(&source, &reference, &options, &NoProgress)).outcome
            });
        });
    }
}

fn main() {
    let filters = filters();
    let done = on_a_guest_thread(|| {
        let mut criterion = Criterion::default()
            .sample_size(20)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        bare_compile(&mut criterion, &filters, Compiler::Winch);
        bare_compile(&mut criterion, &filters, Compiler::CraneliftSpeed);
        compile(&mut criterion, &filters);
        deserialize(&mut criterion, &filters);
        instantiate(&mut criterion, &filters);
        fresh_instance(&mut criterion, &filters);
        load(&mut criterion, &filters);
        whole_check(&mut criterion, &filters);
        criterion.final_summary();
    });
    if let Err(error) = done {
        eprintln!("error: {error}");
    }
}
