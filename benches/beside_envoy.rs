//! `filtergate check` beside a real Envoy: for each sample filter, the time from the start of the process
//! to the verdict, cold and from the store, against the time from the start of Envoy until it has loaded the
//! filter. See README.md beside this file.
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
    parity::{Envoy, Setup, release},
    report::units::time,
};

const ROUNDS: usize = 7;

fn main() {
    let Some(envoy) = std::env::var_os("FILTERGATE_ENVOY").map(PathBuf::from) else {
        eprintln!("SKIPPED: beside_envoy: FILTERGATE_ENVOY is not set to the path of an Envoy");
        return;
    };
    let release = release(&envoy).expect("an Envoy that runs");
    println!("wall time to the verdict, medians of {ROUNDS} rounds, Envoy {release}");
    let mut ratios = [Vec::new(), Vec::new()];
    for filter in filters() {
        let name = filter.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let warm = scratch.path().join("warm");
        let mut samples = [Vec::new(), Vec::new(), Vec::new()];
        // One after another in each round, so that a slow minute of the machine hits all of them. The
        // first round is for the page cache and the store.
        for round in 0..=ROUNDS {
            let cold = scratch.path().join(format!("cold-{round}"));
            let times = [check(&filter, &cold), check(&filter, &warm), start(&envoy, &filter)];
            if round > 0 {
                for (samples, time) in samples.iter_mut().zip(times) {
                    samples.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
                }
            }
        }
        let [cold, warm, envoy] =
            samples.map(|samples| Summary::of(&samples).map_or(1, |summary| summary.median));
        let [of_cold, of_warm] = [cold, warm].map(|median| envoy as f64 / median as f64);
        println!(
            "{name:<18} cold {:>9}  warm {:>9}  Envoy {:>9}  Envoy/cold {of_cold:>5.1}  Envoy/warm {of_warm:>5.1}",
            time(cold),
            time(warm),
            time(envoy),
        );
        ratios[0].push(of_cold);
        ratios[1].push(of_warm);
    }
    for (what, ratios) in ["cold", "warm"].iter().zip(&ratios) {
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let worst = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        println!("Envoy/{what}: geometric mean {mean:.1}, worst {worst:.1}");
    }
}

fn filters() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt");
    let entries = fs::read_dir(folder).expect("filters/prebuilt is part of the repository");
    let mut filters: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    filters.sort();
    filters
}

/// Load, exchanges and all, with the defaults of the command.
fn check(filter: &Path, store: &Path) -> Duration {
    let mut check = Command::new(env!("CARGO_BIN_EXE_filtergate"));
    check.args(["check", "--quiet"]).arg(filter).env("FILTERGATE_CACHE", store);
    let begun = Instant::now();
    let status = check.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let elapsed = begun.elapsed();
    assert!(status.is_ok_and(|status| status.code().is_some_and(|code| code < 2)), "{check:?}");
    elapsed
}

/// Until Envoy serves, or has refused the filter.
fn start(envoy: &Path, filter: &Path) -> Duration {
    let setup = Setup { module: fs::read(filter).ok(), ..Setup::default() };
    let begun = Instant::now();
    let started = Envoy::start(envoy, &setup).expect("an Envoy that runs");
    let elapsed = begun.elapsed();
    assert!(started.loads() || started.has_ended(), "Envoy hangs with {}", filter.display());
    elapsed
}
