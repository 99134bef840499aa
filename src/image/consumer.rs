//! Who can load an image, and what the others say of it, word for word, so that people can search
//! their logs for it.
//!
//! The fetchers of Istio and Envoy Gateway have the same origin and gave the same verdict on every
//! image that they were compared on; they join two errors in different ways. Higress has Istio's.
//! Their order: a manifest of Docker's type must have a tar+gzip layer of Docker's type last. Any
//! other must have a tar+gzip layer of OCI's type last, or be two layers, one of which is the
//! content layer of the specification.

use super::manifest::{DOCKER_MANIFEST, Descriptor, Manifest};
use super::shape::{CNCF_CONFIG, CNCF_LAYER, CONFIG, CONTENT_LAYER, DOCKER_TAR_GZIP, OCI_TAR_GZIP};
use super::{Digest, Platform};

/// What fetches images to load modules from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consumer {
    /// Istio's agent, for a WasmPlugin.
    Istio,
    /// Envoy Gateway, for an EnvoyExtensionPolicy.
    EnvoyGateway,
    /// Higress, whose fetcher is Istio's.
    Higress,
    /// wkg and what else is made for the Wasm OCI artifact of the CNCF.
    Wkg,
    /// The WASM OCI image specification v0.0.0, to the letter.
    SpecV0,
}

impl Consumer {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 5] =
        [Self::Istio, Self::EnvoyGateway, Self::Higress, Self::Wkg, Self::SpecV0];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Istio => "Istio",
            Self::EnvoyGateway => "Envoy Gateway",
            Self::Higress => "Higress",
            Self::Wkg => "wkg, CNCF tools",
            Self::SpecV0 => "spec v0.0.0",
        }
    }

    /// The name in machine-readable reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::EnvoyGateway => "envoy-gateway",
            Self::Higress => "higress",
            Self::Wkg => "wkg",
            Self::SpecV0 => "spec-v0.0.0",
        }
    }
}

/// Whether a consumer takes an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerVerdict {
    /// Who.
    pub consumer: Consumer,
    /// Whether it would have a module to give to Envoy; `None` where that is not known.
    pub takes: Option<bool>,
    /// What it logs if not, where that is known.
    pub log: Option<String>,
    /// Why not, or why it is not known, where nothing is logged.
    pub reason: Option<String>,
}

impl ConsumerVerdict {
    fn takes(consumer: Consumer) -> Self {
        Self { consumer, takes: Some(true), log: None, reason: None }
    }

    fn refuses(consumer: Consumer, log: impl Into<String>) -> Self {
        Self { consumer, takes: Some(false), log: Some(log.into()), reason: None }
    }

    fn deviates(consumer: Consumer, reason: impl Into<String>) -> Self {
        Self { consumer, takes: Some(false), log: None, reason: Some(reason.into()) }
    }

    fn unknown(consumer: Consumer, reason: &str) -> Self {
        Self { consumer, takes: None, log: None, reason: Some(reason.into()) }
    }
}

/// What the fetchers get out of a blob in which they look for the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extracted {
    /// Bytes.
    File { is_wasm: bool },
    /// Nothing, for this reason.
    Error(String),
    /// Nothing either, in words that are not known.
    Unknown,
}

impl Extracted {
    /// They look at the magic number alone, so that a component is a module to them.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::File { is_wasm: bytes.len() >= 8 && bytes.starts_with(b"\0asm") }
    }
}

/// The layer in which a fetcher looks for the module.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'m> {
    /// It unpacks the last layer. Where that fails, it takes the content layer, if there is one that
    /// it accepts.
    Archive(Option<&'m Descriptor>),
    /// It takes this content layer as it is.
    Content(&'m Descriptor),
    /// In none.
    None,
}

/// The way of Istio and Envoy Gateway into an image.
pub(crate) fn way(manifest: &Manifest) -> Way<'_> {
    let content = content_layer(manifest).ok();
    match (compat_layer(manifest), content) {
        (Ok(()), content) => Way::Archive(content),
        (Err(_), Some(content)) => Way::Content(content),
        (Err(_), None) => Way::None,
    }
}

/// Whether they would unpack the last layer; if not, their complaint.
fn compat_layer(manifest: &Manifest) -> Result<(), String> {
    let expected =
        if manifest.media_type == DOCKER_MANIFEST { DOCKER_TAR_GZIP } else { OCI_TAR_GZIP };
    match manifest.layers.last() {
        None => Err("number of layers must be greater than zero".into()),
        Some(last) if last.media_type != expected => {
            Err(format!("invalid media type {} (expect {expected})", last.media_type))
        }
        Some(_) => Ok(()),
    }
}

/// The layer that they would take as it is; if there is none, their complaint, where they try.
fn content_layer(manifest: &Manifest) -> Result<&Descriptor, Option<String>> {
    if manifest.media_type == DOCKER_MANIFEST {
        return Err(None);
    }
    if manifest.layers.len() != 2 {
        return Err(Some(format!("number of layers must be 2 but got {}", manifest.layers.len())));
    }
    manifest
        .layers
        .iter()
        .find(|layer| layer.media_type == CONTENT_LAYER)
        .ok_or_else(|| Some(format!("could not find the layer of type {CONTENT_LAYER}")))
}

/// What a consumer with Istio's fetcher says of an image of which it got this.
pub(crate) fn fetcher_verdict(
    consumer: Consumer,
    manifest: &Manifest,
    extracted: &Extracted,
) -> ConsumerVerdict {
    let compat = match (way(manifest), extracted) {
        (Way::None, _) => match compat_layer(manifest) {
            Err(error) => error,
            Ok(()) => return ConsumerVerdict::unknown(consumer, "the last layer was not read"),
        },
        (_, Extracted::File { is_wasm: true }) => return ConsumerVerdict::takes(consumer),
        (_, Extracted::File { is_wasm: false }) => {
            return ConsumerVerdict::refuses(consumer, "fetched Wasm binary is invalid");
        }
        (_, Extracted::Error(error)) => error.clone(),
        (_, Extracted::Unknown) => {
            return ConsumerVerdict::unknown(consumer, "the layer with the module was not read");
        }
    };
    let log = match (content_layer(manifest), consumer) {
        // Without a colon: so it is in their source.
        (Err(None), _) => {
            format!("could not extract Wasm file from the image as Docker container {compat}")
        }
        (Err(Some(artifact)), Consumer::EnvoyGateway) => format!(
            "the given image is in invalid format as an OCI image: could not parse as compat variant: {compat}\ncould not parse as oci variant: {artifact}"
        ),
        (Err(Some(artifact)), _) => format!(
            "the given image is in invalid format as an OCI image: 2 errors occurred:\n\t* could not parse as compat variant: {compat}\n\t* could not parse as oci variant: {artifact}"
        ),
        (Ok(_), _) => {
            return ConsumerVerdict::unknown(consumer, "the content layer was not read");
        }
    };
    ConsumerVerdict::refuses(consumer, format!("could not fetch Wasm binary: {log}"))
}

/// An index without an entry for the platform.
pub(crate) fn no_platform(consumer: Consumer, name: &str) -> ConsumerVerdict {
    let platform = Platform::default();
    ConsumerVerdict::refuses(
        consumer,
        format!(
            "could not fetch Wasm OCI image: could not fetch image: no child with platform {platform} in index {name}"
        ),
    )
}

/// A reference that pins an index. It is only compared when a module was found.
pub(crate) fn pinned_index(
    consumer: Consumer,
    name: &str,
    pinned: &Digest,
    selected: &Digest,
) -> ConsumerVerdict {
    ConsumerVerdict::refuses(
        consumer,
        format!(
            "module downloaded from oci://{name} has checksum {}, which does not match: {}",
            selected.hex(),
            pinned.hex()
        ),
    )
}

/// What wkg says, on a machine whose platform is linux/amd64, by the source of oci-wasm 0.6 and
/// oci-client 0.18.
pub(crate) fn wkg_verdict(manifest: &Manifest) -> ConsumerVerdict {
    let refuses = |log: String| ConsumerVerdict::refuses(Consumer::Wkg, log);
    if manifest.layers.is_empty() {
        return refuses("No layers to pull".into());
    }
    if let Some(other) = manifest.layers.iter().find(|layer| layer.media_type != CNCF_LAYER) {
        return refuses(format!("Incompatible layer media type: {}", other.media_type));
    }
    if manifest.layers.len() != 1 {
        return refuses("Wasm components must have exactly one layer".into());
    }
    if manifest.config.as_ref().is_none_or(|config| config.media_type != CNCF_CONFIG) {
        return refuses(format!("Wasm components must have a config of type {CNCF_CONFIG}"));
    }
    ConsumerVerdict::takes(Consumer::Wkg)
}

/// An index in which oci-client finds no entry for its machine. It takes no entry without a platform
/// and follows no index in an index.
pub(crate) fn wkg_no_platform() -> ConsumerVerdict {
    ConsumerVerdict::refuses(
        Consumer::Wkg,
        "Image manifest not found: no entry found in image index manifest matching client's default platform",
    )
}

/// Where an image is not as the specification has it. `config` is what its config layer says.
pub(crate) fn spec_verdict(
    manifest: &Manifest,
    extracted: &Extracted,
    config: Option<&[u8]>,
) -> ConsumerVerdict {
    let deviates = |reason: String| ConsumerVerdict::deviates(Consumer::SpecV0, reason);
    let count = |media_type| manifest.layers.iter().filter(|l| l.media_type == media_type).count();
    let missing = |what, media_type| format!("it has no {what} layer, of type {media_type}");
    match (manifest.layers.len(), count(CONTENT_LAYER), count(CONFIG)) {
        (_, 0, _) => deviates(missing("content", CONTENT_LAYER)),
        (_, _, 0) => deviates(missing("config", CONFIG)),
        (2, 1, 1) if *extracted == Extracted::File { is_wasm: false } => {
            deviates("its content layer is no module".into())
        }
        (2, 1, 1) => match config.map(serde_json::from_slice::<serde_json::Value>) {
            None => ConsumerVerdict::unknown(Consumer::SpecV0, "the config layer was not read"),
            Some(Ok(config)) if config["type"].is_string() => {
                ConsumerVerdict::takes(Consumer::SpecV0)
            }
            Some(_) => deviates("its config layer is no JSON object with a `type`".into()),
        },
        (layers, ..) => {
            deviates(format!("it has {layers} layers, not one of content and one of config"))
        }
    }
}

/// An index without an image for linux/amd64. The specification has no indexes at all.
pub(crate) fn spec_no_platform() -> ConsumerVerdict {
    let platform = Platform::default();
    ConsumerVerdict::deviates(
        Consumer::SpecV0,
        format!("it is an image index, and has no image for {platform}"),
    )
}

/// Of an image that was not looked into.
pub(crate) fn all_unknown(reason: &str) -> Vec<ConsumerVerdict> {
    Consumer::ALL.iter().map(|consumer| ConsumerVerdict::unknown(*consumer, reason)).collect()
}
