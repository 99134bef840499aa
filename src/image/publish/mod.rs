//! Writing images: to a registry, an OCI layout, or a tar file. [`push`] builds one from a module,
//! [`copy`] takes one as it is.

mod build;
mod destination;
mod files;
mod upload;

use std::collections::HashSet;
use std::pin::Pin;

use super::content::{self, Content, Named};
use super::error::ImageError;
use super::image_index::MAX_DEPTH;
use super::manifest::{self, Descriptor, Document, OCI_INDEX, OCI_MANIFEST};
use super::source::{self, Task};
use super::{Digest, FetchOptions, Image, Progress, Source, signature};
use crate::timing::{PhaseTime, Stopwatch};

pub use build::{Package, PushShape, runtime_config};
pub use destination::Destination;

/// Manifests and image indexes that are copied at once; more are nobody's image.
const MAX_DOCUMENTS: usize = 1000;

/// A place that is being written to. What is in a manifest comes before it.
trait Writer {
    /// Whether the place has a blob already.
    async fn has(&mut self, blob: &Descriptor) -> Result<bool, ImageError>;

    /// Writes a blob, which was verified.
    async fn blob(&mut self, blob: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError>;

    /// Writes a manifest or image index that another names.
    async fn manifest(&mut self, manifest: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError>;

    /// Writes the one that the destination's name shall lead to.
    async fn finish(self, named: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError>;
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The image's name, with its digest where one can be in it.
    pub reference: String,
    /// The digest of the manifest or image index. In a docker-archive there is none.
    pub digest: Option<String>,
    /// What docker calls the image by, the digest of its config; only of a docker-archive.
    pub image_id: Option<String>,
}

/// Builds an image of that shape and writes it. A docker-archive holds images of the compat shape
/// only.
///
/// It needs a tokio runtime with its I/O and time drivers enabled, as [`copy`] does.
pub async fn push(
    package: &Package<'_>,
    shape: PushShape,
    destination: &Destination,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Published, ImageError> {
    let image = build::build(shape, package);
    if let Destination::DockerArchive { path, name } = destination {
        let Some(archive) = &image.archive else {
            return Err(no_manifest(&format!(
                "a docker-archive holds no image of the shape {shape}"
            )));
        };
        let name = name.as_ref().map(ToString::to_string);
        files::docker_archive(path, name.as_deref(), &image, archive)?;
        return Ok(Published {
            reference: destination.to_string(),
            digest: None,
            image_id: Some(image.config.descriptor.digest.to_string()),
        });
    }
    write(destination, options, progress, &Push(image)).await
}

/// Copies the image that `source` names, byte for byte: an image index with all that it lists.
/// Signatures are images of their own, with tags of their own. `from` is for reading, `options` for
/// everything else.
pub async fn copy(
    source: &Source,
    reference: &str,
    from: &FetchOptions,
    destination: &Destination,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Published, ImageError> {
    if let Destination::DockerArchive { .. } = destination {
        return Err(no_manifest("a docker-archive holds no manifest"));
    }
    let task = Copy { destination, options, progress };
    source::with(source, reference, from, &task)
        .await?
        .ok_or_else(|| no_manifest(&format!("{reference} is no image with a manifest")))
}

fn no_manifest(reason: &str) -> ImageError {
    ImageError::PushRefused {
        what: "the image cannot be copied byte for byte".into(),
        reason: reason.into(),
        help: "give --shape compat, which every consumer and archive takes: the image is built anew from the module".into(),
    }
}

/// What is written to a place.
trait Work {
    async fn run<W: Writer>(&self, writer: W) -> Result<Digest, ImageError>;
    /// The digest that the place's name shall lead to.
    fn digest(&self) -> &Digest;
}

/// Opens the destination and does the work there.
async fn write(
    destination: &Destination,
    options: &FetchOptions,
    progress: &dyn Progress,
    work: &impl Work,
) -> Result<Published, ImageError> {
    if destination.pinned().is_some_and(|pinned| pinned != work.digest()) {
        return Err(ImageError::PushRefused {
            what: destination.to_string(),
            reason: format!("the image's digest is another, {}", work.digest()),
            help: format!(
                "write to a tag, or to the digest {}; nothing was written",
                work.digest()
            ),
        });
    }
    let digest = match destination {
        Destination::Registry(reference) => {
            let upload = async {
                work.run(upload::Uploader::new(reference, options, progress).await?).await
            };
            match tokio::time::timeout(options.timeout, upload).await {
                Ok(result) => result?,
                Err(_) => {
                    return Err(ImageError::TimedOut {
                        what: reference.to_string(),
                        after: options.timeout,
                    });
                }
            }
        }
        Destination::OciLayout { path, tag } => {
            work.run(files::LayoutWriter::open(path, tag.as_deref())?).await?
        }
        Destination::OciArchive { path, tag } => {
            work.run(files::ArchiveWriter::create(path, tag.as_deref())?).await?
        }
        Destination::DockerArchive { .. } => {
            return Err(no_manifest("a docker-archive holds no manifest"));
        }
    };
    Ok(Published {
        reference: destination.with_digest(&digest),
        digest: Some(digest.to_string()),
        image_id: None,
    })
}

struct Push(build::Built);

impl Work for Push {
    fn digest(&self) -> &Digest {
        &self.0.manifest.descriptor.digest
    }

    async fn run<W: Writer>(&self, mut writer: W) -> Result<Digest, ImageError> {
        let build::Built { config, layers, manifest, .. } = &self.0;
        for part in std::iter::once(config).chain(layers) {
            if !writer.has(&part.descriptor).await? {
                writer.blob(&part.descriptor, part.bytes.clone()).await?;
            }
        }
        writer.finish(&manifest.descriptor, manifest.bytes.clone()).await?;
        Ok(manifest.descriptor.digest.clone())
    }
}

struct Copy<'a> {
    destination: &'a Destination,
    options: &'a FetchOptions,
    progress: &'a dyn Progress,
}

impl Task for Copy<'_> {
    type Output = Option<Published>;

    async fn run<C: Content>(
        &self,
        content: &C,
        named: Named,
        _: Stopwatch,
    ) -> Result<Option<Published>, ImageError> {
        if !content.has_manifests() {
            return Ok(None);
        }
        if let Some(key) = &self.options.verify_key {
            signature::verify(content, &[&named.digest], key).await?;
        }
        let Self { destination, options, progress } = *self;
        let work = CopyFrom { content, named: &named, options, progress };
        write(destination, options, progress, &work).await.map(Some)
    }

    fn of_file(&self, _: Image) -> Option<Published> {
        None
    }

    fn progress(&self) -> &dyn Progress {
        self.progress
    }
}

struct CopyFrom<'a, C> {
    content: &'a C,
    named: &'a Named,
    options: &'a FetchOptions,
    progress: &'a dyn Progress,
}

impl<C: Content> Work for CopyFrom<'_, C> {
    fn digest(&self) -> &Digest {
        &self.named.digest
    }

    async fn run<W: Writer>(&self, mut writer: W) -> Result<Digest, ImageError> {
        let Named { bytes, digest, .. } = self.named;
        let mut left = MAX_DOCUMENTS;
        let document = self.parts(&mut writer, bytes, &self.content.name(), 0, &mut left).await?;
        let named = Descriptor {
            media_type: document.media_type,
            digest: digest.clone(),
            size: bytes.len() as u64,
            annotations: manifest::Annotations::new(),
            platform: None,
            artifact_type: document.artifact_type,
        };
        writer.finish(&named, bytes.clone()).await?;
        Ok(digest.clone())
    }
}

/// What a manifest or image index says of itself.
struct Kind {
    media_type: String,
    artifact_type: Option<String>,
}

impl<C: Content> CopyFrom<'_, C> {
    /// Copies all that a manifest or image index names. One blob is held at a time.
    fn parts<'f, W: Writer>(
        &'f self,
        writer: &'f mut W,
        bytes: &'f [u8],
        what: &'f str,
        depth: usize,
        left: &'f mut usize,
    ) -> Pin<Box<dyn Future<Output = Result<Kind, ImageError>> + 'f>> {
        Box::pin(async move {
            match manifest::parse(bytes, what)? {
                Document::Manifest(manifest) => {
                    let mut done = HashSet::new();
                    for blob in manifest.config.iter().chain(&manifest.layers) {
                        if done.insert(&blob.digest) {
                            self.blob(writer, blob).await?;
                        }
                    }
                    let media_type = non_empty(manifest.media_type, OCI_MANIFEST);
                    Ok(Kind { media_type, artifact_type: manifest.artifact_type })
                }
                Document::Index(index) => {
                    if depth >= MAX_DEPTH || index.entries.len() > *left {
                        let reason = "lists too many images, or indexes in indexes, to be copied";
                        return Err(ImageError::invalid(what, reason));
                    }
                    *left -= index.entries.len();
                    for entry in &index.entries {
                        let mut verify = PhaseTime::default();
                        let bytes = content::get_document(self.content, entry, &mut verify).await?;
                        let what = content::manifest_name(&entry.digest);
                        let kind = self.parts(writer, &bytes, &what, depth + 1, left).await?;
                        // The registry wants to be told what the document says of itself.
                        let entry = Descriptor { media_type: kind.media_type, ..entry.clone() };
                        writer.manifest(&entry, bytes).await?;
                    }
                    let media_type = non_empty(index.media_type, OCI_INDEX);
                    Ok(Kind { media_type, artifact_type: None })
                }
            }
        })
    }

    async fn blob<W: Writer>(&self, writer: &mut W, blob: &Descriptor) -> Result<(), ImageError> {
        if writer.has(blob).await? {
            return Ok(());
        }
        let limit = self.options.max_module_bytes;
        let fetched = content::get(self.content, blob, limit, self.progress).await?;
        writer.blob(blob, fetched.bytes).await
    }
}

fn non_empty(media_type: String, default: &str) -> String {
    if media_type.is_empty() { default.to_owned() } else { media_type }
}
