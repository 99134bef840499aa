//! Manifests and image indexes, read as leniently as the images in the field need: unknown fields
//! are skipped, and `mediaType` may be missing.

use super::digest::Digest;
use super::error::one_line;
use super::{ImageError, Platform};
use serde::Deserialize;
use std::collections::BTreeMap;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Withdrawn before OCI 1.1. Its layers are named `blobs`.
pub(crate) const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// The largest manifest, image index or config that is read: what the distribution specification
/// asks registries to accept.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Keys and values of annotations.
pub(crate) type Annotations = BTreeMap<String, String>;

/// A reference to content by digest, as in a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawDescriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: Annotations,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub artifact_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    blobs: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: Annotations,
}

/// Go writes an empty map as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A descriptor whose digest has the right syntax.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub annotations: Annotations,
    pub platform: Option<Platform>,
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// The file name that `oras` and `wasme` write.
    pub(crate) fn title(&self) -> Option<&str> {
        self.annotations.get("org.opencontainers.image.title").map(String::as_str)
    }
}

/// The manifest of one image.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// As written in it; empty where it is not.
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub config: Option<Descriptor>,
    pub layers: Vec<Descriptor>,
    pub annotations: Annotations,
}

/// A list of images, each for a platform.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    /// As written in it; empty where it is not.
    pub media_type: String,
    pub entries: Vec<Descriptor>,
    pub annotations: Annotations,
}

/// What a reference can resolve to.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
}

/// Parses what a registry or a layout gave for `what`. The kind is decided by the `mediaType` in
/// it, and where that is missing, by the fields.
pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Document, ImageError> {
    let invalid = |reason: String| ImageError::invalid(what, reason);
    let raw: RawManifest = serde_json::from_slice(bytes).map_err(|error| {
        invalid(format!("the manifest is not valid: {}", one_line(&error.to_string())))
    })?;
    if raw.schema_version == Some(1) {
        return Err(invalid(
            "the manifest is of Docker's schema 1, which no longer holds enough to be verified"
                .into(),
        ));
    }
    let media_type = raw.media_type.unwrap_or_default();
    let is_index = match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST | OCI_ARTIFACT => false,
        OCI_INDEX | DOCKER_LIST => true,
        "" => raw.manifests.is_some() && raw.layers.is_none(),
        other => {
            return Err(ImageError::Shape {
                what: what.into(),
                reason: format!(
                    "the manifest's media type {} is not that of an image",
                    one_line(other)
                ),
                consumer_message: None,
                help: "push the module as an image manifest, for example with `docker build` and `docker push`".into(),
            });
        }
    };
    let checked = |descriptors: Vec<RawDescriptor>, field: &str| {
        descriptors
            .into_iter()
            .enumerate()
            .map(|(at, raw)| descriptor(raw).map_err(|e| invalid(format!("{field}[{at}]: {e}"))))
            .collect::<Result<Vec<_>, _>>()
    };
    if is_index {
        return Ok(Document::Index(Index {
            media_type,
            entries: checked(raw.manifests.unwrap_or_default(), "manifests")?,
            annotations: raw.annotations,
        }));
    }
    let layers = match media_type.as_str() {
        OCI_ARTIFACT => raw.blobs,
        _ => raw.layers,
    };
    if layers.is_none() && raw.config.is_none() {
        return Err(invalid("the manifest has neither layers nor a config".into()));
    }
    Ok(Document::Manifest(Box::new(Manifest {
        media_type,
        artifact_type: raw.artifact_type,
        config: raw
            .config
            .map(|raw| descriptor(raw).map_err(|e| invalid(format!("config: {e}"))))
            .transpose()?,
        layers: checked(layers.unwrap_or_default(), "layers")?,
        annotations: raw.annotations,
    })))
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, super::InvalidDigest> {
    Ok(Descriptor {
        media_type: raw.media_type,
        digest: raw.digest.parse()?,
        size: raw.size,
        annotations: raw.annotations,
        platform: raw.platform,
        artifact_type: raw.artifact_type,
    })
}
