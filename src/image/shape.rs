//! The shapes that an image with a module in it can have, recognised by media types alone.
//!
//! To add one: a variant of [`Shape`], its name, and a branch of [`recognise`].

use super::manifest::{DOCKER_MANIFEST, Descriptor, Manifest};
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
const CNCF_LAYER: &str = "application/wasm";
const RUNWASI_LAYER: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const HIGRESS_SPEC: &str = "application/vnd.module.wasm.spec.v1+yaml";
const BUILT_ON_ENVOY: &str = "application/vnd.builtonenvoy.extension.v1";

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
            Shape::WasmeLegacy => "wasme-legacy",
            Shape::WasmToOci => "wasm-to-oci",
            Shape::Kubewarden => "kubewarden-policy",
            Shape::CncfWasm => "cncf-wasm",
            Shape::Runwasi => "runwasi",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the module is.
#[derive(Debug)]
pub(crate) enum Module<'m> {
    /// The blob is the module.
    Raw(&'m Descriptor),
    /// The blob is an archive with `plugin.wasm` in it.
    Archive(&'m Descriptor),
}

/// What is to be read of an image.
#[derive(Debug)]
pub(crate) struct Plan<'m> {
    pub shape: Shape,
    pub module: Module<'m>,
    /// The runtime config as a layer.
    pub config_layer: Option<&'m Descriptor>,
    /// The runtime config as the manifest's config.
    pub manifest_config: Option<&'m Descriptor>,
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

/// Decides the shape. `None`: there is nothing that could hold a module.
///
/// An archive in the last layer wins over a content layer, as it does for the consumers.
pub(crate) fn recognise(manifest: &Manifest) -> Option<Plan<'_>> {
    let config_layer = manifest.layers.iter().find(|l| is_config(&l.media_type));
    let manifest_config = manifest.config.as_ref().filter(|config| is_config(&config.media_type));
    if let Some(last) = manifest.layers.last().filter(|l| is_archive(&l.media_type)) {
        return Some(Plan {
            shape: archive_shape(manifest),
            module: Module::Archive(last),
            config_layer,
            manifest_config,
            candidates: 1,
        });
    }
    RAW.iter().find_map(|(media_type, shape)| {
        let of_type: Vec<_> =
            manifest.layers.iter().filter(|layer| layer.media_type == *media_type).collect();
        let first = of_type.first()?;
        Some(Plan {
            shape: raw_shape(manifest, *shape),
            module: Module::Raw(first),
            config_layer,
            manifest_config,
            candidates: of_type.len(),
        })
    })
}

fn is_config(media_type: &str) -> bool {
    [CONFIG, MISSPELT_CONFIG, LEGACY_CONFIG].contains(&media_type)
}

/// Layers of a file system, however they are compressed: what is in there is seen by its content.
fn is_archive(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.v1.tar")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.diff.tar")
}

fn archive_shape(manifest: &Manifest) -> Shape {
    if manifest.artifact_type.as_deref() == Some(BUILT_ON_ENVOY) {
        Shape::BuiltOnEnvoy
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
    if shape == Shape::WasmToOci && is_policy {
        return Shape::Kubewarden;
    }
    shape
}
