//! What every place that holds images can do, and the check that everything from there goes
//! through.

use super::digest::{Digest, Hasher};
use super::manifest::{Descriptor, MAX_DOCUMENT_BYTES};
use super::{ImageError, Progress, SourceKind};
use crate::store::{Draft, Shelf};
use crate::timing::{PhaseTime, timed};

/// A place that holds images.
pub(crate) trait Content {
    /// Its kind.
    fn kind(&self) -> SourceKind;

    /// How an error names the image that was asked for.
    fn name(&self) -> String;

    /// Whether images have manifests there, and with them digests.
    fn has_manifests(&self) -> bool {
        true
    }

    /// Whether layers are kept without the compression that they have in a registry.
    fn stores_layers_uncompressed(&self) -> bool {
        false
    }

    /// What is kept of the image, where anything is.
    fn shelf(&self) -> Option<&Shelf> {
        None
    }

    /// The manifest or image index with that digest. Implementations need not verify it.
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError>;

    /// The manifest or image index with that tag, if there is one; not verified. A place without
    /// tags has none.
    async fn tagged(&self, _tag: &str) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(None)
    }

    /// An image index of the manifests that refer to the one with that digest, if the place keeps
    /// such lists; not verified. It may list others too.
    async fn referrers(&self, _digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(None)
    }

    /// A blob, passed piece by piece to `sink`, which refuses what is not that blob.
    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError>;
}

/// What a reference resolved to, before any image index is followed.
pub(crate) struct Named {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    /// The digest in the reference, if it has one.
    pub pinned: Option<Digest>,
    pub verify: PhaseTime,
}

/// The name of a blob in errors and in the progress display.
pub(crate) fn blob_name(descriptor: &Descriptor) -> String {
    match descriptor.title() {
        Some(title) => format!("blob {} ({})", descriptor.digest, super::error::one_line(title)),
        None => format!("blob {}", descriptor.digest),
    }
}

/// The name of a manifest or image index in errors.
pub(crate) fn manifest_name(digest: &Digest) -> String {
    format!("manifest {digest}")
}

/// The name of a registry's digest header in errors.
pub(crate) fn header_name(of: &str) -> String {
    format!("the Docker-Content-Digest header of {of}")
}

/// Verifies a manifest or image index against its descriptor: size before digest.
pub(crate) fn verify_document(
    bytes: &[u8],
    descriptor: &Descriptor,
    verify: &mut PhaseTime,
) -> Result<(), ImageError> {
    let what = manifest_name(&descriptor.digest);
    if bytes.len() as u64 != descriptor.size {
        return Err(ImageError::SizeMismatch {
            what,
            expected: descriptor.size,
            actual: bytes.len() as u64,
        });
    }
    verify_digest(bytes, &descriptor.digest, &what, verify)
}

/// Verifies bytes against a digest.
pub(crate) fn verify_digest(
    bytes: &[u8],
    expected: &Digest,
    what: &str,
    verify: &mut PhaseTime,
) -> Result<(), ImageError> {
    let actual = timed(verify, || Hasher::of(expected.algorithm(), bytes));
    check_digest(&actual, expected, || what.to_owned())
}

fn check_digest(
    actual: &Digest,
    expected: &Digest,
    what: impl FnOnce() -> String,
) -> Result<(), ImageError> {
    if actual == expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        what: what(),
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}

/// Refuses what is over the limit by its descriptor already.
fn check_size(
    descriptor: &Descriptor,
    limit: u64,
    what: impl FnOnce() -> String,
) -> Result<(), ImageError> {
    if descriptor.size <= limit {
        return Ok(());
    }
    Err(ImageError::TooLarge { what: what(), limit, actual: Some(descriptor.size) })
}

/// Refuses a document that is over the limit by its descriptor already.
fn check_document_size(descriptor: &Descriptor) -> Result<(), ImageError> {
    check_size(descriptor, MAX_DOCUMENT_BYTES, || manifest_name(&descriptor.digest))
}

/// Takes a blob piece by piece and checks size and digest on the way.
pub(crate) struct BlobSink<'a> {
    descriptor: &'a Descriptor,
    progress: &'a dyn Progress,
    hasher: Hasher,
    bytes: Vec<u8>,
    verify: PhaseTime,
    header: Option<(Digest, Hasher)>,
    /// Where it is kept, and as what.
    kept: Option<(&'a Shelf, Draft)>,
}

/// A blob that is what its descriptor says.
pub(crate) struct Blob {
    pub bytes: Vec<u8>,
    pub verify: PhaseTime,
}

impl<'a> BlobSink<'a> {
    /// Refuses a blob that is larger than `limit` by its descriptor, before anything is read.
    pub(crate) fn new(
        descriptor: &'a Descriptor,
        limit: u64,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        check_size(descriptor, limit, || blob_name(descriptor))?;
        // Not to move what came when there is more. Memory is only taken up by what is written to.
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(descriptor.size).unwrap_or(0)).ok();
        Ok(Self {
            descriptor,
            progress,
            hasher: Hasher::new(descriptor.digest.algorithm()),
            bytes,
            verify: PhaseTime::default(),
            header: None,
            kept: None,
        })
    }

    /// Has it kept, if it is what its descriptor says.
    fn keep_on(&mut self, shelf: Option<&'a Shelf>) {
        let draft = shelf.and_then(|shelf| shelf.draft(&self.descriptor.digest));
        self.kept = shelf.zip(draft);
    }

    /// Does something with what is kept of it, which is only given up where that fails.
    fn draft(&mut self, work: impl FnOnce(&mut Draft) -> std::io::Result<()>) {
        if let Some((shelf, draft)) = &mut self.kept
            && let Err(error) = work(draft)
        {
            shelf.give_up(&error);
            self.kept = None;
        }
    }

    /// Forgets what came so far, for another try. The time that its check took stays counted.
    pub(crate) fn restart(&mut self) {
        self.hasher = Hasher::new(self.descriptor.digest.algorithm());
        self.header = None;
        self.bytes.clear();
        self.draft(Draft::restart);
        self.progress.blob_started(self.descriptor.digest.short(), Some(self.descriptor.size));
    }

    /// The number of bytes that are still missing.
    pub(crate) fn missing(&self) -> u64 {
        self.descriptor.size - self.bytes.len() as u64
    }

    /// Refuses a length that a server or file system announces and the descriptor does not.
    pub(crate) fn announce(&self, length: u64) -> Result<(), ImageError> {
        if length == self.descriptor.size {
            return Ok(());
        }
        Err(self.size_mismatch(length))
    }

    pub(crate) fn size_mismatch(&self, actual: u64) -> ImageError {
        ImageError::SizeMismatch {
            what: blob_name(self.descriptor),
            expected: self.descriptor.size,
            actual,
        }
    }

    /// The digest that the registry's header has for the blob. It is only checked, after the
    /// descriptor's, where it is another.
    pub(crate) fn expect_header(&mut self, digest: Digest) {
        if digest != self.descriptor.digest {
            let hasher = Hasher::new(digest.algorithm());
            self.header = Some((digest, hasher));
        }
    }

    /// The next piece. More than the descriptor's size is never kept.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), ImageError> {
        self.digest(piece)?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// The only piece, which is kept without a copy.
    pub(crate) fn write_whole(&mut self, bytes: Vec<u8>) -> Result<(), ImageError> {
        self.digest(&bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    fn digest(&mut self, piece: &[u8]) -> Result<(), ImageError> {
        if piece.len() as u64 > self.missing() {
            return Err(self.size_mismatch(self.bytes.len() as u64 + piece.len() as u64));
        }
        let (hasher, header) = (&mut self.hasher, &mut self.header);
        timed(&mut self.verify, || {
            hasher.update(piece);
            if let Some((_, hasher)) = header {
                hasher.update(piece);
            }
        });
        self.draft(|draft| draft.write(piece));
        self.progress.blob_advanced(self.descriptor.digest.short(), piece.len() as u64);
        Ok(())
    }

    /// The end of the blob.
    pub(crate) fn finish(mut self) -> Result<Blob, ImageError> {
        if self.missing() > 0 {
            return Err(self.size_mismatch(self.bytes.len() as u64));
        }
        let (descriptor, hasher) = (self.descriptor, self.hasher);
        let actual = timed(&mut self.verify, || hasher.finish());
        check_digest(&actual, &descriptor.digest, || blob_name(descriptor))?;
        if let Some((expected, hasher)) = self.header {
            let actual = timed(&mut self.verify, || hasher.finish());
            check_digest(&actual, &expected, || header_name(&blob_name(descriptor)))?;
        }
        if let Some((shelf, draft)) = self.kept {
            shelf.keep(&descriptor.digest, draft);
        }
        Ok(Blob { bytes: self.bytes, verify: self.verify })
    }
}

/// Gets and verifies one blob.
pub(crate) async fn get<C: Content>(
    content: &C,
    descriptor: &Descriptor,
    limit: u64,
    progress: &dyn Progress,
) -> Result<Blob, ImageError> {
    let mut sink = BlobSink::new(descriptor, limit, progress)?;
    if let Some(blob) = on_shelf(content.shelf(), descriptor) {
        return Ok(blob);
    }
    sink.keep_on(content.shelf());
    let id = descriptor.digest.short();
    progress.blob_started(id, Some(descriptor.size));
    content.blob(descriptor, &mut sink).await?;
    let blob = sink.finish()?;
    progress.blob_finished(id);
    Ok(blob)
}

/// Gets and verifies a manifest or image index.
pub(crate) async fn get_document<C: Content>(
    content: &C,
    descriptor: &Descriptor,
    verify: &mut PhaseTime,
) -> Result<Vec<u8>, ImageError> {
    check_document_size(descriptor)?;
    if let Some(document) = on_shelf(content.shelf(), descriptor) {
        *verify += document.verify;
        return Ok(document.bytes);
    }
    let bytes = content.document(descriptor).await?;
    verify_document(&bytes, descriptor, verify)?;
    if let Some(shelf) = content.shelf() {
        shelf.put(&descriptor.digest, &bytes);
    }
    Ok(bytes)
}

/// What is kept of the image, verified. The source has to answer for it where the descriptor has
/// another size than that. Nobody else waits while it is read, so that it is not worth a thread.
fn on_shelf(shelf: Option<&Shelf>, descriptor: &Descriptor) -> Option<Blob> {
    let mut verify = PhaseTime::default();
    let bytes = shelf?.get(&descriptor.digest, descriptor.size, &mut verify)?;
    (bytes.len() as u64 == descriptor.size).then_some(Blob { bytes, verify })
}

/// A list for a message, of bounded length.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    const MAX: usize = 10;
    let items: Vec<_> = items.into_iter().collect();
    let mut text = items.iter().take(MAX).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > MAX {
        text.push_str(&format!(" and {} more", items.len() - MAX));
    }
    text
}
