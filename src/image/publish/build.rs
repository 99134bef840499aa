//! From a module and its runtime config to the blobs and the manifest of an image. Nothing in here
//! knows the time or the machine: the same input makes the same bytes, and so the same digest.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write as _},
};

use flate2::{Compression, GzBuilder};
use serde::Serialize;
use serde_json::json;

use crate::image::{
    Digest, RuntimeConfig,
    manifest::{Descriptor, OCI_MANIFEST},
    runtime_config::ENVOY,
    shape::{CNCF_LAYER, CONFIG, CONTENT_LAYER, OCI_TAR_GZIP},
    tarball::{CONFIG as CONFIG_FILE, MODULE as MODULE_FILE},
};

const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const TITLE: &str = "org.opencontainers.image.title";
/// wasme repeats these of the runtime config.
const RUNTIME_TYPE: &str = "module.wasm.runtime/type";
const RUNTIME_ABI: &str = "module.wasm.runtime/abi_version";
/// The specification asks for it on a compat image with OCI's types.
const VARIANT: &str = "module.wasm.image/variant";
/// `created` has to be there, and the real time would change the digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// How an image is to be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushShape {
    /// The WASM OCI image specification v0.0.0, with the runtime config as a layer and as the
    /// manifest's config, as wasme has it.
    Spec,
    /// Its compat variant: `plugin.wasm` and `runtime-config.json` in a layer of an ordinary image.
    Compat,
    /// The Wasm OCI artifact of the CNCF, which has no place for a runtime config.
    Cncf,
}

impl fmt::Display for PushShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spec => "spec",
            Self::Compat => "compat",
            Self::Cncf => "cncf",
        })
    }
}

/// What an image is built of.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// The module.
    pub wasm: &'a [u8],
    /// The runtime config, byte for byte.
    pub runtime_config: &'a [u8],
    /// Annotations of the manifest. They win over those that the shape has.
    pub annotations: &'a BTreeMap<String, String>,
}

/// The runtime config that these make, as the specification writes it.
pub fn runtime_config(abi_versions: &[String], root_ids: &[String]) -> Vec<u8> {
    let config = json!({
        "type": ENVOY,
        "abiVersions": abi_versions,
        "config": { "root_ids": root_ids },
    });
    config.to_string().into_bytes()
}

/// A blob, and what a manifest says of it.
pub(crate) struct Part {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

impl Part {
    fn new(media_type: &str, title: Option<&str>, bytes: Vec<u8>) -> Self {
        let title = title.map(|title| (TITLE.to_owned(), title.to_owned()));
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(&bytes),
            size: bytes.len() as u64,
            annotations: title.into_iter().collect(),
            platform: None,
            artifact_type: None,
        };
        Self { descriptor, bytes }
    }
}

/// An image that is nowhere yet.
pub(crate) struct Built {
    pub config: Part,
    pub layers: Vec<Part>,
    pub manifest: Part,
    /// The last layer before it was compressed, of a compat image.
    pub archive: Option<Vec<u8>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: Entry<'a>,
    layers: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Part> for Entry<'a> {
    fn from(part: &'a Part) -> Self {
        let Descriptor { media_type, digest, size, annotations, .. } = &part.descriptor;
        Self { media_type, digest: digest.to_string(), size: *size, annotations }
    }
}

/// Builds an image of that shape.
pub(crate) fn build(shape: PushShape, package: &Package<'_>) -> Built {
    let mut annotations = match shape {
        PushShape::Spec | PushShape::Cncf => runtime_annotations(package.runtime_config),
        PushShape::Compat => BTreeMap::from([(VARIANT.to_owned(), "compat".to_owned())]),
    };
    annotations.extend(package.annotations.clone());
    let mut archive = None;
    let (config, layers) = match shape {
        PushShape::Spec => {
            let config = || Part::new(CONFIG, Some(CONFIG_FILE), package.runtime_config.to_vec());
            let module = Part::new(CONTENT_LAYER, Some("filter.wasm"), package.wasm.to_vec());
            (config(), vec![config(), module])
        }
        PushShape::Compat => {
            let tar = tar(&[(MODULE_FILE, package.wasm), (CONFIG_FILE, package.runtime_config)]);
            let config = json!({
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&tar).to_string()] },
            });
            let layer = Part::new(OCI_TAR_GZIP, None, gzip(&tar));
            archive = Some(tar);
            (Part::new(IMAGE_CONFIG, None, config.to_string().into_bytes()), vec![layer])
        }
        PushShape::Cncf => {
            let module = Part::new(CNCF_LAYER, None, package.wasm.to_vec());
            let config = json!({
                "created": CREATED,
                "architecture": "wasm",
                "os": "wasip1",
                "layerDigests": [module.descriptor.digest.to_string()],
            });
            (Part::new(CNCF_CONFIG, None, config.to_string().into_bytes()), vec![module])
        }
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: Entry::from(&config),
        layers: layers.iter().map(Entry::from).collect(),
        annotations,
    };
    // Writing to memory does not fail, and all keys are strings.
    let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
    let manifest = Part::new(OCI_MANIFEST, None, bytes);
    Built { config, layers, manifest, archive }
}

fn runtime_annotations(config: &[u8]) -> BTreeMap<String, String> {
    let (config, _) = RuntimeConfig::read(Some(config));
    let mut annotations = BTreeMap::new();
    if let Some(RuntimeConfig { r#type, abi_versions, .. }) = config {
        annotations.extend(r#type.map(|name| (RUNTIME_TYPE.to_owned(), name)));
        if !abi_versions.is_empty() {
            annotations.insert(RUNTIME_ABI.to_owned(), abi_versions.join(","));
        }
    }
    annotations
}

/// A header without a time, an owner or a mode of somebody's machine.
pub(crate) fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// An archive of files. The module comes first: Istio reads no further.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let written = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            archive.append_data(&mut header(content.len() as u64), name, *content)?;
        }
        archive.into_inner()
    };
    // Writing to memory does not fail, and the names are short.
    written().unwrap_or_default()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let written = || -> io::Result<Vec<u8>> {
        let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    // Writing to memory does not fail.
    written().unwrap_or_default()
}
