//! Images in a registry: what is fetched, in which order, how often, and what is believed of it.

use super::content::{self, BlobSink, Content, Named};
use super::credentials::{self, Credentials};
use super::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT_BYTES, OCI_INDEX, OCI_MANIFEST,
};
use super::oci_error::{Failure, Request};
use super::token::{self, Challenge};
use super::transport::{Endpoint, Problem, Transport, read};
use super::{
    Digest, FetchOptions, Image, ImageError, InvalidDigest, Progress, RegistryReference,
    SourceKind, pull,
};
use crate::timing::{PhaseTime, Stopwatch, timed};
use oci_distribution::secrets::RegistryAuth;
use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode, Url};
use std::time::Duration;
use tokio::sync::Mutex;

/// A registry that is not sent all four answers 404, or converts the manifest to another format.
const ACCEPT: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
const TRIES: u32 = 4;
/// A registry that asks for more patience than this is not asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Pulls an image from a registry.
pub(crate) async fn pull(
    reference: &RegistryReference,
    as_typed: &str,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let pull = async {
        let watch = Stopwatch::process();
        let registry = Registry::new(reference, options).await?;
        let named = registry.named().await?;
        pull::pull(&registry, named, as_typed, watch, options, progress).await
    };
    match tokio::time::timeout(options.timeout, pull).await {
        Ok(result) => result,
        Err(_) => Err(ImageError::TimedOut { what: reference.to_string(), after: options.timeout }),
    }
}

/// A repository in a registry.
struct Registry<'a> {
    transport: Transport,
    reference: &'a RegistryReference,
    /// The repository's URL.
    url: Url,
    credentials: Credentials,
    /// What is sent with every request, once the registry has asked for it.
    authorization: Mutex<Option<HeaderValue>>,
    retry_delay: Duration,
}

impl<'a> Registry<'a> {
    async fn new(
        reference: &'a RegistryReference,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let host = reference.registry();
        let credentials = credentials::find(reference, &options.credentials).await?;
        tracing::info!(registry = host, credentials = %credentials.origin, "pulling");
        let scheme = match reference.is_plain_http(options) {
            true => "http",
            false => "https",
        };
        let url = format!("{scheme}://{}/v2/{}/", reference.host(), reference.repository());
        let url = url.parse().map_err(|error| ImageError::Unreachable {
            what: reference.to_string(),
            reason: format!("{host} is no host: {error}"),
            help: format!("check that {host} is the right host and port"),
        })?;
        let authorization = match &credentials.auth {
            RegistryAuth::Bearer(token) => {
                Some(token::bearer(token).ok_or_else(|| ImageError::Credentials {
                    host: host.into(),
                    reason: format!(
                        "{}: the token has characters in it that none can have",
                        credentials.origin
                    ),
                })?)
            }
            _ => None,
        };
        Ok(Self {
            transport: Transport::new(reference, options)?,
            reference,
            url,
            credentials,
            authorization: Mutex::new(authorization),
            retry_delay: options.retry_delay,
        })
    }

    /// Gets something of the repository. Any answer but 200 is a problem.
    async fn get(&self, path: &str, accept: &str) -> Result<Response, Problem> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path()));
        let sent = self.authorization.lock().await.clone();
        let mut response = self.transport.get(&url, accept, sent.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(wanted) = self.authorize(&response, sent).await?
        {
            response = self.transport.get(&url, accept, Some(&wanted)).await?;
        }
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(Problem::answer(Endpoint::Registry, response).await),
        }
    }

    /// What a registry that refused a request wants to see, if it is something else than what was
    /// sent. Requests that are refused at the same time wait for one token.
    async fn authorize(
        &self,
        refusal: &Response,
        sent: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, Problem> {
        // Where a redirect leads, nobody may ask for the registry's credentials.
        if refusal.url().origin() != self.url.origin() {
            return Ok(None);
        }
        let mut current = self.authorization.lock().await;
        if *current != sent {
            return Ok(current.clone());
        }
        let auth = &self.credentials.auth;
        let wanted = match (Challenge::of(refusal.headers()), auth) {
            // There is nothing but the token from the config, and that was sent.
            (None, _) | (_, RegistryAuth::Bearer(_)) => None,
            (Some(Challenge::Basic), _) => token::basic(auth),
            (Some(Challenge::Bearer { realm, service }), _) => {
                let repository = self.reference.repository();
                let service = service.as_deref();
                let transport = &self.transport;
                let url = &self.url;
                Some(token::fetch(transport, url, repository, &realm, service, auth).await?)
            }
        };
        let wanted = wanted.filter(|wanted| Some(wanted) != sent.as_ref());
        if wanted.is_some() {
            current.clone_from(&wanted);
        }
        Ok(wanted)
    }

    /// The manifest or image index that the reference names.
    async fn named(&self) -> Result<Named, ImageError> {
        let mut verify = PhaseTime::default();
        let what = self.reference.to_string();
        let pinned = self.reference.digest();
        let id = match pinned {
            Some(digest) => digest.to_string(),
            None => self.reference.tag().unwrap_or("latest").to_owned(),
        };
        let (bytes, header) = self.manifest(&id, &what, &format!("the manifest of {what}")).await?;
        // A host that is no registry, or a network that wants a login first.
        if bytes.trim_ascii_start().starts_with(b"<") {
            let host = self.reference.registry();
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
        let mut retry = self.retry(Request::Manifest, what.into());
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
        let mut response = self.get(&format!("manifests/{id}"), &ACCEPT.join(", ")).await?;
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

    fn retry(&self, request: Request, what: String) -> Retry<'_> {
        Retry { registry: self, request, what, failures: 0 }
    }

    async fn stream(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), Problem> {
        // A descriptor's `urls` are not followed: they could lead anywhere.
        let mut response = self.get(&format!("blobs/{}", descriptor.digest), "*/*").await?;
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
fn digest_header(response: &Response, what: &str) -> Result<Option<Digest>, Problem> {
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
        self.reference.to_string()
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

    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError> {
        let mut retry = self.retry(Request::Blob, content::blob_name(descriptor));
        while let Err(problem) = self.stream(descriptor, sink).await {
            retry.after(problem).await?;
            sink.restart();
        }
        Ok(())
    }
}

/// The tries of one request.
struct Retry<'a> {
    registry: &'a Registry<'a>,
    request: Request,
    what: String,
    failures: u32,
}

impl Retry<'_> {
    /// Waits after a failed try, or gives up: after four of them, or where another cannot help.
    async fn after(&mut self, problem: Problem) -> Result<(), ImageError> {
        let Registry { reference, credentials, retry_delay, .. } = self.registry;
        let failure = Failure::of(problem, self.request, &self.what, reference, credentials);
        self.failures += 1;
        if self.failures == TRIES || !failure.may_pass {
            return Err(failure.error);
        }
        let delay = match failure.retry_after {
            Some(asked) if asked > MAX_RETRY_AFTER => return Err(failure.error),
            Some(asked) => asked,
            None => retry_delay.saturating_mul(1 << (self.failures - 1)),
        };
        tracing::warn!("{}; trying again in {delay:?}", failure.error);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
