//! The speed that filtergate promises: whole processes of `filtergate check` over every sample filter,
//! against what cannot be saved, in processes that do nothing else, and against the start of a real Envoy,
//! where FILTERGATE_ENVOY names one. See README.md beside this file.
//!
//! It prints ratios and judges nothing: no test depends on a clock.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use filtergate::{
    bench::Summary,
    image::Digest,
    module::{Engine, validate},
    parity::{Envoy, Setup},
    report::units::time,
    vm::{Compiler, build_engine},
};
use nix::sys::resource::{UsageWho, getrusage};

/// The program's own, so that a bare compile is the same compile.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 15;
/// What a process of this program does instead of measuring: `--only WHAT FILE`.
const ONLY: &str = "--only";
/// Code above this size is compiled on all cores, as by the program.
const PARALLEL_BYTES: usize = 32 << 10;

/// What cannot be saved, each with all before it.
const PARTS: [&str; 4] = ["nothing", "hash", "validate", "compile"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[..] {
        [_, only, what, file] if only == ONLY => do_only(what, Path::new(file)),
        _ => measure(),
    }
}

/// Exits without freeing anything, as the program does.
fn do_only(what: &str, file: &Path) -> ! {
    if what != "nothing" {
        let wasm = fs::read(file).expect("a module");
        std::hint::black_box(Digest::sha256(&wasm));
        match what {
            "validate" => assert!(validate(&wasm, Engine::EnvoyV8).is_ok()),
            "compile" => {
                let engine = build_engine(Compiler::Winch, wasm.len() > PARALLEL_BYTES);
                let engine = engine.expect("an engine for this machine");
                let module = wasmtime::Module::from_binary(&engine, &wasm);
                std::mem::forget(module.expect("a module that Winch takes"));
            }
            _ => {}
        }
    }
    std::process::exit(0)
}

/// Of one process.
struct Cost {
    wall_ns: u64,
    cpu_ns: u64,
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the usage of children");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn run(command: &mut Command) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (cpu, begun) = (cpu_of_children(), Instant::now());
    let status = command.status().expect("the program runs");
    let (wall, cpu) = (begun.elapsed(), cpu_of_children() - cpu);
    assert!(status.code().is_some_and(|code| code < 2), "{command:?}: {status}");
    Cost { wall_ns: nanoseconds(wall), cpu_ns: nanoseconds(cpu) }
}

/// The sample filters, or those of the folder that FILTERGATE_FILTERS names.
fn filters() -> Vec<PathBuf> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt");
    let folder = std::env::var_os("FILTERGATE_FILTERS").map_or(samples, PathBuf::from);
    let entries = fs::read_dir(folder).expect("a folder with filters");
    let mut filters: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    filters.sort();
    filters
}

/// The filter with an import that no Envoy has, in place of one that it has: as large, as valid, and
/// refused without a compile. Where it has none of these imports, there is none.
fn with_a_missing_import(filter: &Path, folder: &Path) -> Option<PathBuf> {
    let mut wasm = fs::read(filter).ok()?;
    let name = b"\x09proxy_log";
    let at = wasm.windows(name.len()).position(|window| window == name)?;
    wasm[at + name.len() - 1] = b'q';
    let path = folder.join("missing.wasm");
    fs::write(&path, wasm).ok()?;
    Some(path)
}

/// The processes that are compared, in the order in which they run.
#[derive(Clone, Copy)]
enum What {
    Part(usize),
    Empty,
    Static,
    Cold,
    Traced,
    Warm,
    Envoy,
}

const ALL: [What; 10] = [
    What::Part(0),
    What::Part(1),
    What::Part(2),
    What::Part(3),
    What::Empty,
    What::Static,
    What::Cold,
    What::Traced,
    What::Warm,
    What::Envoy,
];

/// What they are run on.
struct On<'a> {
    filter: &'a Path,
    /// See [`with_a_missing_import`].
    missing: Option<&'a Path>,
    store: &'a Path,
    envoy: Option<&'a Path>,
}

impl On<'_> {
    /// `None` where there is nothing to run.
    fn run(&self, what: What) -> Option<Cost> {
        match what {
            What::Envoy => Some(start(self.envoy?, self.filter)),
            what => Some(run(&mut self.command(what)?)),
        }
    }

    fn command(&self, what: What) -> Option<Command> {
        let mut command = Command::new(match what {
            What::Part(_) => std::env::current_exe().expect("the path of this program"),
            _ => env!("CARGO_BIN_EXE_filtergate").into(),
        });
        match what {
            What::Part(part) => command.args([ONLY, PARTS[part]]).arg(self.filter),
            What::Empty => command.arg("--version"),
            What::Static => command.args(["check", "--no-cache"]).arg(self.missing?),
            What::Cold => command.args(["check", "--no-cache"]).arg(self.filter),
            What::Traced => command.args(["check", "--no-cache", "--trace", "-v"]).arg(self.filter),
            What::Warm => command.arg("check").arg(self.filter).env("FILTERGATE_CACHE", self.store),
            What::Envoy => return None,
        };
        Some(command)
    }
}

/// Until Envoy serves, or has refused the filter.
fn start(envoy: &Path, filter: &Path) -> Cost {
    let setup = Setup { module: fs::read(filter).ok(), ..Setup::default() };
    let (cpu, begun) = (cpu_of_children(), Instant::now());
    let started = Envoy::start(envoy, &setup).expect("an Envoy that runs");
    let wall = begun.elapsed();
    assert!(started.loads() || started.has_ended(), "Envoy hangs with {}", filter.display());
    drop(started);
    Cost { wall_ns: nanoseconds(wall), cpu_ns: nanoseconds(cpu_of_children() - cpu) }
}

/// Ratios of one kind over the filters.
struct Row {
    what: &'static str,
    ratios: Vec<f64>,
    /// Whether a large ratio is a good one.
    more_is_better: bool,
}

impl Row {
    fn new(what: &'static str, more_is_better: bool) -> Self {
        Self { what, ratios: Vec::new(), more_is_better }
    }

    /// Without what was not measured.
    fn add(&mut self, one: u64, other: u64) {
        if one > 0 && other > 0 {
            self.ratios.push(one as f64 / other as f64);
        }
    }

    fn print(&self) {
        if self.ratios.is_empty() {
            println!("{:<54} not measured", self.what);
            return;
        }
        let logarithms = self.ratios.iter().map(|ratio| ratio.ln()).sum::<f64>();
        let mean = (logarithms / self.ratios.len() as f64).exp();
        let (first, worse): (f64, fn(f64, f64) -> f64) =
            if self.more_is_better { (f64::INFINITY, f64::min) } else { (0.0, f64::max) };
        let worst = self.ratios.iter().copied().fold(first, worse);
        println!("{:<54} geometric mean {mean:5.2}, worst {worst:5.2}", self.what);
    }
}

fn measure() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let store = scratch.path().join("store");
    let envoy = std::env::var_os("FILTERGATE_ENVOY").map(PathBuf::from);
    if envoy.is_none() {
        eprintln!("SKIPPED: the rows of Envoy: FILTERGATE_ENVOY is not set to the path of one");
    }
    let mut of_static = [
        Row::new("static verdict / (empty, read, hash, validate)", false),
        Row::new("  CPU", false),
        Row::new("  wall / (1.15 of these + 0.5 ms), the goal", false),
    ];
    let mut of_cold = [
        Row::new("cold verdict / (empty, read, hash, compile)", false),
        Row::new("  CPU", false),
        Row::new("  wall / (1.05 of these + 1 ms), the goal", false),
    ];
    let mut of_warm = [
        Row::new("verdict from the store / (empty, read, hash)", false),
        Row::new("  CPU", false),
        Row::new("  wall / 1.5 of these, the goal", false),
    ];
    let mut traced_cpu = Row::new("trace and full report on / off, CPU", false);
    let mut envoy_static = [Row::new("Envoy / static verdict", true), Row::new("  CPU", true)];
    let mut envoy_cold = [Row::new("Envoy / cold verdict", true), Row::new("  CPU", true)];
    let mut envoy_warm =
        [Row::new("Envoy / verdict from the store", true), Row::new("  CPU", true)];
    let mut envoy_empty = [Row::new("Envoy / empty", true), Row::new("  CPU", true)];
    println!("whole processes, medians of {ROUNDS} rounds, wall");
    let columns = ["empty", "static", "compile", "cold", "warm", "Envoy"];
    println!("{:<18}{}", "", columns.map(|column| format!("{column:>10}")).concat());
    for filter in filters() {
        let missing = with_a_missing_import(&filter, scratch.path());
        let (missing, envoy) = (missing.as_deref(), envoy.as_deref());
        let on = On { filter: &filter, missing, store: &store, envoy };
        let mut samples = ALL.map(|_| (Vec::new(), Vec::new()));
        // One after another in each round, so that a slow minute of the machine hits all of them. The
        // first round is for the page cache and the store.
        for round in 0..=ROUNDS {
            for (what, (wall, cpu)) in ALL.iter().zip(&mut samples) {
                if let Some(cost) = on.run(*what)
                    && round > 0
                {
                    wall.push(cost.wall_ns);
                    cpu.push(cost.cpu_ns);
                }
            }
        }
        let median = |samples: &[u64]| Summary::of(samples).map_or(0, |summary| summary.median);
        let wall = samples.each_ref().map(|(wall, _)| median(wall));
        let cpu = samples.each_ref().map(|(_, cpu)| median(cpu));
        for (at, medians) in [wall, cpu].into_iter().enumerate() {
            let [nothing, hash, validate, compile, empty, fixed, cold, traced, warm, envoy] =
                medians;
            // The program's own start, and what the others take beside theirs.
            let floor = |part: u64| empty + part.saturating_sub(nothing);
            of_static[at].add(fixed, floor(validate));
            of_cold[at].add(cold, floor(compile));
            of_warm[at].add(warm, floor(hash));
            if at == 0 {
                of_static[2].add(fixed, floor(validate) * 115 / 100 + 500_000);
                of_cold[2].add(cold, floor(compile) * 105 / 100 + 1_000_000);
                of_warm[2].add(warm, floor(hash) * 3 / 2);
            } else {
                traced_cpu.add(traced, cold);
            }
            envoy_static[at].add(envoy, fixed);
            envoy_cold[at].add(envoy, cold);
            envoy_warm[at].add(envoy, warm);
            envoy_empty[at].add(envoy, empty);
        }
        let [nothing, _, _, compile, empty, fixed, cold, _, warm, envoy] = wall;
        let shown = [empty, fixed, compile.saturating_sub(nothing), cold, warm, envoy];
        let shown = shown.map(|ns| if ns == 0 { "-".to_owned() } else { time(ns) });
        let name = filter.file_stem().unwrap_or_default().to_string_lossy();
        println!("{name:<18}{}", shown.map(|time| format!("{time:>10}")).concat());
    }
    let of_envoy = [envoy_static, envoy_cold, envoy_warm, envoy_empty];
    let rows = [of_static, of_cold, of_warm].into_iter().flatten();
    rows.chain(of_envoy.into_iter().flatten()).chain([traced_cpu]).for_each(|row| row.print());
}
