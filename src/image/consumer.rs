//! What Istio and Envoy Gateway say of an image that they do not take. Their fetchers have the same
//! origin and gave the same verdict on every image that they were compared on; the wording here is
//! Istio's, so that people can search their logs for it.
//!
//! Their order: a manifest of Docker's type must have a tar+gzip layer of Docker's type last. Any
//! other must have a tar+gzip layer of OCI's type last, or be two layers, one of which is the
//! content layer of the specification.

use super::manifest::{DOCKER_MANIFEST, Manifest};
use super::shape::{CONTENT_LAYER, DOCKER_TAR_GZIP, OCI_TAR_GZIP};
use super::{Digest, Platform};

/// Whether the consumers would open the last layer as an archive; if not, their first complaint.
fn compat_error(manifest: &Manifest) -> Option<String> {
    let expected =
        if manifest.media_type == DOCKER_MANIFEST { DOCKER_TAR_GZIP } else { OCI_TAR_GZIP };
    match manifest.layers.last() {
        None => Some("number of layers must be greater than zero".into()),
        Some(last) if last.media_type != expected => {
            Some(format!("invalid media type {} (expect {expected})", last.media_type))
        }
        Some(_) => None,
    }
}

fn artifact_error(manifest: &Manifest) -> Option<String> {
    if manifest.layers.len() != 2 {
        return Some(format!("number of layers must be 2 but got {}", manifest.layers.len()));
    }
    if manifest.layers.iter().all(|l| l.media_type != CONTENT_LAYER) {
        return Some(format!("could not find the layer of type {CONTENT_LAYER}"));
    }
    None
}

/// What they say of the manifest alone. `None`: they would open it.
pub(crate) fn objection(manifest: &Manifest) -> Option<String> {
    refusal(manifest, &compat_error(manifest)?)
}

/// What they say when the last layer, opened as an archive, does not yield the module.
pub(crate) fn archive_objection(manifest: &Manifest, error: &str) -> Option<String> {
    match compat_error(manifest) {
        Some(error) => refusal(manifest, &error),
        None => refusal(manifest, error),
    }
}

fn refusal(manifest: &Manifest, compat: &str) -> Option<String> {
    if manifest.media_type == DOCKER_MANIFEST {
        // Without a colon: so it is in their source.
        return Some(format!(
            "could not fetch Wasm binary: could not extract Wasm file from the image as Docker container {compat}"
        ));
    }
    let artifact = artifact_error(manifest)?;
    Some(format!(
        "could not fetch Wasm binary: the given image is in invalid format as an OCI image: 2 errors occurred:\n\t* could not parse as compat variant: {compat}\n\t* could not parse as oci variant: {artifact}"
    ))
}

/// An index without an entry for the platform.
pub(crate) fn no_platform(name: &str, platform: &Platform) -> String {
    format!(
        "could not fetch Wasm OCI image: could not fetch image: no child with platform {platform} in index {name}"
    )
}

/// A reference that pins an index.
pub(crate) fn pinned_index(name: &str, pinned: &Digest, selected: &Digest) -> String {
    format!(
        "module downloaded from oci://{name} has checksum {}, which does not match: {}",
        selected.hex(),
        pinned.hex()
    )
}
