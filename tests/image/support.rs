//! OCI layouts that tests write, and what they ask of an image.

use filtergate::image::{
    CredentialSource, Digest, FetchOptions, Image, ImageError, Inspection, NoProgress, Source,
    fetch,
};
use filtergate::verdict::{Finding, Severity};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The smallest module.
pub const WASM: &[u8] = b"\0asm\x01\0\0\0";
pub const CONFIG: &str =
    r#"{"type":"envoy_proxy","abiVersions":["0.2.1"],"config":{"root_ids":["one"]}}"#;

pub const CONFIG_TYPE: &str = "application/vnd.module.wasm.config.v1+json";
pub const CONTENT_TYPE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Options under which no test waits, or reads this machine's docker config.
pub fn options() -> FetchOptions {
    FetchOptions {
        retry_delay: Duration::ZERO,
        credentials: CredentialSource::Anonymous,
        ..FetchOptions::default()
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn get(reference: &str) -> Result<Image, ImageError> {
    get_with(reference, &options())
}

pub fn get_with(reference: &str, options: &FetchOptions) -> Result<Image, ImageError> {
    let source = Source::parse(reference).unwrap();
    block_on(fetch(&source, reference, options, &NoProgress))
}

pub fn inspect(reference: &str) -> Inspection {
    let source = Source::parse(reference).unwrap();
    block_on(filtergate::image::inspect(&source, reference, &options(), &NoProgress))
}

pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oci").join(path)
}

/// The findings as `rule severity`, for comparison.
pub fn rules(notes: &[Finding]) -> Vec<(&'static str, Severity)> {
    notes.iter().map(|n| (n.rule.name(), n.severity)).collect()
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256(blob).to_string(), "size": blob.len() })
}

pub fn manifest(config: Value, layers: Vec<Value>) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
    }))
    .unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive of files, whose names are taken as they are.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An OCI layout in a directory of its own.
pub struct Layout {
    pub dir: tempfile::TempDir,
    entries: Vec<Value>,
}

impl Layout {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let layout = Self { dir, entries: Vec::new() };
        layout.write_index();
        layout
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.path().join("blobs/sha256").join(hex)
    }

    pub fn blob(&self, media_type: &str, blob: &[u8]) -> Value {
        let descriptor = descriptor(media_type, blob);
        fs::write(self.blob_path(descriptor["digest"].as_str().unwrap()), blob).unwrap();
        descriptor
    }

    pub fn tag(&mut self, tag: &str, manifest: &[u8]) -> String {
        let mut entry = self.blob(OCI_MANIFEST, manifest);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let digest = entry["digest"].as_str().unwrap().to_owned();
        self.push_entry(entry);
        digest
    }

    pub fn push_entry(&mut self, entry: Value) {
        self.entries.push(entry);
        self.write_index();
    }

    fn write_index(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    /// An image of the specification's two layers, tagged `v1`.
    pub fn spec_image(config: &[u8], wasm: &[u8]) -> Self {
        let mut layout = Self::new();
        let layers = vec![layout.blob(CONFIG_TYPE, config), layout.blob(CONTENT_TYPE, wasm)];
        let empty = layout.blob("application/vnd.unknown.config.v1+json", b"{}");
        layout.tag("v1", &manifest(empty, layers));
        layout
    }

    /// An image with one compat layer, tagged `v1`.
    pub fn compat_image(layer: &[u8]) -> Self {
        let mut layout = Self::new();
        let layers = vec![layout.blob(TAR_GZIP, layer)];
        let config = layout.blob("application/vnd.oci.image.config.v1+json", b"{}");
        layout.tag("v1", &manifest(config, layers));
        layout
    }

    pub fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.dir.path().display())
    }

    pub fn get(&self, tag: &str) -> Result<Image, ImageError> {
        get(&self.reference(tag))
    }
}
