//! How fast an image comes: `filtergate inspect` of one whose module has 64 MiB, from a registry on
//! this machine, against `skopeo copy` of the same to a directory. Both are whole processes, and
//! both verify what comes. See README.md beside this file.
//!
//! `FILTERGATE_REGISTRY` is the `HOST:PORT` of a registry that takes pushes, `FILTERGATE_SKOPEO` the
//! path of skopeo if that is not on the path. It prints ratios and judges nothing: no test depends on
//! a clock.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use filtergate::{bench::Summary, image::Digest, report::units::time};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

const ROUNDS: usize = 11;
const MODULE_BYTES: usize = 64 << 20;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() {
    let Ok(registry) = std::env::var("FILTERGATE_REGISTRY") else {
        println!("SKIPPED: set FILTERGATE_REGISTRY to the HOST:PORT of a registry on loopback");
        return;
    };
    let skopeo = std::env::var("FILTERGATE_SKOPEO").unwrap_or_else(|_| "skopeo".to_owned());
    let module = module();
    for (shape, media_type, layer) in [
        ("spec-v0.0.0", "application/vnd.module.wasm.content.layer.v1+wasm", module.clone()),
        ("compat-oci", "application/vnd.oci.image.layer.v1.tar+gzip", archive(&module)),
    ] {
        let folder = tempfile::tempdir().expect("a folder for an image");
        layout(folder.path(), media_type, &layer);
        let reference = format!("{registry}/filtergate-bench/{shape}:v1");
        let mut push = skopeo_copy(&skopeo);
        push.arg("--dest-tls-verify=false").arg(format!("oci:{}", folder.path().display()));
        wall_ns(push.arg(format!("docker://{reference}")));
        measure(shape, &skopeo, &reference);
    }
}

/// A module that nothing can compress: the whole of it is one custom section.
fn module() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(MODULE_BYTES / 8)
    .flatten()
    .collect();
    let mut module = wasm_encoder::Module::new();
    module.section(&wasm_encoder::CustomSection { name: "content".into(), data: content.into() });
    module.finish()
}

/// What cannot be compressed is stored, as the gzip of container builders does.
fn archive(module: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
    let mut header = tar::Header::new_ustar();
    header.set_size(module.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "plugin.wasm", module).expect("written to memory");
    builder.into_inner().and_then(GzEncoder::finish).expect("written to memory")
}

/// An OCI layout with one image.
fn layout(folder: &Path, media_type: &str, layer: &[u8]) {
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder)).expect("a folder in the layout");
        fs::write(path, content).expect("a file in the layout");
    };
    let blob = |media_type: &str, content: &[u8]| -> Value {
        let digest = Digest::sha256(content);
        write(&format!("blobs/sha256/{}", digest.hex()), content);
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [blob(media_type, layer)],
    });
    let entry = blob(OCI_MANIFEST, manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    write("index.json", index.to_string().as_bytes());
    write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
}

fn skopeo_copy(skopeo: &str) -> Command {
    let mut command = Command::new(skopeo);
    command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    command
}

/// Runs a process to its end and answers its wall time.
fn wall_ns(command: &mut Command) -> u64 {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let elapsed = begun.elapsed();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {stderr}");
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

fn measure(shape: &str, skopeo: &str, reference: &str) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turn, so that a slow minute of the machine hits both. The first round is for the page cache.
    for round in 0..=ROUNDS {
        // Both begin with nothing and keep what they got.
        let folder = tempfile::tempdir().expect("a folder for what is pulled");
        let mut inspect = Command::new(env!("CARGO_BIN_EXE_filtergate"));
        inspect.args(["inspect", reference]).env("FILTERGATE_CACHE", folder.path().join("cache"));
        let mut copy = skopeo_copy(skopeo);
        copy.arg(format!("docker://{reference}"));
        copy.arg(format!("dir:{}", folder.path().join("copy").display()));
        let walls = (wall_ns(&mut inspect), wall_ns(&mut copy));
        if round > 0 {
            ours.push(walls.0);
            theirs.push(walls.1);
        }
    }
    println!("{shape}, {} MiB, {ROUNDS} rounds, whole processes", MODULE_BYTES >> 20);
    let medians = [("filtergate inspect", &ours), ("skopeo copy to a directory", &theirs)].map(
        |(name, samples)| {
            let Some(summary) = Summary::of(samples) else { return 1 };
            println!(
                "{name:<30} median {:>9}  MAD {:>9}  min {:>9}",
                time(summary.median),
                time(summary.mad),
                time(summary.min)
            );
            summary.median
        },
    );
    let ratio = medians[0] as f64 / medians[1] as f64;
    println!("filtergate / skopeo, {shape}: {ratio:.2} (the goal is 1.20 or less)");
}
