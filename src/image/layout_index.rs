//! `index.json` of an OCI layout, in a directory or an archive: which of its images is meant.

use super::content::{self, Content, Named, list};
use super::digest::Digest;
use super::error::one_line;
use super::manifest::{self, Descriptor, Document, MAX_DOCUMENT_BYTES};
use super::signature::BUNDLE;
use super::{ImageError, RegistryReference, Selector};
use crate::timing::PhaseTime;
use std::collections::BTreeMap;
use std::path::Path;

/// The tag, or with some tools the whole name.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What `cosign save` marks its entries with, instead of a tag.
const KIND: &str = "kind";
const COSIGN_SIGNATURES: &str = "dev.cosignproject.cosign/sigs";
const COSIGN_ATTESTATIONS: &str = "dev.cosignproject.cosign/atts";
/// The whole name, as containerd and Docker write it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// A layout, to choose from.
pub(crate) struct LayoutIndex<'a, C> {
    pub content: &'a C,
    /// As typed, for messages.
    pub path: &'a Path,
    /// How the user would name an image of it.
    pub form: &'static str,
    /// The content of `index.json`.
    pub index: Vec<u8>,
    /// How errors name `index.json`.
    pub name: String,
}

impl<C: Content> LayoutIndex<'_, C> {
    /// The image that the selector names; without one, the only image that there is.
    pub(crate) async fn select(self, selector: Option<&Selector>) -> Result<Named, ImageError> {
        // It has no descriptor, so there is nothing to verify it against.
        let Document::Index(index) = manifest::parse(&self.index, &self.name)? else {
            return Err(ImageError::invalid(
                self.name,
                "is an image manifest, where an image index is expected",
            ));
        };
        let entries = index.entries;
        let chosen = match selector {
            Some(Selector::Digest(digest)) => return self.by_digest(&entries, digest).await,
            Some(Selector::Tag(tag)) => self.by_tag(&entries, tag)?,
            None => match distinct(entries.iter().filter(|e| !is_attached(e))).as_slice() {
                [] => {
                    return Err(self.ambiguous(
                        "the layout has no images".into(),
                        "copy an image into it, for example with `skopeo copy docker://… oci:…`"
                            .into(),
                    ));
                }
                [only] => *only,
                // One image for several platforms without a common index.
                several
                    if several.iter().all(|e| e.platform.is_some() && ref_name(e).is_none()) =>
                {
                    let digest = Digest::sha256(&self.index);
                    let verify = PhaseTime::default();
                    return Ok(Named { bytes: self.index, digest, pinned: None, verify });
                }
                several => {
                    return Err(self.ambiguous(
                        format!("the layout has {} images: {}", several.len(), names(several)),
                        format!("say which: {}", self.form),
                    ));
                }
            },
        };
        let mut verify = PhaseTime::default();
        let bytes = content::get_document(self.content, chosen, &mut verify).await?;
        Ok(Named { bytes, digest: chosen.digest.clone(), pinned: None, verify })
    }

    fn ambiguous(&self, reason: String, help: String) -> ImageError {
        ImageError::Ambiguous { path: self.path.to_owned(), reason, help }
    }

    fn by_tag<'e>(
        &self,
        entries: &'e [Descriptor],
        tag: &str,
    ) -> Result<&'e Descriptor, ImageError> {
        let matching: Vec<_> = entries.iter().filter(|entry| has_name(entry, tag)).collect();
        match matching.as_slice() {
            [] => Err(ImageError::NotFound {
                what: format!("{}:{tag}", self.path.display()),
                reason: match names(&distinct(entries)) {
                    names if names.is_empty() => "the layout has no images".into(),
                    names => format!("the layout has {names}"),
                },
                help: "name one of the images that the layout has".into(),
            }),
            [first, rest @ ..] if rest.iter().all(|e| e.digest == first.digest) => Ok(first),
            several => Err(self.ambiguous(
                format!("{} images have the tag {tag}", several.len()),
                format!(
                    "say which by its digest: {}",
                    list(several.iter().map(|e| e.digest.to_string()))
                ),
            )),
        }
    }

    /// A manifest that `index.json` does not list is taken too: the child of an image index is one.
    async fn by_digest(
        &self,
        entries: &[Descriptor],
        digest: &Digest,
    ) -> Result<Named, ImageError> {
        let mut verify = PhaseTime::default();
        let listed = entries.iter().find(|entry| entry.digest == *digest);
        let bytes = match listed {
            Some(entry) => content::get_document(self.content, entry, &mut verify).await?,
            None => {
                let descriptor = Descriptor {
                    media_type: String::new(),
                    digest: digest.clone(),
                    size: MAX_DOCUMENT_BYTES,
                    annotations: BTreeMap::new(),
                    platform: None,
                    artifact_type: None,
                };
                let bytes = self.content.document(&descriptor).await?;
                let what = content::manifest_name(digest);
                content::verify_digest(&bytes, digest, &what, &mut verify)?;
                bytes
            }
        };
        Ok(Named { bytes, digest: digest.clone(), pinned: Some(digest.clone()), verify })
    }
}

/// The entry of an `index.json` with that tag, if there is one.
pub(crate) fn tagged(
    index: &[u8],
    name: &str,
    tag: &str,
) -> Result<Option<Descriptor>, ImageError> {
    let Document::Index(index) = manifest::parse(index, name)? else { return Ok(None) };
    let is_saved = |entry: &Descriptor| {
        tag.ends_with(".sig")
            && entry.annotations.get(KIND).is_some_and(|kind| kind == COSIGN_SIGNATURES)
    };
    Ok(index.entries.into_iter().find(|entry| ref_name(entry) == Some(tag) || is_saved(entry)))
}

/// Whether an image goes by that name. Docker's archives have the whole one.
fn has_name(entry: &Descriptor, name: &str) -> bool {
    ref_name(entry) == Some(name)
        || entry.annotations.get(IMAGE_NAME).is_some_and(|other| is_same_name(other, name))
}

/// Whether two names are of one image: `x:v1` is `docker.io/library/x:v1`.
pub(crate) fn is_same_name(a: &str, b: &str) -> bool {
    a == b
        || match (RegistryReference::parse(a), RegistryReference::parse(b)) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        }
}

fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(REF_NAME).map(String::as_str)
}

/// The entries, each digest once: an image may have several tags.
fn distinct<'e>(entries: impl IntoIterator<Item = &'e Descriptor>) -> Vec<&'e Descriptor> {
    let mut seen = std::collections::HashSet::new();
    entries.into_iter().filter(|e| seen.insert(e.digest.to_string())).collect()
}

/// Whether it belongs to another image, as a signature does, and is none that anybody would mean.
fn is_attached(entry: &Descriptor) -> bool {
    let kind = entry.annotations.get(KIND).map(String::as_str);
    ref_name(entry).is_some_and(|tag| tag.starts_with("sha256-"))
        || matches!(kind, Some(COSIGN_SIGNATURES | COSIGN_ATTESTATIONS))
        || entry.artifact_type.as_ref().is_some_and(|kind| kind.starts_with(BUNDLE))
}

fn names(entries: &[&Descriptor]) -> String {
    list(entries.iter().map(|e| match ref_name(e) {
        Some(name) => one_line(name),
        None => e.digest.to_string(),
    }))
}
