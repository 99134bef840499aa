//! Images as tools write them.

use std::{fs, io::Write as _, path::Path};

use filtergate::image::Digest;
use serde_json::{Value, json};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

const RUNTIME_CONFIG: &str = r#"{"type": "envoy_proxy", "abiVersions": ["v0.2.1"], "config": {"root_ids": ["add_request_header", "add_response_header"]}}"#;

/// A manifest and the blobs that it names.
pub struct Pushable {
    pub manifest: Vec<u8>,
    pub media_type: String,
    pub blobs: Vec<Vec<u8>>,
}

impl Pushable {
    fn new(media_type: &str, config: (&str, &[u8]), layers: &[(&str, &[u8])]) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(config),
            "layers": layers.iter().copied().map(descriptor).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(&config).chain(layers).map(|(_, blob)| blob.to_vec()).collect();
        Self {
            manifest: manifest.to_string().into_bytes(),
            media_type: media_type.to_owned(),
            blobs,
        }
    }
}

fn descriptor((media_type, blob): (&str, &[u8])) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256(blob).to_string(), "size": blob.len() })
}

/// The shape of the specification v0.0.0.
pub fn specification(module: &[u8]) -> Pushable {
    Pushable::new(
        OCI_MANIFEST,
        ("application/vnd.unknown.config.v1+json", b"{}"),
        &[
            ("application/vnd.module.wasm.config.v1+json", RUNTIME_CONFIG.as_bytes()),
            ("application/vnd.module.wasm.content.layer.v1+wasm", module),
        ],
    )
}

/// The compat shape, as buildah writes it.
pub fn compat_oci(module: &[u8]) -> Pushable {
    Pushable::new(
        OCI_MANIFEST,
        ("application/vnd.oci.image.config.v1+json", b"{}"),
        &[("application/vnd.oci.image.layer.v1.tar+gzip", &archive(module))],
    )
}

/// The compat shape, as docker writes it.
pub fn compat_docker(module: &[u8]) -> Pushable {
    Pushable::new(
        DOCKER_MANIFEST,
        ("application/vnd.docker.container.image.v1+json", b"{}"),
        &[("application/vnd.docker.image.rootfs.diff.tar.gzip", &archive(module))],
    )
}

fn archive(module: &[u8]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gzip);
    for (name, content) in
        [("runtime-config.json", RUNTIME_CONFIG.as_bytes()), ("plugin.wasm", module)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }
    let mut gzip = builder.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

/// The image of the repository's examples, and its digest.
pub fn example(root: &Path) -> (Pushable, String) {
    let layout = root.join("examples/images/add-header");
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut blobs: Vec<Vec<u8>> = fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    let at = blobs.iter().position(|blob| Digest::sha256(blob).to_string() == digest).unwrap();
    let manifest = blobs.swap_remove(at);
    (Pushable { manifest, media_type: OCI_MANIFEST.to_owned(), blobs }, digest)
}
