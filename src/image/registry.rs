//! Images in a registry: what is fetched, in which order, how often, and what is believed of it.

use super::content::{self, BlobSink, Content, Named};
use super::manifest::{Descriptor, MAX_DOCUMENT_BYTES, OCI_INDEX};
use super::oci_error::Asked;
use super::session::{Access, Session};
use super::transport::{Endpoint, Problem, read};
use super::{Digest, FetchOptions, ImageError, InvalidDigest, RegistryReference, SourceKind};
use crate::timing::{PhaseTime, timed};
use reqwest::Response;

/// A registry that is not sent all four answers 404, or converts the manifest to another format.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A repository in a registry, to read from.
pub(crate) struct Registry<'a> {
    session: Session<'a>,
}

impl<'a> Registry<'a> {
    /// Nothing is sent yet.
    pub(crate) async fn new(
        reference: &'a RegistryReference,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        Ok(Self { session: Session::new(reference, Access::Pull, options).await? })
    }

    /// The manifest or image index that the reference names.
    pub(crate) async fn named(&self) -> Result<Named, ImageError> {
        let mut verify = PhaseTime::default();
        let what = self.session.reference.to_string();
        let pinned = self.session.reference.digest();
        let id = match pinned {
            Some(digest) => digest.to_string(),
            None => self.session.reference.tag().unwrap_or("latest").to_owned(),
        };
        let (bytes, header) = self.manifest(&id, &what, &format!("the manifest of {what}")).await?;
        // A host that is no registry, or a network that wants a login first.
        if bytes.trim_ascii_start().starts_with(b"<") {
            let host = self.session.reference.registry();
            return Err(ImageError::Unreachable {
                what,
                reason: format!("{host} answered with a web page instead of a manifest"),
                help: format!(
                    "check that {host} is an OCI registry, and that no proxy or login page is in between"
                ),
            });
        }
        let digest = match pinned {
            Some(pinned) => {
                content::verify_digest(&bytes, pinned, &what, &mut verify)?;
                pinned.clone()
            }
            None => timed(&mut verify, || Digest::sha256(&bytes)),
        };
        verify_header(&bytes, header, &digest, &what, &mut verify)?;
        Ok(Named { bytes, digest, pinned: pinned.cloned(), verify })
    }

    /// A manifest or image index, and the digest that the registry's header has for it. `what` was
    /// asked for, and `title` is what came.
    async fn manifest(
        &self,
        id: &str,
        what: &str,
        title: &str,
    ) -> Result<(Vec<u8>, Option<Digest>), ImageError> {
        let mut retry = self.session.retry(Asked::Manifest, what.into());
        loop {
            match self.try_manifest(id, title).await {
                Ok(manifest) => return Ok(manifest),
                Err(problem) => retry.after(problem).await?,
            }
        }
    }

    async fn try_manifest(
        &self,
        id: &str,
        title: &str,
    ) -> Result<(Vec<u8>, Option<Digest>), Problem> {
        let too_large = |actual| {
            Problem::Content(ImageError::TooLarge {
                what: title.into(),
                limit: MAX_DOCUMENT_BYTES,
                actual,
            })
        };
        let mut response = self.session.get(&format!("manifests/{id}"), ACCEPT).await?;
        if let Some(length) = response.content_length().filter(|n| *n > MAX_DOCUMENT_BYTES) {
            return Err(too_large(Some(length)));
        }
        let header = digest_header(&response, title)?;
        let mut bytes = Vec::new();
        match read(&mut response, MAX_DOCUMENT_BYTES as usize, &mut bytes).await {
            Ok(true) => Ok((bytes, header)),
            Ok(false) => Err(too_large(None)),
            Err(error) => Err(Problem::transport(error)),
        }
    }

    /// The list of referrers, unless the registry keeps none: most answer 404 then, some otherwise.
    async fn try_referrers(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Problem> {
        let what = format!("the list of what refers to {digest}");
        let answer = self.session.get(&format!("referrers/{digest}"), OCI_INDEX).await;
        let mut response = match answer {
            Ok(response) => response,
            Err(Problem::Answer { endpoint: Endpoint::Registry, status, .. })
                if status.is_client_error() && !matches!(status.as_u16(), 401 | 408 | 429) =>
            {
                return Ok(None);
            }
            Err(problem) => return Err(problem),
        };
        let mut bytes = Vec::new();
        match read(&mut response, MAX_DOCUMENT_BYTES as usize, &mut bytes).await {
            Ok(true) => Ok(Some(bytes)),
            Ok(false) => Err(Problem::Content(ImageError::TooLarge {
                what,
                limit: MAX_DOCUMENT_BYTES,
                actual: None,
            })),
            Err(error) => Err(Problem::transport(error)),
        }
    }

    async fn stream(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), Problem> {
        // A descriptor's `urls` are not followed: they could lead anywhere.
        let mut response = self.session.get(&format!("blobs/{}", descriptor.digest), "*/*").await?;
        if let Some(length) = response.content_length() {
            sink.announce(length).map_err(Problem::Content)?;
        }
        if let Some(digest) = digest_header(&response, &content::blob_name(descriptor))? {
            sink.expect_header(digest);
        }
        while let Some(piece) = response.chunk().await.map_err(Problem::transport)? {
            sink.write(&piece).map_err(Problem::Content)?;
        }
        Ok(())
    }
}

/// The digest that the registry itself has for what it sends.
pub(crate) fn digest_header(response: &Response, what: &str) -> Result<Option<Digest>, Problem> {
    let Some(value) = response.headers().get("Docker-Content-Digest") else { return Ok(None) };
    let digest = String::from_utf8_lossy(value.as_bytes()).parse();
    digest.map(Some).map_err(|error: InvalidDigest| {
        Problem::Content(ImageError::invalid(content::header_name(what), error.to_string()))
    })
}

/// Verifies a manifest, of which `digest` is known, against the registry's header.
fn verify_header(
    bytes: &[u8],
    header: Option<Digest>,
    digest: &Digest,
    what: &str,
    verify: &mut PhaseTime,
) -> Result<(), ImageError> {
    match header.filter(|header| header != digest) {
        Some(header) => content::verify_digest(bytes, &header, &content::header_name(what), verify),
        None => Ok(()),
    }
}

impl Content for Registry<'_> {
    fn kind(&self) -> SourceKind {
        SourceKind::Registry
    }

    fn name(&self) -> String {
        self.session.reference.to_string()
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let what = content::manifest_name(&descriptor.digest);
        let id = descriptor.digest.to_string();
        let (bytes, header) = self.manifest(&id, &what, &what).await?;
        // Size comes before digest: whoever asked compares it.
        if bytes.len() as u64 == descriptor.size {
            verify_header(&bytes, header, &descriptor.digest, &what, &mut PhaseTime::default())?;
        }
        Ok(bytes)
    }

    async fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let what = format!("{} at the tag {tag}", self.session.reference.repository());
        match self.manifest(tag, &what, &what).await {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(ImageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn referrers(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let mut retry = self.session.retry(Asked::Manifest, format!("the referrers of {digest}"));
        loop {
            match self.try_referrers(digest).await {
                Ok(list) => return Ok(list),
                Err(problem) => retry.after(problem).await?,
            }
        }
    }

    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError> {
        let mut retry = self.session.retry(Asked::Blob, content::blob_name(descriptor));
        while let Err(problem) = self.stream(descriptor, sink).await {
            retry.after(problem).await?;
            sink.restart();
        }
        Ok(())
    }
}
