//! filtergate's own speed as a number that no other process changes: the instructions that
//! `filtergate check` takes, counted by valgrind, against those of a process that does the unavoidable part
//! alone (reads, hashes, and validates or compiles the same module). See README.md beside this file.
//!
//! It fails where a ratio is over the one in `instructions.json` by more than the tolerance there, if both
//! were counted with the same compiler, valgrind and number of cores.
//! `FILTERGATE_BLESS=1` writes what was counted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use filtergate::{
    image::Digest,
    vm::{Compiler, build_engine},
};
use serde::{Deserialize, Serialize};

/// What is accepted, by the name of what is counted.
#[derive(Serialize, Deserialize)]
struct Accepted {
    /// How much more than the recorded ratio is let pass: 0.02 is two per cent.
    tolerance: f64,
    /// What the ratios were counted with. Another compiler or another number of cores makes others.
    counted_with: String,
    /// Instructions of filtergate for each one of the process that does the unavoidable part alone.
    ratios: BTreeMap<String, f64>,
}

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Filters of three languages: the smallest, one of the middle, the largest.
const FILTERS: [&str; 3] = ["limit-body", "redact-body", "rewrite-headers"];
/// A child process that does the unavoidable part: `--bare validate|compile FILE`.
const BARE: &str = "--bare";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, what, file] = &arguments[..]
        && flag == BARE
    {
        std::process::exit(i32::from(!bare(what, Path::new(file))));
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: instructions: valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let counted = count_all();
    judge(&counted)
}

fn bare(what: &str, file: &Path) -> bool {
    let wasm = fs::read(file).unwrap_or_default();
    std::hint::black_box(Digest::sha256(&wasm));
    match what {
        "validate" => wasmparser::Validator::new().validate_all(&wasm).is_ok(),
        _ => build_engine(Compiler::Winch, false)
            .and_then(|engine| wasmtime::Module::from_binary(&engine, &wasm))
            .is_ok_and(|module| {
                // A process that ends need not free it.
                std::mem::forget(module);
                true
            }),
    }
}

fn count_all() -> BTreeMap<String, f64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let me = std::env::current_exe().expect("the path of this program");
    let mut ratios = BTreeMap::new();
    for filter in FILTERS {
        let file = folder.join(filter).with_extension("wasm");
        // The same module without an ABI marker: the static checks have it all, and nothing is compiled.
        let unmarked = scratch.path().join(filter).with_extension("wasm");
        let wasm = fs::read(&file).expect("a sample filter");
        fs::write(&unmarked, without_marker(wasm)).expect("a temporary file");
        for (name, what, module, status) in
            [("static", "validate", &unmarked, 1), ("executed", "compile", &file, 0)]
        {
            let mut check = valgrind(env!("CARGO_BIN_EXE_filtergate").as_ref());
            check.args(["check", "--quiet", "--no-cache"]).arg(module);
            let mut alone = valgrind(&me);
            alone.args([BARE, what]).arg(module);
            let ratio = instructions(&mut check, status) / instructions(&mut alone, 0);
            println!("{name} {filter}: {ratio:.3} of the bare process's instructions");
            ratios.insert(format!("{name} {filter}"), (ratio * 1000.0).round() / 1000.0);
        }
    }
    ratios
}

/// The module with the name of its marker changed.
fn without_marker(mut wasm: Vec<u8>) -> Vec<u8> {
    const MARKER: &[u8] = b"proxy_abi_version_";
    let at = wasm.windows(MARKER.len()).position(|name| name == MARKER).expect("a marker");
    wasm[at] = b'q';
    wasm
}

fn valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    // The loader and the program read it: it is no part of what is compared.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn instructions(command: &mut Command, status: i32) -> f64 {
    let output = command.output().expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{command:?}:\n{text}");
    let line = text.lines().find(|line| line.contains("refs:")).expect("a count");
    let digits: String = line.rsplit(':').next().unwrap_or_default().replace(',', "");
    digits.trim().parse().expect("a number")
}

fn counted_with() -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_else(|_| format!("no {program}"))
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {}, {cores} cores", version("rustc"), version("valgrind"))
}

fn judge(counted: &BTreeMap<String, f64>) -> ExitCode {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let text = fs::read_to_string(&file).expect("benches/instructions.json");
    let mut accepted: Accepted = serde_json::from_str(&text).expect("what is accepted");
    if std::env::var_os("FILTERGATE_BLESS").is_some() {
        accepted.ratios.clone_from(counted);
        accepted.counted_with = counted_with();
        let text = serde_json::to_string_pretty(&accepted).expect("plain data");
        fs::write(&file, format!("{text}\n")).expect("benches/instructions.json");
        return ExitCode::SUCCESS;
    }
    let with = counted_with();
    if with != accepted.counted_with {
        eprintln!("NOT GATED: counted with {with}, recorded with {}", accepted.counted_with);
        return ExitCode::SUCCESS;
    }
    let over: Vec<_> = counted
        .iter()
        .filter_map(|(name, ratio)| {
            let Some(recorded) = accepted.ratios.get(name) else {
                return Some(format!("{name}: nothing is recorded"));
            };
            let limit = recorded * (1.0 + accepted.tolerance);
            (*ratio > limit).then(|| format!("{name}: {ratio:.3}, recorded {recorded:.3}"))
        })
        .collect();
    if over.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("slower than recorded in benches/instructions.json:\n  {}", over.join("\n  "));
    eprintln!("if that is meant, run this again with FILTERGATE_BLESS=1 and say why in the commit");
    ExitCode::FAILURE
}
