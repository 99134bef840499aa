//! The shapes that an image with a module in it can have, recognised by media types alone.
//!
//! To add one: a variant of [`Shape`], its name, and a branch of [`recognise`].

use super::consumer::{self, Way};
use super::manifest::{DOCKER_MANIFEST, Manifest, OCI_ARTIFACT};
use std::fmt;

/// The runtime config of the specification.
pub(crate) const CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
/// The module of the specification.
pub(crate) const CONTENT_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// Between the pre-release and the specification, the words were in another order for some months.
const MISSPELT_CONFIG: &str = "application/vnd.io.wasm.module.config.v1+json";
const MISSPELT_CONTENT_LAYER: &str = "application/vnd.io.wasm.module.content.layer.v1+wasm";
const LEGACY_CONFIG: &str = "application/vnd.io.solo.wasm.config.v1+json";
const LEGACY_CODE: &str = "application/vnd.io.solo.wasm.code.v1+wasm";
const WASM_TO_OCI_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// The module of the CNCF's Wasm OCI artifact.
pub(crate) const CNCF_LAYER: &str = "application/wasm";
/// Its config.
pub(crate) const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const RUNWASI_LAYER: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const HIGRESS_SPEC: &str = "application/vnd.module.wasm.spec.v1+yaml";
const BUILT_ON_ENVOY: &str = "application/vnd.builtonenvoy.extension.v1";
const BUILT_ON_ENVOY_TYPE: &str = "io.tetratelabs.built-on-envoy.extension.type";

/// A compat layer in a manifest of OCI's type.
pub(crate) const OCI_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A compat layer in a manifest of Docker's type.
pub(crate) const DOCKER_TAR_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// How an image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Shape {
    /// No image at all: the module in a plain file.
    File,
    /// The WASM OCI image specification v0.0.0: a config and a content layer.
    SpecV0,
    /// `plugin.wasm` in the last layer, an archive, of an image with OCI's media types.
    CompatOci,
    /// The same with Docker's media types.
    CompatDocker,
    /// Higress' own plugins: documentation layers and `plugin.wasm` in the last layer.
    Higress,
    /// Built On Envoy's `boe push`: an artifact with one layer.
    BuiltOnEnvoy,
    /// What the Dockerfile of Built On Envoy's `boe create` builds: `plugin.wasm` in the first of
    /// three layers.
    BuiltOnEnvoyBuild,
    /// A ServiceMeshExtension of Maistra: `manifest.yaml` names the module beside it.
    Maistra,
    /// The tools before the specification, 2019 and early 2020.
    WasmeLegacy,
    /// `wasm-to-oci` and what follows it: one content layer of another media type.
    WasmToOci,
    /// A Kubewarden policy. It is laid out as [`Shape::WasmToOci`] and is no proxy-wasm filter.
    Kubewarden,
    /// The Wasm OCI artifact of the CNCF: one `application/wasm` layer.
    CncfWasm,
    /// A Wasm image for containerd's runwasi.
    Runwasi,
    /// The artifact manifest that OCI withdrew before 1.1, with the module as a blob.
    OciArtifact,
    /// A module in a layer whose media type says nothing of one.
    Unknown,
}

impl Shape {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Shape::File => "file",
            Shape::SpecV0 => "spec-v0.0.0",
            Shape::CompatOci => "compat-oci",
            Shape::CompatDocker => "compat-docker",
            Shape::Higress => "higress",
            Shape::BuiltOnEnvoy => "built-on-envoy",
            Shape::BuiltOnEnvoyBuild => "built-on-envoy-build",
            Shape::Maistra => "maistra",
            Shape::WasmeLegacy => "wasme-legacy",
            Shape::WasmToOci => "wasm-to-oci",
            Shape::Kubewarden => "kubewarden-policy",
            Shape::CncfWasm => "cncf-wasm",
            Shape::Runwasi => "runwasi",
            Shape::OciArtifact => "oci-artifact",
            Shape::Unknown => "unknown",
        }
    }

    /// What it is, in a few words.
    pub fn summary(self) -> &'static str {
        match self {
            Shape::File => "a plain file",
            Shape::SpecV0 => "the WASM OCI image specification's config and content layers",
            Shape::CompatOci => "plugin.wasm in the last layer of an OCI image",
            Shape::CompatDocker => "plugin.wasm in the last layer of a Docker image",
            Shape::Higress => "a Higress plugin: documentation, and plugin.wasm in the last layer",
            Shape::BuiltOnEnvoy => "an artifact of `boe push`",
            Shape::BuiltOnEnvoyBuild => "an image of `boe create`: plugin.wasm in the first layer",
            Shape::Maistra => "a Maistra ServiceMeshExtension",
            Shape::WasmeLegacy => "an image of wasme from before the specification",
            Shape::WasmToOci => "an artifact of wasm-to-oci",
            Shape::Kubewarden => "a Kubewarden policy, which is no proxy-wasm filter",
            Shape::CncfWasm => "the CNCF's Wasm OCI artifact",
            Shape::Runwasi => "an image for containerd's runwasi",
            Shape::OciArtifact => "the artifact manifest that OCI withdrew",
            Shape::Unknown => "a module in a layer of another media type",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the module is looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The layer with this index is the module.
    Raw(usize),
    /// The last layer is an archive with `plugin.wasm` in it.
    LastArchive,
    /// No layer is either by its media type.
    Nowhere,
}

/// What is to be read of an image.
#[derive(Debug)]
pub(crate) struct Plan {
    pub shape: Shape,
    pub place: Place,
    /// The layer to take where the archive has no module.
    pub raw: Option<usize>,
    /// The runtime config as a layer.
    pub config_layer: Option<usize>,
    /// Whether the manifest's config is the runtime config.
    pub is_config_in_manifest: bool,
    /// The number of layers that could be the module.
    pub candidates: usize,
}

/// The raw-blob shapes: media type of the module, shape. The specification's comes first.
const RAW: [(&str, Shape); 6] = [
    (CONTENT_LAYER, Shape::SpecV0),
    (MISSPELT_CONTENT_LAYER, Shape::SpecV0),
    (LEGACY_CODE, Shape::WasmeLegacy),
    (WASM_TO_OCI_LAYER, Shape::WasmToOci),
    (CNCF_LAYER, Shape::CncfWasm),
    (RUNWASI_LAYER, Shape::Runwasi),
];

/// Decides the shape, and where the module is looked for: where Istio and Envoy Gateway do, and for
/// an image that they do not open, in the last layer if it is an archive, else in a layer that is a
/// module by its media type.
pub(crate) fn recognise(manifest: &Manifest) -> Plan {
    let layers = &manifest.layers;
    let raw = RAW.iter().find_map(|(media_type, shape)| {
        let first = layers.iter().position(|layer| layer.media_type == *media_type)?;
        let count = layers.iter().filter(|layer| layer.media_type == *media_type).count();
        Some((first, raw_shape(manifest, *shape), count))
    });
    let is_last_archive = layers.last().is_some_and(|last| is_archive(&last.media_type));
    let archive = || (Place::LastArchive, archive_shape(manifest), 1);
    let (place, shape, candidates) = match (consumer::way(manifest), raw) {
        (Way::Archive(..), _) => archive(),
        (Way::None, _) if is_last_archive => archive(),
        (Way::Content(_) | Way::None, Some((at, shape, count))) => (Place::Raw(at), shape, count),
        _ if layers.iter().any(|layer| is_archive(&layer.media_type)) => {
            (Place::Nowhere, archive_shape(manifest), 1)
        }
        _ => (Place::Nowhere, Shape::Unknown, 1),
    };
    Plan {
        shape,
        place,
        raw: raw.map(|(at, ..)| at),
        config_layer: layers.iter().position(|layer| is_config(&layer.media_type)),
        is_config_in_manifest: manifest.config.as_ref().is_some_and(|c| is_config(&c.media_type)),
        candidates,
    }
}

fn is_config(media_type: &str) -> bool {
    [CONFIG, MISSPELT_CONFIG, LEGACY_CONFIG].contains(&media_type)
}

/// Layers of a file system, however they are compressed: what is in there is seen by its content.
pub(crate) fn is_archive(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.v1.tar")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.diff.tar")
}

/// Documentation, signatures and the like, which cannot be a module.
pub(crate) fn is_text(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default();
    ["json", "yaml", "markdown", "text", "png", "svg", "xml"]
        .iter()
        .any(|t| media_type.ends_with(t))
        || media_type.starts_with("text/")
}

fn archive_shape(manifest: &Manifest) -> Shape {
    if manifest.artifact_type.as_deref() == Some(BUILT_ON_ENVOY) {
        Shape::BuiltOnEnvoy
    } else if manifest.layers.len() > 1 && manifest.annotations.contains_key(BUILT_ON_ENVOY_TYPE) {
        Shape::BuiltOnEnvoyBuild
    } else if manifest.layers.iter().any(|l| l.media_type == HIGRESS_SPEC) {
        Shape::Higress
    } else if manifest.media_type == DOCKER_MANIFEST {
        Shape::CompatDocker
    } else {
        Shape::CompatOci
    }
}

fn raw_shape(manifest: &Manifest, shape: Shape) -> Shape {
    let is_policy = manifest.annotations.keys().any(|key| key.starts_with("io.kubewarden."));
    if manifest.media_type == OCI_ARTIFACT {
        return Shape::OciArtifact;
    }
    if shape == Shape::WasmToOci && is_policy {
        return Shape::Kubewarden;
    }
    shape
}
