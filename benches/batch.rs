//! Many images at once: `filtergate check` of 200 images in one layout, on one core and with a job for
//! each core, in turn. See README.md beside this file.
//!
//! It prints ratios and judges nothing: no test depends on a clock.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use filtergate::{bench::Summary, image::Digest, report::units::time};
use serde_json::json;

const IMAGES: usize = 200;
const ROUNDS: usize = 11;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = modules(root);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layout = folder.path().join("images");
    let tags: Vec<String> = (0..IMAGES).map(|at| format!("image-{at}")).collect();
    let images = tags.iter().zip(modules.iter().cycle());
    write_layout(&layout, images.map(|(tag, (_, wasm))| (tag.as_str(), wasm.as_slice())));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let check = |jobs: usize| {
        let program = env!("CARGO_BIN_EXE_filtergate");
        let mut check = match jobs {
            // One job alone would still compile on all cores.
            1 => {
                let mut check = Command::new("taskset");
                check.args(["--cpu-list", "0", program]);
                check
            }
            _ => Command::new(program),
        };
        check.args(["check", "--no-cache", "--format", "json", "--jobs", &jobs.to_string()]);
        // Of the modules that loop, enough is enough.
        check.args(["--callback-timeout", "100ms"]);
        check.args(tags.iter().map(|tag| format!("oci:{}:{tag}", layout.display())));
        check
    };
    // In a round of its own: to look takes time.
    let peak_kib = [1, cores].map(|jobs| peak_kib(&mut check(jobs))).into_iter().max();
    let peak_kib = peak_kib.unwrap_or_default();
    let mut samples: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for jobs in [1, cores] {
            samples.entry(jobs).or_default().push(wall_ns(&mut check(jobs)));
        }
    }
    println!("{IMAGES} images of {} modules, {ROUNDS} rounds", modules.len());
    let medians: BTreeMap<usize, u64> =
        samples.iter().filter_map(|(jobs, all)| Some((*jobs, Summary::of(all)?.median))).collect();
    for (jobs, median) in &medians {
        println!("{jobs} cores: median {}", time(*median));
    }
    if let (Some(one), Some(all)) = (medians.get(&1), medians.get(&cores)) {
        let ratio = *one as f64 / *all as f64;
        println!("one core / {cores} cores: {ratio:.2} (the goal is 1.80 or more on two cores)");
    }
    println!("peak memory: {} MiB (the goal is below 1024)", peak_kib >> 10);
}

/// The small modules with one fault or feature each, and the sample filters.
fn modules(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut modules = Vec::new();
    for folder in ["filters/prebuilt", "tests/envoy_records/edge"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder of the repository");
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            modules.push((name, fs::read(&path).expect("a module")));
        }
    }
    modules.sort();
    modules
}

fn write_layout<'a>(layout: &Path, images: impl Iterator<Item = (&'a str, &'a [u8])>) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder for the blobs");
    let write = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("a blob");
        digest.to_string()
    };
    let config = write(b"{}");
    let entries: Vec<_> = images
        .map(|(tag, wasm)| {
            let layer = write(wasm);
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
                "layers": [{
                    "mediaType": "application/vnd.module.wasm.content.layer.v1+wasm",
                    "digest": layer, "size": wasm.len(),
                }],
            });
            let manifest = manifest.to_string();
            json!({
                "mediaType": MANIFEST, "digest": write(manifest.as_bytes()), "size": manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": tag },
            })
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(layout.join("index.json"), index.to_string()).expect("the index");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the marker");
}

fn quietly(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn wall_ns(command: &mut Command) -> u64 {
    let begun = Instant::now();
    let status = quietly(command).status().expect("the program runs");
    let elapsed = begun.elapsed();
    // Some of the modules do not pass.
    assert!(status.code().is_some_and(|code| code < 4), "{command:?}: {status}");
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Peak memory as far as it was seen, in KiB.
fn peak_kib(command: &mut Command) -> u64 {
    let mut child = quietly(command).spawn().expect("the program runs");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak_kib = 0;
    while child.try_wait().expect("a child of this process").is_none() {
        peak_kib = peak_kib.max(high_water_kib(&status).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    peak_kib
}

fn high_water_kib(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
