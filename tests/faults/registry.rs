//! What a registry has stored, right or wrong.

use std::collections::BTreeMap;

use filtergate::image::Digest;
use serde_json::{Value, json};

use crate::server::{Answer, Request};

pub const CONFIG: &str = r#"{"type":"envoy_proxy","abiVersions":["0.2.1"],"config":{"root_ids":["add_request_header"]}}"#;
const CONFIG_LAYER: &str = "application/vnd.module.wasm.config.v1+json";
const CONTENT_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn module() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/filters/prebuilt/add-header.wasm")).unwrap()
}

pub fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

pub fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

pub fn is_blob(request: &Request, blob: &[u8]) -> bool {
    request.path.ends_with(&format!("/blobs/{}", digest(blob)))
}

/// An index with one entry.
pub fn index(child: &str, size: usize) -> Vec<u8> {
    let entry = json!({ "mediaType": INDEX, "digest": child, "size": size });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    let mut index = index.to_string().into_bytes();
    // Its size is what it says that the child's is.
    index.resize(index.len().max(size), b' ');
    index
}

/// One image, tagged `v1`, with all that it names.
#[derive(Default)]
pub struct Stored {
    manifest: Value,
    /// Manifests and blobs by digest.
    content: BTreeMap<String, Vec<u8>>,
    indexes: usize,
}

impl Stored {
    /// An image that passes.
    pub fn good() -> Self {
        Self::new(&[(CONFIG_LAYER, CONFIG.as_bytes()), (CONTENT_LAYER, &module())])
    }

    /// An image with one layer that is an archive.
    pub fn compat(layer: &[u8]) -> Self {
        Self::new(&[(TAR_GZIP, layer)])
    }

    /// An image with many layers, all of which are the module.
    pub fn layers(count: usize, media_type: &str) -> Self {
        let module = module();
        let mut stored = Self::new(&[(media_type, &module)]);
        let layer = stored.manifest["layers"][0].clone();
        stored.manifest["layers"] = vec![layer; count].into();
        stored
    }

    fn new(layers: &[(&str, &[u8])]) -> Self {
        let mut stored = Self::default();
        let layers: Vec<_> = layers.iter().map(|layer| stored.blob(layer.0, layer.1)).collect();
        let config = stored.blob("application/vnd.unknown.config.v1+json", b"{}");
        stored.manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        stored
    }

    fn blob(&mut self, media_type: &str, blob: &[u8]) -> Value {
        self.content.insert(digest(blob), blob.to_vec());
        json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
    }

    /// The module's descriptor has this size.
    pub fn with_layer_size(mut self, size: u64) -> Self {
        self.manifest["layers"][1]["size"] = size.into();
        self
    }

    /// The config layer's descriptor has this size.
    pub fn with_config_size(mut self, size: u64) -> Self {
        self.manifest["layers"][0]["size"] = size.into();
        self
    }

    /// The tag leads to the image through so many indexes.
    pub fn behind_indexes(mut self, count: usize) -> Self {
        self.indexes = count;
        self
    }

    pub fn answer(&self, request: &Request) -> Answer {
        let Some((kind, id)) =
            request.path.strip_prefix("/v2/acme/filter/").and_then(|path| path.split_once('/'))
        else {
            return Answer::error(404, "NAME_UNKNOWN", "no such repository");
        };
        if kind == "blobs" {
            return match self.content.get(id) {
                Some(blob) => Answer::new(200, blob),
                None => Answer::error(404, "BLOB_UNKNOWN", "no such blob"),
            };
        }
        let mut document = self.manifest.to_string().into_bytes();
        for _ in 0..self.indexes {
            if digest(&document) == id {
                break;
            }
            document = index(&digest(&document), document.len());
        }
        match id == "v1" || id == digest(&document) {
            true => Answer::new(200, document),
            false => Answer::error(404, "MANIFEST_UNKNOWN", "no such manifest"),
        }
    }
}
