//! Images written to a registry: blobs first, then the manifests that name them.

use reqwest::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use crate::image::{
    FetchOptions, ImageError, Progress, RegistryReference, content,
    manifest::Descriptor,
    oci_error::Asked,
    registry::digest_header,
    session::{Access, Session},
    transport::{Endpoint, Problem, Request, is_astray, shown},
};

use super::Writer;

/// Writes into a repository.
pub(super) struct Uploader<'a> {
    session: Session<'a>,
    progress: &'a dyn Progress,
}

impl<'a> Uploader<'a> {
    pub(super) async fn new(
        reference: &'a RegistryReference,
        options: &FetchOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        // The registry is silent until it has the whole of a blob.
        let options = FetchOptions { read_timeout: options.timeout, ..options.clone() };
        Ok(Self { session: Session::new(reference, Access::Push, &options).await?, progress })
    }

    async fn try_has(&self, blob: &Descriptor) -> Result<bool, Problem> {
        let url = self.session.url(&format!("blobs/{}", blob.digest));
        let response = self.session.send(&Request::new(Method::HEAD, url)).await?;
        match response.status().as_u16() {
            200 => Ok(true),
            // Whoever may not ask may still be allowed to write.
            400 | 403..=405 => Ok(false),
            _ => Err(Problem::answer(Endpoint::Registry, response).await),
        }
    }

    /// In two requests: one for a place, and one with all of the bytes.
    async fn try_blob(&self, blob: &Descriptor, bytes: &bytes::Bytes) -> Result<(), Problem> {
        let begin = Request::new(Method::POST, self.session.url("blobs/uploads/"));
        let response = self.session.send(&begin).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(Problem::answer(Endpoint::Registry, response).await);
        }
        let mut place = location(&begin.url, &response)?;
        place.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let media_type = HeaderValue::from_static("application/octet-stream");
        let request = Request::new(Method::PUT, place).with_body(media_type, bytes.clone());
        let response = self.session.send(&request).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(Problem::answer(Endpoint::Registry, response).await),
        }
    }

    async fn try_manifest(
        &self,
        id: &str,
        manifest: &Descriptor,
        bytes: &bytes::Bytes,
    ) -> Result<(), Problem> {
        let url = self.session.url(&format!("manifests/{id}"));
        let what = content::manifest_name(&manifest.digest);
        let media_type = HeaderValue::from_str(&manifest.media_type).map_err(|_| {
            Problem::Content(ImageError::invalid(&what, "its media type has odd characters in it"))
        })?;
        let request = Request::new(Method::PUT, url).with_body(media_type, bytes.clone());
        debug_assert!(request.headers.contains_key(CONTENT_TYPE));
        let response = self.session.send(&request).await?;
        if !response.status().is_success() {
            return Err(Problem::answer(Endpoint::Registry, response).await);
        }
        match digest_header(&response, &what)? {
            Some(digest) if digest != manifest.digest => {
                Err(Problem::Content(ImageError::DigestMismatch {
                    what: format!("{what}, as the registry stored it"),
                    expected: manifest.digest.to_string(),
                    actual: digest.to_string(),
                }))
            }
            _ => Ok(()),
        }
    }

    async fn put(&self, id: &str, manifest: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        let bytes = bytes::Bytes::from(bytes);
        let what = self.session.reference.to_string();
        let mut retry = self.session.retry(Asked::PutManifest, what);
        while let Err(problem) = self.try_manifest(id, manifest, &bytes).await {
            retry.after(problem).await?;
        }
        Ok(())
    }
}

/// Where the bytes are to go. It may be another host, which is told no credentials; it may be no
/// address of this machine, and nothing is sent there less well protected than to the registry.
fn location(asked: &Url, response: &Response) -> Result<Url, Problem> {
    let refused = |reason: String| Problem::Refused {
        reason: format!("the registry wants the upload sent to {reason}; nothing was sent there"),
        help: "check the registry's settings: behind a proxy it has to know its own address",
    };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let place = location.and_then(|location| response.url().join(location).ok());
    let Some(place) = place.filter(|place| matches!(place.scheme(), "http" | "https")) else {
        return Err(refused("nowhere: it named no http URL".into()));
    };
    if is_astray(asked, &place) {
        return Err(refused(format!("{}, which is an address of this machine", shown(&place))));
    }
    if asked.scheme() == "https" && place.scheme() == "http" {
        return Err(refused(format!("{}, which is plain HTTP", shown(&place))));
    }
    Ok(place)
}

impl Writer for Uploader<'_> {
    async fn has(&mut self, blob: &Descriptor) -> Result<bool, ImageError> {
        let mut retry = self.session.retry(Asked::Upload, content::blob_name(blob));
        loop {
            match self.try_has(blob).await {
                Ok(has) => return Ok(has),
                Err(problem) => retry.after(problem).await?,
            }
        }
    }

    async fn blob(&mut self, blob: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        let bytes = bytes::Bytes::from(bytes);
        let id = blob.digest.short();
        let mut retry = self.session.retry(Asked::Upload, content::blob_name(blob));
        self.progress.blob_started(id, Some(blob.size));
        while let Err(problem) = self.try_blob(blob, &bytes).await {
            retry.after(problem).await?;
        }
        self.progress.blob_advanced(id, blob.size);
        self.progress.blob_finished(id);
        Ok(())
    }

    async fn manifest(&mut self, manifest: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        self.put(&manifest.digest.to_string(), manifest, bytes).await
    }

    async fn finish(self, named: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        let id = match self.session.reference.tag() {
            Some(tag) => tag.to_owned(),
            None => named.digest.to_string(),
        };
        self.put(&id, named, bytes).await
    }
}
