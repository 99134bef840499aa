//! Signatures of images by a public key, as cosign makes them: attached to an image by the tag
//! `sha256-HEX.sig`, or as a sigstore bundle that refers to it (OCI 1.1). Transparency logs and
//! certificates are not looked at: the key is what is trusted.

mod key;
mod statement;

use super::content::{self, Content};
use super::error::{ImageError, one_line};
use super::manifest::{self, Descriptor, Document, MAX_DOCUMENT_BYTES, Manifest};
use super::{Digest, NoProgress};
use crate::timing::PhaseTime;
use crate::verdict::{Finding, Rule};

pub use key::{InvalidKey, PublicKey};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Without the version, of which there are several.
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// More signatures than these are not tried: each is a request or two.
const MAX_SIGNATURES: usize = 64;

/// The signatures that were tried.
#[derive(Default)]
struct Tried {
    count: usize,
    /// Why they were not taken, each reason once.
    reasons: Vec<String>,
}

impl Tried {
    fn is_full(&self) -> bool {
        self.count >= MAX_SIGNATURES
    }

    fn failed(&mut self, reason: String) {
        self.count += 1;
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// What came is no signature: one that does not count. What could not be had is an error, for
    /// it could have been a good one.
    fn broken(&mut self, error: ImageError) -> Result<(), ImageError> {
        if error.is_verdict() || matches!(error, ImageError::NotFound { .. }) {
            self.failed(format!("is broken: {error}"));
            return Ok(());
        }
        Err(error)
    }
}

/// That one of the manifests with these digests is signed with `key`. An image index vouches for
/// what it lists, so that either the index or the manifest from it may be the one that is signed.
pub(crate) async fn verify<C: Content>(
    content: &C,
    digests: &[&Digest],
    key: &PublicKey,
) -> Result<Finding, ImageError> {
    let mut tried = Tried::default();
    for digest in digests {
        if by_tag(content, digest, digests, key, &mut tried).await?
            || by_reference(content, digest, digests, key, &mut tried).await?
        {
            return Ok(Finding::note(
                Rule::ImageSignature,
                format!("the image is signed with the key {key}"),
            ));
        }
    }
    Err(unsigned(content.name(), digests, key, &tried))
}

/// The error for what cannot have signatures.
pub(crate) fn unsignable(what: &str, kind: &str) -> ImageError {
    ImageError::Signature {
        what: what.into(),
        reason: format!("not verified: {kind} has no signature that could be"),
        help: "name the image in the registry, or a copy of it with its signature, or leave out --verify-key".into(),
    }
}

fn unsigned(what: String, digests: &[&Digest], key: &PublicKey, tried: &Tried) -> ImageError {
    let named = digests.last().map_or_else(String::new, ToString::to_string);
    if tried.count == 0 {
        return ImageError::Signature {
            what,
            reason: format!("not signed: there is no signature of {named}"),
            help: format!(
                "sign it (`cosign sign --key … REPOSITORY@{named}`), and copy the signature wherever the image is copied"
            ),
        };
    }
    let several = match tried.count {
        1 => "the signature".to_owned(),
        count if tried.is_full() => format!("none of the first {count} signatures counts: it"),
        count => format!("none of {count} signatures counts: it"),
    };
    ImageError::Signature {
        what,
        reason: format!("not signed with {key}: {several} {}", content::list(tried.reasons.clone())),
        help: "do not use this image unless you know why: check that the key is the signer's, and that nobody pushed to the tag after it was signed".into(),
    }
}

/// cosign's own scheme: each layer of the image with that tag is a payload, and an annotation has
/// the signature of it.
async fn by_tag<C: Content>(
    content: &C,
    digest: &Digest,
    digests: &[&Digest],
    key: &PublicKey,
    tried: &mut Tried,
) -> Result<bool, ImageError> {
    let tag = format!("{}-{}.sig", digest.algorithm().name(), digest.hex());
    let Some(document) = content.tagged(&tag).await? else { return Ok(false) };
    let manifest = match parse_manifest(&document, &tag) {
        Ok(manifest) => manifest,
        Err(error) => {
            tried.broken(error)?;
            return Ok(false);
        }
    };
    for layer in &manifest.layers {
        let signature = layer.annotations.get(SIGNATURE);
        let (Some(signature), SIMPLE_SIGNING) = (signature, layer.media_type.as_str()) else {
            continue;
        };
        if tried.is_full() {
            break;
        }
        match content::get(content, layer, MAX_DOCUMENT_BYTES, &NoProgress).await {
            Ok(blob) => match statement::verify_payload(&blob.bytes, signature, key, digests) {
                Ok(()) => return Ok(true),
                Err(reason) => tried.failed(reason),
            },
            Err(error) => tried.broken(error)?,
        }
    }
    Ok(false)
}

/// The scheme of OCI 1.1: the layer of a manifest that refers to the image is a sigstore bundle.
async fn by_reference<C: Content>(
    content: &C,
    digest: &Digest,
    digests: &[&Digest],
    key: &PublicKey,
    tried: &mut Tried,
) -> Result<bool, ImageError> {
    let referrers = match content.referrers(digest).await? {
        Some(referrers) => Some(referrers),
        // Where the registry does not keep them, the clients do.
        None => {
            let tag = format!("{}-{}", digest.algorithm().name(), digest.hex());
            content.tagged(&tag).await?
        }
    };
    let entries = match referrers.map(|index| manifest::parse(&index, "the list of referrers")) {
        None | Some(Ok(Document::Manifest(_))) => return Ok(false),
        Some(Ok(Document::Index(index))) => index.entries,
        Some(Err(error)) => {
            tried.broken(error)?;
            return Ok(false);
        }
    };
    for entry in entries.iter().filter(|entry| may_be_bundle(entry)) {
        if tried.is_full() {
            break;
        }
        match bundle(content, entry).await {
            Ok(None) => {}
            Ok(Some(bundle)) => match statement::verify_bundle(&bundle, key, digests) {
                Ok(()) => return Ok(true),
                Err(reason) => tried.failed(reason),
            },
            Err(error) => tried.broken(error)?,
        }
    }
    Ok(false)
}

/// A layout lists the type only where the tool that wrote it did.
fn may_be_bundle(entry: &Descriptor) -> bool {
    entry.artifact_type.as_ref().is_none_or(|kind| kind.is_empty() || kind.starts_with(BUNDLE))
}

async fn bundle<C: Content>(
    content: &C,
    entry: &Descriptor,
) -> Result<Option<Vec<u8>>, ImageError> {
    let document = content::get_document(content, entry, &mut PhaseTime::default()).await?;
    let manifest = match manifest::parse(&document, &content::manifest_name(&entry.digest))? {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => return Ok(None),
    };
    let layer = manifest.layers.iter().find(|layer| layer.media_type.starts_with(BUNDLE));
    match layer {
        Some(layer) => {
            let blob = content::get(content, layer, MAX_DOCUMENT_BYTES, &NoProgress).await?;
            Ok(Some(blob.bytes))
        }
        None => Ok(None),
    }
}

fn parse_manifest(document: &[u8], tag: &str) -> Result<Box<Manifest>, ImageError> {
    let what = format!("the signatures at the tag {}", one_line(tag));
    match manifest::parse(document, &what)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(ImageError::invalid(what, "is an image index")),
    }
}
