//! Images in a registry. The transport is oci-client's; what is fetched, in which order, how often
//! and what is believed of it is decided here.

use super::content::{self, BlobSink, Content, Named};
use super::credentials::{self, Credentials};
use super::error::chain;
use super::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT_BYTES, OCI_INDEX, OCI_MANIFEST,
};
use super::oci_error::{Failure, Request};
use super::timing::{StageTime, Stopwatch, timed};
use super::{
    Digest, FetchOptions, Image, ImageError, Progress, RegistryReference, SourceKind, pull,
};
use futures_util::StreamExt as _;
use oci_distribution::client::{ClientConfig, ClientProtocol};
use oci_distribution::errors::{DigestError, OciDistributionError};
use oci_distribution::{Client, Reference, RegistryOperation};
use std::time::Duration;

/// A registry that is not sent all four answers 404, or converts the manifest to another format.
const ACCEPT: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
const TRIES: u32 = 4;
const USER_AGENT: &str = concat!("filtergate/", env!("CARGO_PKG_VERSION"));

/// Pulls an image from a registry.
pub(crate) async fn pull(
    reference: &RegistryReference,
    as_typed: &str,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let pull = async {
        let watch = Stopwatch::process();
        let registry = Registry::connect(reference, options).await?;
        let named = registry.named().await?;
        pull::pull(&registry, named, as_typed, watch, options, progress).await
    };
    match tokio::time::timeout(options.timeout, pull).await {
        Ok(result) => result,
        Err(_) => Err(ImageError::TimedOut { what: reference.to_string(), after: options.timeout }),
    }
}

/// A repository in a registry that has let us in.
struct Registry<'a> {
    client: Client,
    reference: &'a RegistryReference,
    credentials: Credentials,
    retry_delay: Duration,
}

impl<'a> Registry<'a> {
    async fn connect(
        reference: &'a RegistryReference,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let credentials = credentials::find(reference, &options.credentials).await?;
        tracing::info!(
            registry = reference.registry(),
            credentials = %credentials.origin,
            "pulling"
        );
        let registry = Self {
            client: client(reference, options)?,
            reference,
            credentials,
            retry_delay: options.retry_delay,
        };
        // The pull functions would do this themselves, and swallow the token endpoint's reason.
        let mut retry = registry.retry(Request::Token, reference.to_string());
        let auth = &registry.credentials.auth;
        while let Err(error) =
            registry.client.auth(reference.inner(), auth, RegistryOperation::Pull).await
        {
            retry.after(Problem::Transport(error)).await?;
        }
        Ok(registry)
    }

    /// The manifest or image index that the reference names.
    async fn named(&self) -> Result<Named, ImageError> {
        let mut verify = StageTime::default();
        let what = self.reference.to_string();
        let bytes = self.manifest(self.reference.inner(), what.clone()).await?;
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
        let digest = match self.reference.digest() {
            Some(pinned) => {
                content::verify_digest(&bytes, pinned, &what, &mut verify)?;
                pinned.clone()
            }
            None => timed(&mut verify, || Digest::sha256(&bytes)),
        };
        Ok(Named { bytes, digest, pinned: self.reference.digest().cloned(), verify })
    }

    /// oci-client compares the bytes with `Docker-Content-Digest` and with the reference's digest.
    async fn manifest(&self, reference: &Reference, what: String) -> Result<Vec<u8>, ImageError> {
        let mut retry = self.retry(Request::Manifest, what.clone());
        let auth = &self.credentials.auth;
        let bytes = loop {
            match self.client.pull_manifest_raw(reference, auth, &ACCEPT).await {
                Ok((bytes, _)) => break bytes,
                Err(error) => retry.after(Problem::Transport(error)).await?,
            }
        };
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(ImageError::TooLarge {
                what: format!("the manifest of {what}"),
                limit: MAX_DOCUMENT_BYTES,
                actual: Some(bytes.len() as u64),
            });
        }
        Ok(bytes.into())
    }

    fn retry(&self, request: Request, what: String) -> Retry<'_> {
        Retry { registry: self, request, what, failures: 0 }
    }

    async fn stream(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), Problem> {
        // Only the digest is passed: a descriptor's `urls` could lead anywhere.
        let digest = descriptor.digest.to_string();
        let mut stream = self
            .client
            .pull_blob_stream(self.reference.inner(), digest.as_str())
            .await
            .map_err(Problem::Transport)?;
        if let Some(length) = stream.content_length {
            sink.announce(length).map_err(Problem::Content)?;
        }
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => sink.write(&piece).map_err(Problem::Content)?,
                Err(error) => match digest_error(&error) {
                    // oci-client checks the digest when the stream ends. The sink does so too, and
                    // the size before it.
                    Some((expected, actual)) => {
                        sink.header_mismatch(expected, actual);
                        return Ok(());
                    }
                    None => {
                        return Err(Problem::Transport(OciDistributionError::IoError(error)));
                    }
                },
            }
        }
        Ok(())
    }
}

/// Why an attempt failed.
enum Problem {
    /// Perhaps for reasons that pass.
    Transport(OciDistributionError),
    /// What came is not what the descriptor says; it would not be the next time.
    Content(ImageError),
}

fn digest_error(error: &std::io::Error) -> Option<(&str, &str)> {
    match error.get_ref()?.downcast_ref()? {
        DigestError::VerificationError { expected, actual } => Some((expected, actual)),
        _ => None,
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
        let digest = descriptor.digest.to_string();
        let what = format!("manifest {digest}");
        let reference = self.reference.inner().clone_with_digest(digest);
        self.manifest(&reference, what).await
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
        let error = match problem {
            Problem::Content(error) => return Err(error),
            Problem::Transport(error) => error,
        };
        let registry = self.registry;
        let failure =
            Failure::of(error, self.request, &self.what, registry.reference, &registry.credentials);
        self.failures += 1;
        if self.failures == TRIES || !failure.may_pass {
            return Err(failure.error);
        }
        let delay = registry.retry_delay.saturating_mul(1 << (self.failures - 1));
        tracing::warn!("{}; trying again in {delay:?}", failure.error);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

fn client(reference: &RegistryReference, options: &FetchOptions) -> Result<Client, ImageError> {
    let loopback = reference.is_loopback();
    let mut config = ClientConfig {
        protocol: match loopback || options.plain_http {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        },
        connect_timeout: Some(options.connect_timeout),
        read_timeout: Some(options.read_timeout),
        user_agent: USER_AGENT,
        platform_resolver: None,
        ..ClientConfig::default()
    };
    if loopback {
        // A proxy from the environment cannot reach this machine's loopback. To exclude every host
        // from a proxy of our own is how oci-client can be told to use none.
        config.http_proxy = Some("http://127.0.0.1:9".into());
        config.no_proxy = Some("*,0.0.0.0/0,::/0".into());
    }
    // Never `Client::new`: it replaces a configuration that does not work by the default one.
    Client::try_from(config).map_err(|error| {
        let reason = chain(&error);
        let help = if reason.contains("CA certificates") {
            // The client loads them even for plain HTTP, and there is no way to keep it from that.
            "install the system's CA certificates (the package `ca-certificates`), or set SSL_CERT_FILE to a file with them; they are needed even for plain HTTP"
        } else {
            "check the proxy and certificate settings in the environment"
        };
        ImageError::Unreachable {
            what: reference.to_string(),
            reason: format!("cannot set up the client: {reason}"),
            help: help.into(),
        }
    })
}
