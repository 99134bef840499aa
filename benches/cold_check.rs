//! The speed that filtergate promises: `filtergate check` of the largest sample filter, the whole
//! process, against the fastest bare compile of the same module: without a store, with an empty one,
//! and with the module compiled in it. See README.md beside this file.
//!
//! It prints ratios and judges nothing: no test depends on a clock.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use filtergate::{
    bench::Summary,
    image::Digest,
    report::units::time,
    vm::{Compiler, build_engine},
};

const ROUNDS: usize = 21;
/// A child process that only reads and hashes: `--bare-hash FILE`.
const BARE_HASH: &str = "--bare-hash";
/// A child process that only compiles: `--bare-compile COMPILER FILE`.
const BARE: &str = "--bare-compile";
const COMPILERS: [(&str, Compiler); 3] = [
    ("winch", Compiler::Winch),
    ("cranelift-fast", Compiler::CraneliftFast),
    ("cranelift", Compiler::CraneliftSpeed),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, compiler, file] = &arguments[..]
        && flag == BARE
    {
        compile(compiler, Path::new(file));
    }
    if let [_, flag, file] = &arguments[..]
        && flag == BARE_HASH
    {
        let wasm = fs::read(file).expect("a module");
        std::hint::black_box(Digest::sha256(&wasm));
        std::process::exit(0);
    }
    measure();
}

/// Reads and compiles a module in a process of its own, and exits without freeing it.
fn compile(name: &str, file: &Path) -> ! {
    let compiler =
        COMPILERS.iter().find(|(known, _)| *known == name).map(|(_, compiler)| *compiler);
    let compiled = compiler.is_some_and(|compiler| {
        let wasm = fs::read(file).unwrap_or_default();
        let engine = build_engine(compiler, false);
        engine.and_then(|engine| wasmtime::Module::from_binary(&engine, &wasm)).is_ok_and(
            |module| {
                std::mem::forget(module);
                true
            },
        )
    });
    std::process::exit(if compiled { 0 } else { 1 })
}

fn largest_filter() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt");
    fs::read_dir(&folder)
        .expect("filters/prebuilt is part of the repository")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .expect("filters/prebuilt has filters")
}

/// Runs a process to its end and answers its wall time.
fn wall_ns(command: &mut Command) -> u64 {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let elapsed = begun.elapsed();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

fn measure() {
    let file = largest_filter();
    let me = std::env::current_exe().expect("the path of this program");
    let tool = env!("CARGO_BIN_EXE_filtergate");
    let mut empty = Command::new(tool);
    empty.arg("--version");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let check = |store: Option<&Path>| {
        let mut check = Command::new(tool);
        check.args(["check", "--format", "json"]).arg(&file);
        match store {
            Some(store) => check.env("FILTERGATE_CACHE", store),
            None => check.arg("--no-cache"),
        };
        check
    };
    let (cold, warm) = (scratch.path().join("cold"), scratch.path().join("warm"));
    let mut hash = Command::new(&me);
    hash.arg(BARE_HASH).arg(&file);
    let mut commands = vec![
        ("empty process".to_owned(), empty),
        ("check without a store".to_owned(), check(None)),
        ("check with an empty store".to_owned(), check(Some(&cold))),
        ("check, compiled before".to_owned(), check(Some(&warm))),
        ("bare read and hash".to_owned(), hash),
    ];
    let first_compile = commands.len();
    for (name, _) in COMPILERS {
        let mut bare = Command::new(&me);
        bare.args([BARE, name]).arg(&file);
        commands.push((format!("bare compile, {name}"), bare));
    }

    // One after another in each round, so that a slow minute of the machine hits all of them. The
    // first round is for the page cache.
    let mut samples = vec![Vec::with_capacity(ROUNDS); commands.len()];
    for round in 0..=ROUNDS {
        for (samples, (_, command)) in samples.iter_mut().zip(&mut commands) {
            let wall = wall_ns(command);
            let _ = fs::remove_dir_all(&cold);
            if round > 0 {
                samples.push(wall);
            }
        }
    }

    println!("{}, {ROUNDS} rounds, wall time of whole processes", file.display());
    let summaries: Vec<_> = samples.iter().filter_map(|samples| Summary::of(samples)).collect();
    for ((name, _), summary) in commands.iter().zip(&summaries) {
        println!(
            "{name:<30} median {:>9}  MAD {:>9}  min {:>9}",
            time(summary.median),
            time(summary.mad),
            time(summary.min)
        );
    }
    let median = |at: usize| summaries[at].median as f64;
    let fastest = (first_compile..summaries.len()).map(median).fold(f64::INFINITY, f64::min);
    let [alone, empty, warm, floor] = [median(1), median(2), median(3), median(4)];
    println!("check / fastest bare compile: {:.2} (the goal is 1.50 or less)", alone / fastest);
    println!("with an empty store, until the module is kept: {:.2}", empty / fastest);
    println!(
        "compiled before: {:.2} of it, {:.2} of reading and hashing alone (the goal is 1.50)",
        warm / fastest,
        warm / floor
    );
}
