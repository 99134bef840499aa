//! Image indexes: which of the entries is the image, decided as Istio and Envoy Gateway do.

use super::content::{self, Content, Named, list};
use super::manifest::{self, Descriptor, Document, Index, Manifest};
use super::{Digest, ImageError, Platform};
use crate::timing::PhaseTime;

/// Deeper indexes than that are nobody's and only there to keep a reader busy.
pub(crate) const MAX_DEPTH: usize = 3;

/// A manifest, and its digest.
pub(crate) struct Selected {
    pub manifest: Box<Manifest>,
    pub digest: Digest,
    /// The platform of its entry, where it is in an index.
    pub platform: Option<Platform>,
}

/// What a reference comes to.
pub(crate) enum Resolved {
    /// One image.
    One {
        selected: Selected,
        /// The other images of the index that it is in.
        siblings: Vec<Descriptor>,
    },
    /// No entry is for the consumers' platform, and none was asked for: the images that there are.
    Other(Vec<Descriptor>),
}

/// Follows image indexes to the manifest for the platform. An entry that names none counts as
/// linux/amd64.
pub(crate) async fn resolve<C: Content>(
    content: &C,
    named: &Named,
    platform: Option<&Platform>,
    verify: &mut PhaseTime,
) -> Result<Resolved, ImageError> {
    let wanted = platform.cloned().unwrap_or_default();
    let mut digest = named.digest.clone();
    let mut document = manifest::parse(&named.bytes, &content.name())?;
    let mut found_platform = None;
    let mut siblings = Vec::new();
    for _ in 0..=MAX_DEPTH {
        let index = match document {
            Document::Manifest(manifest) => {
                let selected = Selected { manifest, digest, platform: found_platform };
                return Ok(Resolved::One { selected, siblings });
            }
            Document::Index(index) => index,
        };
        let runnable: Vec<_> = index.entries.into_iter().filter(|e| !is_attestation(e)).collect();
        let Some(at) = runnable.iter().position(|entry| platform_of(entry) == wanted) else {
            // Wasm is the same for every platform: where there is no choice, the module is still
            // worth looking at.
            return match platform {
                None if !runnable.is_empty() => Ok(Resolved::Other(runnable)),
                _ => Err(no_entry(content, &runnable, &wanted)),
            };
        };
        siblings = runnable;
        let chosen = siblings.remove(at);
        let bytes = content::get_document(content, &chosen, verify).await?;
        document = manifest::parse(&bytes, &content::manifest_name(&chosen.digest))?;
        found_platform = Some(platform_of(&chosen));
        digest = chosen.digest;
    }
    Err(too_deep(content))
}

/// The image that an entry is, or the first image of the index that it is.
pub(crate) async fn open_entry<C: Content>(
    content: &C,
    entry: &Descriptor,
    verify: &mut PhaseTime,
) -> Result<Selected, ImageError> {
    let platform = Some(platform_of(entry));
    let mut entry = entry.clone();
    for _ in 0..=MAX_DEPTH {
        let bytes = content::get_document(content, &entry, verify).await?;
        match manifest::parse(&bytes, &content::manifest_name(&entry.digest))? {
            Document::Manifest(manifest) => {
                return Ok(Selected { manifest, digest: entry.digest, platform });
            }
            Document::Index(index) => {
                let first = index.entries.into_iter().find(|entry| !is_attestation(entry));
                entry = first.ok_or_else(|| no_entry(content, &[], &Platform::default()))?;
            }
        }
    }
    Err(too_deep(content))
}

/// Whether the reference names an index in which oci-client, on linux/amd64, finds an image: it
/// follows no further index, and takes no entry without a platform.
pub(crate) fn is_index_for_wkg(index: &Index) -> bool {
    index.entries.iter().any(|entry| entry.platform.as_ref() == Some(&Platform::default()))
}

fn too_deep<C: Content>(content: &C) -> ImageError {
    ImageError::invalid(
        content.name(),
        format!("image indexes are nested more than {MAX_DEPTH} deep"),
    )
}

/// An index without an entry for the platform that was asked for, or without any.
pub(crate) fn no_entry<C: Content>(
    content: &C,
    runnable: &[Descriptor],
    wanted: &Platform,
) -> ImageError {
    ImageError::Shape {
        what: content.name(),
        reason: format!("the image index has no entry for {wanted}, only {}", platforms(runnable)),
        consumer_message: None,
        help: match runnable {
            [] => "push the image again".into(),
            _ => format!(
                "build the image for {wanted} (`docker build --platform {wanted}`), or name another with `--platform`"
            ),
        },
    }
}

/// The platforms of entries, for a message.
pub(crate) fn platforms(entries: &[Descriptor]) -> String {
    match list(entries.iter().map(|entry| platform_of(entry).to_string())) {
        empty if empty.is_empty() => "no image at all".to_owned(),
        platforms => platforms,
    }
}

/// The platform of an entry.
pub(crate) fn platform_of(entry: &Descriptor) -> Platform {
    match &entry.platform {
        Some(platform) if !(platform.os.is_empty() && platform.architecture.is_empty()) => {
            platform.clone()
        }
        _ => Platform::default(),
    }
}

/// buildx adds an entry for each image's provenance. It is a manifest, but of no image.
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    let kind = entry.annotations.get("vnd.docker.reference.type");
    kind.is_some_and(|kind| kind == "attestation-manifest")
        || entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}
