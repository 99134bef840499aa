//! The sample filters: that the prebuilt modules are the recorded ones, are built
//! from the sources beside them, stay small, and are what the example image holds.
//!
//! Goes by content and not by time stamps, which a checkout does not keep.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MAX_TOTAL_SIZE: u64 = 2 * 1024 * 1024;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn filters() -> PathBuf {
    root().join("filters")
}

fn prebuilt() -> PathBuf {
    filters().join("prebuilt")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

fn read_text(path: &Path) -> String {
    String::from_utf8(read(path)).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One line of `filters/FILTERS`.
struct Filter {
    name: String,
    abi: String,
    committed: bool,
    sources: Vec<String>,
}

impl Filter {
    fn file(&self) -> String {
        format!("{}.wasm", self.name)
    }

    /// The digest that `build.sh` records: of the `sha256sum` lines of all source
    /// files, sorted by path.
    fn sources_digest(&self) -> String {
        let mut files = Vec::new();
        for source in &self.sources {
            list_files(source, &mut files);
        }
        files.sort();
        let lines: String = files
            .iter()
            .map(|file| format!("{}  {file}\n", sha256(&read(&filters().join(file)))))
            .collect();
        sha256(lines.as_bytes())
    }
}

/// Adds the files at or below a path. Paths are relative to `filters/`.
fn list_files(path: &str, files: &mut Vec<String>) {
    let full = filters().join(path);
    if !full.is_dir() {
        files.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(&full).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        let name = entry.file_name();
        list_files(&format!("{path}/{}", name.to_str().expect("a name in UTF-8")), files);
    }
}

/// The lines of a text table, without comments.
fn rows(path: &Path) -> Vec<Vec<String>> {
    read_text(path)
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

fn table() -> Vec<Filter> {
    rows(&filters().join("FILTERS"))
        .into_iter()
        .map(|row| {
            let [name, _language, abi, committed, _root_ids, sources @ ..] = row.as_slice() else {
                panic!("filters/FILTERS: too few columns: {row:?}");
            };
            assert!(!sources.is_empty(), "filters/FILTERS: `{name}` has no sources");
            let committed = match committed.as_str() {
                "yes" => true,
                "no" => false,
                other => panic!("filters/FILTERS: `{name}`: committed is yes or no, not `{other}`"),
            };
            let (name, abi) = (name.clone(), abi.clone());
            Filter { name, abi, committed, sources: sources.to_vec() }
        })
        .collect()
}

fn committed() -> Vec<Filter> {
    table().into_iter().filter(|filter| filter.committed).collect()
}

/// `file -> digest`, as recorded in `SOURCES`, or in `SHA256SUMS`, which has the
/// digest first.
fn recorded(file: &str) -> BTreeMap<String, String> {
    rows(&prebuilt().join(file))
        .into_iter()
        .map(|row| match <[String; 2]>::try_from(row) {
            Ok([digest, name]) if file == "SHA256SUMS" => (name, digest),
            Ok([name, digest]) => (name, digest),
            Err(row) => panic!("filters/prebuilt/{file}: not two columns: {row:?}"),
        })
        .collect()
}

/// All complaints at once: somebody who changed a shared file wants to know every
/// filter to build again.
fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_filter_is_prebuilt_or_marked_as_not_committed() {
    let files =
        |filters: Vec<Filter>| -> BTreeSet<String> { filters.iter().map(Filter::file).collect() };
    let wanted = files(committed());
    let known = files(table());
    assert_eq!(known.len(), table().len(), "filters/FILTERS names a filter twice");

    let present: BTreeSet<String> = fs::read_dir(prebuilt())
        .expect("filters/prebuilt can be listed")
        .map(|entry| entry.expect("filters/prebuilt can be listed").file_name())
        .map(|name| name.into_string().expect("a name in UTF-8"))
        .filter(|name| name.ends_with(".wasm"))
        .collect();
    let missing = wanted.difference(&present).map(|file| {
        let name = file.trim_end_matches(".wasm");
        format!("filters/prebuilt/{file} is missing: run filters/build.sh {name}")
    });
    let unknown = present
        .difference(&known)
        .map(|file| format!("filters/prebuilt/{file} is of no filter in filters/FILTERS"));
    assert_none(missing.chain(unknown).collect());

    for record in ["SHA256SUMS", "SOURCES"] {
        let named: BTreeSet<String> = recorded(record).into_keys().collect();
        assert_eq!(named, wanted, "filters/prebuilt/{record} has other files than are committed");
    }
}

#[test]
fn every_abi_version_has_a_prebuilt_filter() {
    let present: BTreeSet<String> = committed().into_iter().map(|filter| filter.abi).collect();
    assert_eq!(present, ["0.1.0", "0.2.0", "0.2.1"].map(str::to_owned).into());
}

#[test]
fn prebuilt_filters_match_their_checksums() {
    let complaints = recorded("SHA256SUMS")
        .into_iter()
        .filter(|(file, digest)| sha256(&read(&prebuilt().join(file))) != *digest)
        .map(|(file, _)| {
            let name = file.trim_end_matches(".wasm");
            format!(
                "filters/prebuilt/{file} is not the one in SHA256SUMS: run filters/build.sh {name}"
            )
        });
    assert_none(complaints.collect());
}

#[test]
fn prebuilt_filters_are_built_from_their_sources() {
    let recorded = recorded("SOURCES");
    let complaints = committed()
        .into_iter()
        .filter(|filter| recorded.get(&filter.file()) != Some(&filter.sources_digest()))
        .map(|filter| {
            let name = filter.name;
            format!(
                "filters/prebuilt/{name}.wasm is older than its source: run filters/build.sh {name}"
            )
        });
    assert_none(complaints.collect());
}

#[test]
fn prebuilt_filters_stay_small() {
    let total: u64 = committed()
        .iter()
        .map(|filter| prebuilt().join(filter.file()).metadata().map_or(0, |meta| meta.len()))
        .sum();
    assert!(total < MAX_TOTAL_SIZE, "filters/prebuilt has {total} bytes of modules");
}

#[test]
fn the_example_image_holds_the_prebuilt_filter() {
    const STALE: &str = "examples/images/add-header is stale: run examples/images/build.py";
    let layout = root().join("examples/images/add-header");
    let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("valid JSON") };
    let mut used = BTreeSet::new();
    let mut blob = |descriptor: &Value| {
        let digest =
            descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let digest = digest.expect("a sha256 digest");
        let bytes = read(&layout.join("blobs/sha256").join(digest));
        assert_eq!(sha256(&bytes), digest, "blob {digest} has other content");
        assert_eq!(descriptor["size"], bytes.len(), "blob {digest} has another size");
        used.insert(digest.to_owned());
        bytes
    };

    assert_eq!(json(&read(&layout.join("oci-layout")))["imageLayoutVersion"], "1.0.0");
    let index = json(&read(&layout.join("index.json")));
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.0");

    let manifest = json(&blob(entry));
    let (config, layers) = (&manifest["config"], &manifest["layers"]);
    assert_eq!(layers.as_array().map(Vec::len), Some(2));
    assert_eq!(config, &layers[0], "the runtime config is the manifest's config and a layer");
    assert_eq!(config["mediaType"], "application/vnd.module.wasm.config.v1+json");
    assert_eq!(config["annotations"]["org.opencontainers.image.title"], "runtime-config.json");
    assert_eq!(layers[1]["mediaType"], "application/vnd.module.wasm.content.layer.v1+wasm");
    assert_eq!(layers[1]["annotations"]["org.opencontainers.image.title"], "filter.wasm");

    let runtime = json(&blob(config));
    assert_eq!(runtime["type"], "envoy_proxy");
    assert_eq!(runtime["abiVersions"], serde_json::json!(["v0.2.1"]));
    let root_ids = rows(&filters().join("FILTERS"))
        .into_iter()
        .find(|row| row[0] == "add-header")
        .map(|row| row[4].split(',').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(runtime["config"]["root_ids"], serde_json::json!(root_ids), "{STALE}");

    assert!(blob(&layers[1]) == read(&prebuilt().join("add-header.wasm")), "{STALE}");

    let present: BTreeSet<String> = fs::read_dir(layout.join("blobs/sha256"))
        .expect("the blobs can be listed")
        .map(|entry| entry.expect("the blobs can be listed").file_name())
        .map(|name| name.into_string().expect("a name in UTF-8"))
        .collect();
    assert_eq!(present, used, "{STALE}");
}
