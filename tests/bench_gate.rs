//! The gate of `filtergate bench`: what it catches and what it lets pass, over builds that differ in one
//! thing.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use filtergate::{
    bench::{
        self, BenchReport, Busyness, Fingerprint, LoadConditions, Phase, Plan, Subject, Traffic,
        budget::Budget,
        figures::Place,
        gate::{self, Change, Comparison, NotComparable, Thresholds},
        report::{ModuleSize, SCHEMA},
    },
    exercise::smoke_exchanges,
    host::{Environment, Plugin},
    report::{
        bench::{Bench, render_human, render_json},
        html,
        json::Layout,
    },
    target::Target,
    vm::{Compiler, VmOptions},
};

/// A build of one filter.
#[derive(Clone, Copy)]
struct Build {
    /// What `proxy_on_configure` counts to.
    work: u32,
    /// Pages that it starts with.
    pages: u32,
    /// Functions that nothing calls.
    functions: u32,
}

/// Two hundred functions, with those that Envoy calls.
const SAME: Build = Build { work: 20_000, pages: 20, functions: 195 };
const MORE_WORK: Build = Build { work: SAME.work + SAME.work / 20, ..SAME };
/// 3 % more functions, and 3 % more bytes of code.
const MORE_CODE: Build = Build { functions: SAME.functions + 6, ..SAME };
/// 1 MiB.
const MORE_MEMORY: Build = Build { pages: SAME.pages + 16, ..SAME };

impl Build {
    fn wasm(self) -> Vec<u8> {
        let Self { work, pages, functions } = self;
        // Constants of the same length, so that all these functions are.
        let dead: String = (1_000..1_000 + functions)
            .map(|n| {
                format!("(func (param i32) (result i32) (i32.add (local.get 0) (i32.const {n})))")
            })
            .collect();
        let text = format!(
            r#"(module
            (import "env" "proxy_get_header_map_value"
                (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") {pages})
            (data (i32.const 16) ":path")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (local $left i32)
                (local.set $left (i32.const {work}))
                (loop $again
                    (br_if $again
                        (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $get (i32.const 0) (i32.const 16) (i32.const 5)
                    (i32.const 32) (i32.const 36)))
                (i32.const 0))
            {dead})"#
        );
        wat::parse_str(text).unwrap()
    }
}

fn measure(wasm: &[u8], compiler: Compiler) -> BenchReport {
    let plugins = vec![Plugin::default()];
    let vm = VmOptions { compiler, ..VmOptions::default() };
    let environment = Environment::default();
    let target = Target::default();
    let mut subjects = [Subject {
        conditions: LoadConditions { target: target.clone(), vm, plugins, environment },
        bytes: Box::new(|_| Ok(wasm.to_vec())),
        fetched_once: None,
    }];
    let traffic = Traffic::Http(smoke_exchanges()[..1].to_vec());
    let plan = Plan { runs: 1, warmup: 0, traffic, workers: 1 };
    let (measured, busyness) = bench::measure(&mut subjects, &plan).unwrap();
    let facts = filtergate::verdict::check_statically(wasm, &target).facts.unwrap();
    BenchReport {
        schema: SCHEMA,
        created: 0,
        reference: "filter.wasm".to_owned(),
        target: target.name().to_owned(),
        envoy: target.envoy_name(),
        fingerprint: Fingerprint::new(None, String::new()),
        module: ModuleSize {
            sha256: String::new(),
            size: wasm.len() as u64,
            functions: facts.functions.into(),
            code_bytes: facts.code_bytes,
        },
        measured,
        scale: Vec::new(),
        in_envoy: None,
        instructions_not_counted: None,
        busyness,
        warnings: Vec::new(),
    }
}

fn compare(before: &BenchReport, after: &BenchReport) -> Comparison {
    gate::compare("before", before, after, Thresholds::default()).unwrap().remove(0)
}

/// The metrics that fail, each once.
fn regressions(before: &BenchReport, after: &BenchReport) -> Vec<String> {
    let comparison = compare(before, after);
    let mut names: Vec<_> = comparison
        .regressions()
        .map(|worse| format!("{} {}", worse.place.what, worse.metric))
        .collect();
    names.dedup();
    names
}

#[test]
fn exact_counters_catch_each_kind_of_growth_each_time() {
    let before = measure(&SAME.wasm(), Compiler::Winch);
    for _ in 0..20 {
        let of = |build: Build| regressions(&before, &measure(&build.wasm(), Compiler::Winch));
        assert_eq!(of(SAME), Vec::<String>::new());
        assert_eq!(of(MORE_WORK), ["configure fuel"]);
        assert_eq!(of(MORE_MEMORY), ["memory pages"]);
        let code = of(MORE_CODE);
        for metric in ["module functions", "module code_bytes"] {
            assert!(code.iter().any(|worse| worse == metric), "{metric}: {code:?}");
        }
    }
}

#[test]
fn more_code_is_three_percent_more() {
    let facts = |build: Build| {
        let report = filtergate::verdict::check_statically(&build.wasm(), &Target::default());
        let facts = report.facts.unwrap();
        [u64::from(facts.functions), facts.code_bytes]
    };
    for (before, after) in facts(SAME).into_iter().zip(facts(MORE_CODE)) {
        let growth = after as f64 / before as f64 - 1.0;
        assert!((growth - 0.03).abs() < 0.0005, "{before} to {after} is {growth}");
    }
}

#[test]
fn less_is_better_and_a_little_more_is_the_same() {
    let before = measure(&SAME.wasm(), Compiler::Winch);
    let after = measure(&Build { work: SAME.work / 2, ..SAME }.wasm(), Compiler::Winch);
    let fuel = |comparison: &Comparison| {
        let mut exact = comparison.exact.iter();
        exact.find(|d| d.place.what == "configure" && d.metric == "fuel").unwrap().verdict
    };
    assert_eq!(fuel(&compare(&before, &after)), Change::Better);
    let after =
        measure(&Build { work: SAME.work + SAME.work / 100, ..SAME }.wasm(), Compiler::Winch);
    assert_eq!(fuel(&compare(&before, &after)), Change::Same);
}

#[test]
fn two_compilers_are_not_compared() {
    let winch = measure(&SAME.wasm(), Compiler::Winch);
    let cranelift = measure(&SAME.wasm(), Compiler::CraneliftSpeed);
    let refused = gate::compare("before", &winch, &cranelift, Thresholds::default());
    assert!(matches!(refused, Err(NotComparable::Compilers { .. })), "{refused:?}");
    let fuel = |report: &BenchReport| report.measured[0].roots[0].exchanges[0].counters.fuel;
    assert!(fuel(&winch).is_some() && fuel(&cranelift).is_some());
}

#[test]
fn another_machine_or_engine_gates_on_exact_counters_only() {
    let mut before = measure(&SAME.wasm(), Compiler::Winch);
    let mut after = before.clone();
    let slow = |samples: u64| vec![samples; 20];
    before.measured[0].load.total.cpu_ns = bench::report::Times::of(slow(10_000_000));
    after.measured[0].load.total.cpu_ns = bench::report::Times::of(slow(20_000_000));
    // The reference says that the machine is the same.
    for report in [&mut before, &mut after] {
        report.measured[0].reference_ns = bench::report::Times::of(slow(2_000_000));
    }
    assert_eq!(regressions(&before, &after), ["total cpu_ns"]);
    before.fingerprint.machine.cores += 1;
    before.measured[0].compiled_bytes /= 2;
    let comparison = compare(&before, &after);
    assert_eq!(comparison.regressions().count(), 0);
    assert!(comparison.remarks.iter().any(|remark| remark.contains("another machine")));
    // Fuel is none of the machine's.
    before.measured[0].roots[0].exchanges[0].counters.fuel = Some(1);
    assert_eq!(regressions(&before, &after), ["exchange fuel"]);
}

#[test]
fn a_slower_machine_is_no_slower_filter() {
    let mut before = measure(&SAME.wasm(), Compiler::Winch);
    let mut after = before.clone();
    for (report, factor) in [(&mut before, 10), (&mut after, 15)] {
        let times =
            |ns: u64| bench::report::Times::of((0..20).map(|n| (ns + n) * factor).collect());
        report.measured[0].load.total.cpu_ns = times(1_000_000);
        report.measured[0].reference_ns = times(200_000);
    }
    assert_eq!(regressions(&before, &after), Vec::<String>::new());
    let comparison = compare(&before, &after);
    assert!((comparison.slower_machine.unwrap() - 1.5).abs() < 0.01);
    // Without the reference it would be one.
    after.measured[0].reference_ns = before.measured[0].reference_ns.clone();
    assert_eq!(regressions(&before, &after), ["total cpu_ns"]);
}

#[test]
fn budgets() {
    let report = measure(&SAME.wasm(), Compiler::Winch);
    let over = |text: &str| {
        let budget: Budget = text.parse().unwrap();
        budget.spent(&report, &report.measured[0]).over
    };
    assert!(over("memory=1MiB") && !over("memory=2MiB"));
    assert!(over("fuel-configure=10k") && !over("fuel-configure=1M"));
    assert!(over("compile=1ns") && !over("compile=60s"));
    assert!(over("host-calls-per-exchange=0") && !over("host-calls-per-exchange=1"));
}

#[test]
fn a_saved_measurement_comes_back() {
    let report = measure(&SAME.wasm(), Compiler::Winch);
    let folder = tempfile::tempdir().unwrap();
    bench::baseline::save(&report, &folder.path().join("one.json")).unwrap();
    let newer = BenchReport { created: 5, busyness: Busyness::default(), ..report.clone() };
    bench::baseline::save(&newer, &folder.path().join("a.json")).unwrap();
    assert_eq!(bench::baseline::read(folder.path()).unwrap(), [report, newer]);
    for bad in ["{}", "", "{\"schema\": 99}", "{\"schema\": 1}"] {
        let path = folder.path().join("bad.json");
        std::fs::write(&path, bad).unwrap();
        assert!(bench::baseline::read(&path).is_err(), "{bad}");
    }
}

#[test]
fn instructions_are_shown_or_why_there_are_none() {
    let mut report = measure(&SAME.wasm(), Compiler::Winch);
    let shown = |report: &BenchReport| {
        let report = report.clone();
        let bench = Bench { report, comparisons: Vec::new(), budgets: Vec::new() };
        let page = html::render(std::slice::from_ref(&bench), &[]);
        let text = render_human(&bench, false, false);
        let json = render_json(bench, Layout::Pretty);
        (text, page, serde_json::from_str::<serde_json::Value>(&json).unwrap())
    };
    report.measured[0].load.phases.iter_mut().for_each(|phase| phase.times.instructions = None);
    report.instructions_not_counted = Some("set <this>".to_owned());
    let (text, page, json) = shown(&report);
    assert_eq!(text.matches("hardware instructions: not available (set <this>)\n").count(), 1);
    assert!(page.contains("hardware instructions: not available (set &lt;this&gt;)"));
    assert_eq!(json["instructions_not_counted"], "set <this>");
    let phase = &json["measured"][0]["load"]["phases"][0];
    assert_eq!(phase.get("instructions"), Some(&serde_json::Value::Null));

    report.instructions_not_counted = None;
    let counted = bench::report::Times::of(vec![1_234_567; 3]);
    report.measured[0].load.total.instructions = Some(counted);
    let (text, page, json) = shown(&report);
    assert!(text.contains("\ntotal  1,234,567  1,234,567 … 1,234,567\n"), "{text}");
    assert!(!text.contains("not available"), "{text}");
    assert!(page.contains("<h2>Hardware instructions</h2>") && page.contains("<td>1,234,567</td>"));
    let total = &json["measured"][0]["load"]["total"]["instructions"];
    assert_eq!((&total["median"], total.get("samples")), (&1_234_567.into(), None));

    // However many they are, the gate says nothing.
    let mut before = report.clone();
    before.measured[0].load.total.instructions = Some(bench::report::Times::of(vec![1; 3]));
    assert_eq!(regressions(&before, &report), Vec::<String>::new());
}

#[test]
fn a_load_from_the_store_compiles_nothing() {
    for compiler in [Compiler::Winch, Compiler::CraneliftSpeed] {
        let report = measure(&SAME.wasm(), compiler);
        let measured = &report.measured[0];
        assert_eq!(measured.not_from_store, None);
        let stored = measured.from_store.as_ref().unwrap();
        let phase = |load: &bench::report::Load, name| {
            load.phases.iter().find(|phase| phase.name == name).cloned()
        };
        assert!(phase(&measured.load, Phase::Compile).is_some());
        assert_eq!(phase(&measured.load, Phase::Artifact), None);
        assert!(phase(stored, Phase::Artifact).is_some());
        assert_eq!(phase(stored, Phase::Compile), None);
        let fuel = |load| phase(load, Phase::Configure).unwrap().counters.fuel;
        assert!(fuel(stored).is_some());
        assert_eq!(fuel(stored), fuel(&measured.load));

        let bench = Bench { report: report.clone(), comparisons: Vec::new(), budgets: Vec::new() };
        let page = html::render(std::slice::from_ref(&bench), &[]);
        let text = render_human(&bench, false, false);
        for way in ["cold", "from the store"] {
            let label = format!("{}, {way}", measured.compiler);
            assert!(page.contains(&format!(">{label}</text>")), "{label}");
            assert!(text.contains(&format!("  {label}")), "{label}");
        }
    }
}

#[test]
fn a_slower_load_from_the_store_is_caught() {
    let report = measure(&SAME.wasm(), Compiler::Winch);
    let with = |ns| {
        let mut report = report.clone();
        let measured = &mut report.measured[0];
        measured.reference_ns = bench::report::Times::of(vec![1_000_000; 20]);
        let total = &mut measured.from_store.as_mut().unwrap().total;
        total.cpu_ns = bench::report::Times::of(vec![ns; 20]);
        report
    };
    let before = with(1_000_000);
    // What a busy machine makes of the same build.
    assert_eq!(regressions(&before, &with(2_000_000)), Vec::<String>::new());
    let comparison = compare(&before, &with(2_200_000));
    let worse: Vec<_> = comparison.regressions().map(|worse| worse.place.clone()).collect();
    let name = Some("from the store".to_owned());
    assert_eq!(worse, [Place { what: "total", name, root_id: None }]);
}

#[test]
fn a_measurement_without_later_fields_still_loads() {
    fn forget(value: &mut serde_json::Value, later: &[&str]) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.retain(|name, _| !later.contains(&name.as_str()));
                fields.values_mut().for_each(|value| forget(value, later));
            }
            serde_json::Value::Array(all) => all.iter_mut().for_each(|value| forget(value, later)),
            _ => {}
        }
    }
    let report = measure(&SAME.wasm(), Compiler::Winch);
    let mut older = serde_json::to_value(&report).unwrap();
    let later = ["instructions", "instructions_not_counted", "from_store", "not_from_store"];
    forget(&mut older, &later);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), older.to_string()).unwrap();
    let older = bench::baseline::read(file.path()).unwrap().remove(0);
    assert_eq!(older.instructions_not_counted, None);
    assert_eq!(older.measured[0].load.total.instructions, None);
    assert_eq!(older.measured[0].from_store, None);
    assert_eq!(regressions(&older, &report), Vec::<String>::new());
}

/// Processes that keep all cores busy until this goes.
struct Noise(Vec<Child>);

impl Noise {
    fn begin() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let busy = |_| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..cores).map(busy).collect())
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The same and changed builds on a machine whose cores are all busy with something else, by the command
/// itself. It takes minutes, and so does not run with the others:
///
///     cargo test --release --test bench_gate -- --ignored --nocapture
#[test]
#[ignore = "it takes minutes"]
fn no_false_alarm_on_a_busy_machine() {
    const PAIRS: u32 = 20;
    let folder = tempfile::tempdir().unwrap();
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt/rate-limit.wasm");
    let real = real.to_str().unwrap();
    let write = |name: &str, build: Build| {
        let path = folder.path().join(name);
        std::fs::write(&path, build.wasm()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let same = write("same.wasm", SAME);
    let changed = [
        write("work.wasm", MORE_WORK),
        write("code.wasm", MORE_CODE),
        write("memory.wasm", MORE_MEMORY),
    ];
    let saved = folder.path().join("saved.json");
    let saved = saved.to_str().unwrap();
    let fails = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_filtergate"));
        let output = command.arg("bench").args(words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => None,
            Some(1) => Some(text),
            other => {
                panic!("{words:?} exits {other:?}: {}", String::from_utf8_lossy(&output.stderr))
            }
        }
    };
    let _noise = Noise::begin();
    let (mut alarms, mut caught) = (Vec::new(), [0; 3]);
    for _ in 0..PAIRS {
        for filter in [real, &same] {
            assert!(fails(&[filter, "--save", saved]).is_none());
            alarms.extend(fails(&[filter, "--baseline", saved]));
            alarms.extend(fails(&[filter, filter]));
        }
        for (caught, changed) in caught.iter_mut().zip(&changed) {
            *caught += u32::from(fails(&[changed, "--baseline", saved]).is_some());
        }
    }
    for alarm in &alarms {
        println!("{alarm}");
    }
    println!(
        "{} false alarms in {PAIRS} pairs of each kind; more work, code and memory caught {caught:?}",
        alarms.len()
    );
    assert!(alarms.is_empty());
    assert_eq!(caught, [PAIRS; 3]);
}
