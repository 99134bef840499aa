//! OCI image layout directories: `oci-layout`, `index.json` and `blobs/ALGORITHM/HEX`.

use super::content::{self, BlobSink, Content, Named, list};
use super::digest::Digest;
use super::file::{blocking, io_error, read_bounded};
use super::manifest::{self, Descriptor, Document, MAX_DOCUMENT_BYTES};
use super::signature::BUNDLE;
use super::{ImageError, Selector, SourceKind};
use crate::timing::PhaseTime;
use std::path::{Path, PathBuf};

pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What `cosign save` marks its entries with, instead of a tag.
const KIND: &str = "kind";
const COSIGN_SIGNATURES: &str = "dev.cosignproject.cosign/sigs";
const COSIGN_ATTESTATIONS: &str = "dev.cosignproject.cosign/atts";

/// An OCI layout directory.
#[derive(Clone)]
pub(crate) struct Layout {
    /// As typed, for messages.
    path: PathBuf,
    /// Without symbolic links, for the check that nothing leads out of it.
    root: PathBuf,
}

impl Layout {
    pub(crate) async fn open(path: &Path) -> Result<Self, ImageError> {
        let path = path.to_owned();
        blocking(move || {
            let root = path.canonicalize().map_err(|e| io_error(&path, e))?;
            let layout = Self { path, root };
            if !layout.root.join("oci-layout").exists() {
                return Err(ImageError::NotAnImage {
                    path: layout.path,
                    reason: "is not an OCI layout: it has no `oci-layout` file".into(),
                    help: "name the directory that holds `oci-layout`, `index.json` and `blobs`"
                        .into(),
                });
            }
            let what = layout.path.join("oci-layout").display().to_string();
            let version = layout.read(Path::new("oci-layout"), &what, MAX_DOCUMENT_BYTES)?;
            layout.check_version(&version, what)?;
            Ok(layout)
        })
        .await
    }

    fn check_version(&self, file: &[u8], what: String) -> Result<(), ImageError> {
        let version = serde_json::from_slice::<serde_json::Value>(file)
            .ok()
            .and_then(|v| Some(v.get("imageLayoutVersion")?.as_str()?.to_owned()));
        match version {
            Some(version) if version.starts_with("1.") => Ok(()),
            Some(version) => Err(ImageError::invalid(
                what,
                format!("layout version {version:?} is not known, only 1.0.0 is"),
            )),
            None => Err(ImageError::invalid(what, "has no `imageLayoutVersion`")),
        }
    }

    /// Reads a file of the layout. A symbolic link may stay inside it, for layouts that share
    /// blobs do that; it must not lead out.
    fn read(&self, relative: &Path, what: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let path = self.root.join(relative);
        let shown = self.path.join(relative);
        let real = path.canonicalize().map_err(|e| io_error(&shown, e))?;
        if !real.starts_with(&self.root) {
            return Err(ImageError::invalid(
                shown.display().to_string(),
                "is a symbolic link that leads out of the layout",
            ));
        }
        read_bounded(&real, what, limit)
    }

    /// Only takes a [`Digest`], whose syntax is checked: `sha256:../../x` cannot come this far.
    fn blob_path(digest: &Digest) -> PathBuf {
        Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    async fn read_blob(
        &self,
        digest: &Digest,
        what: String,
        limit: u64,
    ) -> Result<Vec<u8>, ImageError> {
        let (layout, digest) = (self.clone(), digest.clone());
        blocking(move || {
            layout.read(&Self::blob_path(&digest), &what, limit).map_err(|error| match error {
                ImageError::FileNotFound { path } => ImageError::NotFound {
                    what: what.clone(),
                    reason: format!("the layout has no {}", path.display()),
                    help: "copy the whole image into the layout again".into(),
                },
                other => other,
            })
        })
        .await
    }

    /// `index.json`, and what it lists.
    async fn index(&self) -> Result<(Vec<u8>, Vec<Descriptor>), ImageError> {
        let what = self.path.join("index.json").display().to_string();
        let (layout, shown) = (self.clone(), what.clone());
        let read = move || layout.read(Path::new("index.json"), &shown, MAX_DOCUMENT_BYTES);
        let index = blocking(read).await?;
        // It has no descriptor, so there is nothing to verify it against.
        match manifest::parse(&index, &what)? {
            Document::Index(parsed) => Ok((index, parsed.entries)),
            Document::Manifest(_) => Err(ImageError::invalid(
                what,
                "is an image manifest, where an image index is expected",
            )),
        }
    }

    /// The image that the selector names; without one, the only image that there is.
    pub(crate) async fn select(&self, selector: Option<&Selector>) -> Result<Named, ImageError> {
        let (index, entries) = self.index().await?;
        let chosen = match selector {
            Some(Selector::Digest(digest)) => {
                return self.named_by_digest(&entries, digest).await;
            }
            Some(Selector::Tag(tag)) => self.by_tag(&entries, tag)?,
            None => match distinct(entries.iter().filter(|e| !is_attached(e))).as_slice() {
                [] => {
                    return Err(ImageError::Ambiguous {
                        path: self.path.clone(),
                        reason: "the layout has no images".into(),
                        help:
                            "copy an image into it, for example with `skopeo copy docker://… oci:…`"
                                .into(),
                    });
                }
                [only] => *only,
                // A directory that holds one image for several platforms without a common index.
                several
                    if several.iter().all(|e| e.platform.is_some() && ref_name(e).is_none()) =>
                {
                    let digest = Digest::sha256(&index);
                    return Ok(Named {
                        bytes: index,
                        digest,
                        pinned: None,
                        verify: PhaseTime::default(),
                    });
                }
                several => {
                    return Err(ImageError::Ambiguous {
                        path: self.path.clone(),
                        reason: format!(
                            "the layout has {} images: {}",
                            several.len(),
                            names(several)
                        ),
                        help: "say which: oci:DIRECTORY:TAG or oci:DIRECTORY@DIGEST".into(),
                    });
                }
            },
        };
        let mut verify = PhaseTime::default();
        let bytes = content::get_document(self, chosen, &mut verify).await?;
        Ok(Named { bytes, digest: chosen.digest.clone(), pinned: None, verify })
    }

    fn by_tag<'e>(
        &self,
        entries: &'e [Descriptor],
        tag: &str,
    ) -> Result<&'e Descriptor, ImageError> {
        let matching: Vec<_> = entries.iter().filter(|e| ref_name(e) == Some(tag)).collect();
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
            several => Err(ImageError::Ambiguous {
                path: self.path.clone(),
                reason: format!("{} images have the tag {tag}", several.len()),
                help: format!(
                    "say which by its digest: {}",
                    list(several.iter().map(|e| e.digest.to_string()))
                ),
            }),
        }
    }

    /// A manifest that `index.json` does not list is taken too: the child of an image index is one.
    async fn named_by_digest(
        &self,
        entries: &[Descriptor],
        digest: &Digest,
    ) -> Result<Named, ImageError> {
        let what = content::manifest_name(digest);
        let mut verify = PhaseTime::default();
        let bytes = self.read_blob(digest, what.clone(), MAX_DOCUMENT_BYTES).await?;
        match entries.iter().find(|e| e.digest == *digest) {
            Some(entry) => content::verify_document(&bytes, entry, &mut verify)?,
            None => content::verify_digest(&bytes, digest, &what, &mut verify)?,
        }
        Ok(Named { bytes, digest: digest.clone(), pinned: Some(digest.clone()), verify })
    }
}

impl Content for Layout {
    fn kind(&self) -> SourceKind {
        SourceKind::OciLayout
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let what = content::manifest_name(&descriptor.digest);
        self.read_blob(&descriptor.digest, what, MAX_DOCUMENT_BYTES).await
    }

    async fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let (_, entries) = self.index().await?;
        let is_saved = |entry: &Descriptor| {
            tag.ends_with(".sig")
                && entry.annotations.get(KIND).is_some_and(|kind| kind == COSIGN_SIGNATURES)
        };
        match entries.iter().find(|entry| ref_name(entry) == Some(tag) || is_saved(entry)) {
            Some(entry) => self.document(entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// Tools write them into `index.json` beside everything else.
    async fn referrers(&self, _digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(Some(self.index().await?.0))
    }

    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError> {
        let what = content::blob_name(descriptor);
        // A file that is too long is found out by its length, not by reading it.
        match self.read_blob(&descriptor.digest, what, descriptor.size).await {
            Ok(bytes) => sink.write_whole(bytes),
            Err(ImageError::TooLarge { actual, .. }) => {
                Err(sink.size_mismatch(actual.unwrap_or(descriptor.size.saturating_add(1))))
            }
            Err(other) => Err(other),
        }
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
        Some(name) => super::error::one_line(name),
        None => e.digest.to_string(),
    }))
}
