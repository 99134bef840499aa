//! Image indexes: which of the entries is the image, decided as Istio and Envoy Gateway do.

use super::content::{self, Content, Named, list};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::{Digest, FetchOptions, ImageError, Platform, consumer};
use crate::timing::PhaseTime;
use crate::verdict::{Finding, Rule};

/// Deeper indexes than that are nobody's and only there to keep a reader busy.
const MAX_DEPTH: usize = 3;

/// A manifest, and the way to it.
pub(crate) struct Resolved {
    pub manifest: Box<Manifest>,
    pub digest: Digest,
    pub notes: Vec<Finding>,
    pub verify: PhaseTime,
}

/// Follows image indexes to the manifest for the platform.
pub(crate) async fn resolve<C: Content>(
    content: &C,
    named: &Named,
    options: &FetchOptions,
) -> Result<Resolved, ImageError> {
    let mut verify = named.verify;
    let mut notes = Vec::new();
    let mut digest = named.digest.clone();
    let mut document = manifest::parse(&named.bytes, &content.name())?;
    for _ in 0..=MAX_DEPTH {
        let entries = match document {
            Document::Manifest(manifest) => {
                if let Some(pinned) = named.pinned.as_ref().filter(|pinned| **pinned != digest) {
                    notes.push(pinned_index(content, pinned, &digest));
                }
                return Ok(Resolved { manifest, digest, notes, verify });
            }
            Document::Index(entries) => entries,
        };
        let chosen = select(content, &entries, &options.platform, &mut notes)?;
        content::check_document_size(chosen)?;
        let bytes = content.document(chosen).await?;
        content::verify_document(&bytes, chosen, &mut verify)?;
        digest = chosen.digest.clone();
        document = manifest::parse(&bytes, &content::manifest_name(&digest))?;
    }
    Err(ImageError::invalid(
        content.name(),
        format!("image indexes are nested more than {MAX_DEPTH} deep"),
    ))
}

/// The first entry for the platform; an entry that names none counts as linux/amd64.
fn select<'e, C: Content>(
    content: &C,
    entries: &'e [Descriptor],
    wanted: &Platform,
    notes: &mut Vec<Finding>,
) -> Result<&'e Descriptor, ImageError> {
    let runnable: Vec<_> = entries.iter().filter(|e| !is_attestation(e)).collect();
    if let Some(entry) = runnable.iter().find(|e| platform(e) == *wanted) {
        return Ok(entry);
    }
    let has = match list(runnable.iter().map(|e| platform(e).to_string())) {
        empty if empty.is_empty() => "no image at all".to_owned(),
        platforms => platforms,
    };
    let reason = format!("the image index has no entry for {wanted}, only {has}");
    let help = format!("build the image for {wanted} (`docker build --platform {wanted}`)");
    // The consumers do not ask for any other.
    let is_default = *wanted == Platform::default();
    let message = is_default.then(|| consumer::no_platform(&content.name(), wanted));
    match runnable.as_slice() {
        // Wasm is the same for every platform: where there is no choice, the module is still worth
        // looking at.
        [only] if is_default => {
            let finding = Finding::warning(
                Rule::ImageShape,
                format!("{reason}: Istio and Envoy Gateway would not take it"),
            )
            .help(help)
            .envoy_text(&message.unwrap_or_default());
            notes.push(finding);
            Ok(only)
        }
        _ => {
            Err(ImageError::Shape { what: content.name(), reason, consumer_message: message, help })
        }
    }
}

fn platform(entry: &Descriptor) -> Platform {
    match &entry.platform {
        Some(platform) if !(platform.os.is_empty() && platform.architecture.is_empty()) => {
            platform.clone()
        }
        _ => Platform::default(),
    }
}

/// buildx adds an entry for each image's provenance. It is a manifest, but of no image.
fn is_attestation(entry: &Descriptor) -> bool {
    let kind = entry.annotations.get("vnd.docker.reference.type");
    kind.is_some_and(|kind| kind == "attestation-manifest")
        || entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

/// `docker buildx build --push` prints the digest of the index, so that is what people pin; the
/// consumers compare the pin with the digest of the manifest that they selected.
fn pinned_index<C: Content>(content: &C, pinned: &Digest, selected: &Digest) -> Finding {
    Finding::warning(Rule::ImageShape, format!(
            "the reference pins an image index; Istio and Envoy Gateway compare the pin with the manifest that they select from it, {selected}, and refuse the image"
        ),
    )
    .help(format!("pin {selected} instead"))
    .envoy_text(&consumer::pinned_index(&content.name(), pinned, selected))
}
