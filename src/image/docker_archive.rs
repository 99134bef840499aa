//! `manifest.json`, by which `docker save` and what follows it say which files of an archive are an
//! image. It has no manifest that a registry would know, so that one is made for it: what
//! `docker push` would send, but for the compression.

use super::content::list;
use super::error::one_line;
use super::layout_index::is_same_name;
use super::manifest::DOCKER_MANIFEST;
use super::shape::DOCKER_TAR_GZIP;
use super::{Digest, ImageError, Selector};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;

/// The name of the file.
pub(crate) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// An image, by names in the archive.
#[derive(Debug)]
pub(crate) struct Image {
    pub config: String,
    pub layers: Vec<String>,
}

/// The image that the selector names; without one, the only image that there is.
pub(crate) fn choose(
    manifest: &[u8],
    path: &Path,
    selector: Option<&Selector>,
) -> Result<Image, ImageError> {
    let what = format!("{MANIFEST} in {}", path.display());
    let images: Vec<RawImage> = serde_json::from_slice(manifest).map_err(|error| {
        let reason = one_line(&error.to_string());
        ImageError::invalid(what, format!("is not a list of images: {reason}"))
    })?;
    let tags = |image: &RawImage| image.repo_tags.clone().unwrap_or_default();
    let all = list(images.iter().flat_map(|image| match tags(image) {
        none if none.is_empty() => vec!["one without a name".to_owned()],
        tags => tags.iter().map(|tag| one_line(tag)).collect(),
    }));
    let count = images.len();
    let ambiguous = |reason| ImageError::Ambiguous {
        path: path.to_owned(),
        reason,
        help: "say which: docker-archive:FILE:NAME:TAG, or docker-archive:FILE:@INDEX".into(),
    };
    let chosen = match selector {
        None if count > 1 => {
            return Err(ambiguous(format!("the archive has {count} images: {all}")));
        }
        None => images.into_iter().next(),
        Some(Selector::Digest(_)) => {
            return Err(ambiguous("images of such an archive have no digests".into()));
        }
        Some(Selector::Tag(name)) => {
            let index = name.strip_prefix('@').and_then(|index| index.parse::<usize>().ok());
            let found = images.into_iter().enumerate().find(|(at, image)| {
                index == Some(*at) || tags(image).iter().any(|tag| is_same_name(tag, name))
            });
            let Some((_, image)) = found else {
                return Err(ImageError::NotFound {
                    what: format!("{}:{name}", path.display()),
                    reason: format!("the archive has {all}"),
                    help: "name one of the images that the archive has".into(),
                });
            };
            Some(image)
        }
    };
    let image = chosen.ok_or_else(|| ambiguous("the archive has no images".into()))?;
    Ok(Image { config: image.config, layers: image.layers.unwrap_or_default() })
}

/// A manifest that was made for an image.
pub(crate) struct Synthesis {
    pub manifest: Vec<u8>,
    /// Names in the archive, by the digests in the manifest.
    pub blobs: HashMap<Digest, String>,
}

/// Makes the manifest of an image, whose unpacked layers have these sizes. The digests of the layers
/// are those in the config, so that they are verified as they are read.
pub(crate) fn manifest(
    image: &Image,
    config: &[u8],
    sizes: &[u64],
    what: &str,
) -> Result<Synthesis, ImageError> {
    let parsed: serde_json::Value = serde_json::from_slice(config).map_err(|error| {
        let reason = one_line(&error.to_string());
        ImageError::invalid(what, format!("the image's config is not valid: {reason}"))
    })?;
    let diff_ids = parsed["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    if diff_ids.len() != image.layers.len() {
        return Err(ImageError::invalid(
            what,
            format!(
                "the image's config has {} layers, and {MANIFEST} has {}",
                diff_ids.len(),
                image.layers.len()
            ),
        ));
    }
    let digest = Digest::sha256(config);
    let mut blobs = HashMap::from([(digest.clone(), image.config.clone())]);
    let mut layers = Vec::with_capacity(sizes.len());
    for ((name, size), diff_id) in image.layers.iter().zip(sizes).zip(&diff_ids) {
        let diff_id: Digest = diff_id.as_str().unwrap_or_default().parse().map_err(|error| {
            ImageError::invalid(what, format!("the image's config: rootfs.diff_ids: {error}"))
        })?;
        layers.push(json!({
            "mediaType": DOCKER_TAR_GZIP, "digest": diff_id.to_string(), "size": size,
        }));
        blobs.insert(diff_id, name.clone());
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": digest.to_string(),
            "size": config.len(),
        },
        "layers": layers,
    });
    Ok(Synthesis { manifest: manifest.to_string().into_bytes(), blobs })
}
