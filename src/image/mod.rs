//! Where modules come from: a registry, a directory, an archive, a URL or a plain file.
//!
//! [`Source::parse`] decides what a string names, [`fetch`] gets it. The result is an [`Image`]:
//! the module's bytes, the runtime config that travelled with them, and findings on everything that
//! deviates from the specification. Nothing in here knows proxy-wasm: the bytes may be anything.
//!
//! A new place to get images from implements `content::Content` and has a branch in `source::with`; a
//! new way to lay out an image is a branch of `shape::recognise`. `consumer` says who takes an image.
#![warn(missing_docs)]

mod archive;
mod compression;
mod consumer;
mod content;
mod credential_helper;
mod credentials;
mod digest;
mod docker_archive;
mod error;
mod file;
mod image_index;
mod inspect;
mod kept;
mod layout;
mod layout_index;
mod listing;
mod manifest;
mod oci_error;
mod open;
mod plain_reference;
mod publish;
mod pull;
mod reference;
mod registry;
mod runtime_config;
mod search;
mod session;
mod shape;
mod signature;
mod source;
mod tarball;
mod token;
mod transport;
mod url;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;
use crate::timing::PhaseTime;
use crate::verdict::Finding;

pub use consumer::{Consumer, ConsumerVerdict};
pub use credentials::UserPassword;
pub use digest::{Algorithm, Digest, InvalidDigest};
pub use error::ImageError;
pub use inspect::{Inspection, Node, NodeContent, Part};
pub use publish::{
    Destination, Package, Published, PushShape, copy, push, runtime_config as write_runtime_config,
};
pub use reference::{ModuleUrl, ReferenceError, RegistryReference, Selector, Source};
pub use runtime_config::RuntimeConfig;
pub use shape::Shape;
pub use signature::{InvalidKey, PublicKey};
pub use transport::Clients;

/// Limits and choices for [`fetch`].
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The largest module, and the largest blob that holds one, that is accepted. The default is
    /// 256 MiB, the limit of Istio.
    pub max_module_bytes: u64,
    /// Talk plain HTTP to the registry, whatever its host. Loopback hosts need no such option,
    /// unless there is a `ca_file`.
    pub plain_http: bool,
    /// A PEM file with certificates of CAs that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The time that a whole pull may take, retries included.
    pub timeout: Duration,
    /// The time that one connection may take to be established.
    pub connect_timeout: Duration,
    /// The time that a registry may be silent in the middle of an answer, and a credential helper
    /// before its.
    pub read_timeout: Duration,
    /// The pause before the first retry; it doubles for each further one.
    pub retry_delay: Duration,
    /// The entry of an image index to take. `None` is what Istio and Envoy Gateway take, linux/amd64,
    /// and where there is none, the only module that the index has.
    pub platform: Option<Platform>,
    /// Where the credentials for a registry come from.
    pub credentials: CredentialSource,
    /// The key that an image has to be signed with.
    pub verify_key: Option<PublicKey>,
    /// Where manifests, blobs and compiled modules are kept; without one nothing is.
    pub store: Option<Arc<Store>>,
    /// The HTTP clients. Clones of the options share them, which is of use on one runtime.
    pub clients: Clients,
}

/// Where the credentials for a registry come from.
#[derive(Debug, Clone, Default)]
pub enum CredentialSource {
    /// The variable `DOCKER_AUTH_CONFIG`, the docker config, and podman's auth files: the first of
    /// them that has any for the registry.
    #[default]
    Default,
    /// These, for one registry.
    Given(UserPassword),
    /// This file, in the format of the docker config.
    ConfigFile(PathBuf),
    /// None are sent.
    Anonymous,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            max_module_bytes: 256 << 20,
            plain_http: false,
            ca_file: None,
            timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            retry_delay: Duration::from_millis(500),
            platform: None,
            credentials: CredentialSource::default(),
            verify_key: None,
            store: None,
            clients: Clients::default(),
        }
    }
}

/// A platform as an image index names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Platform {
    /// The operating system, `linux` by default; empty where an image index names none.
    #[serde(default)]
    pub os: String,
    /// The architecture, `amd64` by default; empty where an image index names none.
    #[serde(default)]
    pub architecture: String,
}

impl Default for Platform {
    /// linux/amd64: what Istio and Envoy Gateway ask for, whatever machine they run on.
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The kind of place that an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A plain file that holds the module and nothing else.
    File,
    /// Standard input.
    Stdin,
    /// An OCI image layout directory.
    OciLayout,
    /// A directory with one image, as `skopeo copy … dir:` writes it.
    Directory,
    /// An OCI image layout in a tar file.
    OciArchive,
    /// A tar file as `docker save` writes it.
    DockerArchive,
    /// A module by its URL.
    Url,
    /// A registry that speaks the OCI distribution protocol.
    Registry,
}

/// A module, and all that was learnt while it was fetched.
#[derive(Debug, Clone)]
pub struct Image {
    /// The reference as the user typed it.
    pub reference: String,
    /// Where it came from.
    pub kind: SourceKind,
    /// How the image is laid out.
    pub shape: Shape,
    /// The digest that the reference resolved to: of an image index, or of a manifest.
    pub named_digest: Option<String>,
    /// The digest of the manifest that was selected. This is what Istio and Envoy Gateway compare
    /// with a pinned digest.
    pub manifest_digest: Option<String>,
    /// The module's bytes. They were not looked at: they may be anything.
    pub wasm: Vec<u8>,
    /// The SHA-256 of [`Image::wasm`] in lowercase hex. This is what Envoy's `sha256` field means.
    pub wasm_sha256: String,
    /// Where in the image the module is; `None` where it was in no image.
    pub module_place: Option<ModulePlace>,
    /// The runtime config, if the image has one that could be read.
    pub runtime_config: Option<RuntimeConfig>,
    /// Where it is, also if it could not be read.
    pub config_place: Option<ConfigPlace>,
    /// The annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Who takes the image; nobody is asked where the module was in no image.
    pub consumers: Vec<ConsumerVerdict>,
    /// What deviates from the specification, in the order in which it was found.
    pub notes: Vec<Finding>,
    /// The time that getting the bytes took.
    pub fetch: PhaseTime,
    /// The time that hashing and unpacking them took, also where that happened between two reads.
    pub verify: PhaseTime,
}

impl Image {
    /// A module that was in no image.
    pub(crate) fn of_module(reference: &str, wasm: Vec<u8>) -> Self {
        Self {
            reference: reference.to_owned(),
            kind: SourceKind::File,
            shape: Shape::File,
            named_digest: None,
            manifest_digest: None,
            wasm_sha256: Digest::sha256(&wasm).hex().to_owned(),
            wasm,
            module_place: None,
            runtime_config: None,
            config_place: None,
            annotations: BTreeMap::new(),
            consumers: Vec::new(),
            notes: Vec::new(),
            fetch: PhaseTime::default(),
            verify: PhaseTime::default(),
        }
    }
}

/// Where in an image the module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePlace {
    /// Which of the layers, the first is 1.
    pub layer: usize,
    /// How many layers there are.
    pub layers: usize,
    /// The path in the layer; `None` where the layer is the module.
    pub path: Option<String>,
}

/// Where in an image the runtime config is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigPlace {
    /// This layer is the config; the first is 1.
    Layer(usize),
    /// The manifest's config is it.
    ManifestConfig,
    /// It is `runtime-config.json` in a layer that is an archive.
    File {
        /// Which of the layers, the first is 1.
        layer: usize,
    },
    /// In the manifest's annotations.
    Annotations,
}

impl std::fmt::Display for ConfigPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::ManifestConfig => write!(f, "the manifest's config"),
            Self::File { layer } => write!(f, "runtime-config.json in layer {layer}"),
            Self::Annotations => write!(f, "the manifest's annotations"),
        }
    }
}

/// Is told how far the transfer of an image is. Blobs are transferred concurrently.
pub trait Progress: Send + Sync {
    /// The transfer of a blob begins, or begins again after a failed try; `id` is its digest in
    /// short form.
    fn blob_started(&self, id: &str, total: Option<u64>);
    /// `bytes` more have arrived.
    fn blob_advanced(&self, id: &str, bytes: u64);
    /// The blob is complete and verified.
    fn blob_finished(&self, id: &str);
}

/// A [`Progress`] that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn blob_started(&self, _id: &str, _total: Option<u64>) {}
    fn blob_advanced(&self, _id: &str, _bytes: u64) {}
    fn blob_finished(&self, _id: &str) {}
}

/// Gets the image that `source` names. `reference_as_typed` is only repeated in the result.
///
/// It needs a tokio runtime with its I/O and time drivers enabled.
pub async fn fetch(
    source: &Source,
    reference_as_typed: &str,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let task = source::Fetch { reference: reference_as_typed, options, progress };
    source::with(source, reference_as_typed, options, &task).await
}

/// Finds out all that there is to see of the image that `source` names, also where it holds no
/// module. `reference_as_typed` is only repeated in the result.
///
/// It needs a tokio runtime with its I/O and time drivers enabled.
pub async fn inspect(
    source: &Source,
    reference_as_typed: &str,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Inspection {
    let task = source::Fetch { reference: reference_as_typed, options, progress };
    let inspected = source::with(source, reference_as_typed, options, &source::Inspect(task)).await;
    inspected.unwrap_or_else(|error| Inspection::without_a_manifest(reference_as_typed, Err(error)))
}
