//! A module by its URL, as Envoy's remote data source fetches it.

use super::compression::Compression;
use super::error::{chain, one_line};
use super::reference::ModuleUrl;
use super::transport::{Problem, Request, Transport, shown};
use super::{Digest, FetchOptions, Image, ImageError, Progress, SourceKind};
use crate::store::Shelf;
use crate::timing::{PhaseTime, Stopwatch, timed};
use crate::verdict::{Finding, Rule};
use std::time::Duration;

const TRIES: u32 = 4;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Gets the module.
pub(crate) async fn fetch(
    module: &ModuleUrl,
    reference: &str,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let watch = Stopwatch::process();
    let what = module.to_string();
    let mut verify = PhaseTime::default();
    // What the URL leads to may change; what the digest names may not.
    let shelf = module
        .sha256()
        .zip(options.store.as_ref())
        .map(|(digest, store)| (digest, Shelf::new(store, &what, digest)));
    let kept = shelf.as_ref().and_then(|(digest, shelf)| {
        let wasm = shelf.get(digest, options.max_module_bytes, &mut verify)?;
        shelf.finish(&what);
        Some(wasm)
    });
    if let Some(wasm) = kept {
        return Ok(image(reference, wasm, Vec::new(), watch, verify));
    }
    let get = async {
        let fetcher = Fetcher::new(module, options, progress)?;
        fetcher.fetch().await
    };
    let (wasm, mut notes) = match tokio::time::timeout(options.timeout, get).await {
        Ok(result) => result?,
        Err(_) => return Err(ImageError::TimedOut { what, after: options.timeout }),
    };
    let sha256 = timed(&mut verify, || Digest::sha256(&wasm));
    match module.sha256() {
        Some(expected) if *expected != sha256 => {
            return Err(ImageError::DigestMismatch {
                what,
                expected: expected.to_string(),
                actual: sha256.to_string(),
            });
        }
        // What Envoy would not take the same way is looked at each time.
        Some(_) if !notes.is_empty() => {}
        Some(_) => {
            if let Some((digest, shelf)) = &shelf {
                shelf.put(digest, &wasm);
                shelf.finish(&what);
            }
        }
        None => notes.push(
            Finding::note(Rule::ImageShape, "the URL has no digest, and Envoy requires one")
                .help(format!("add #sha256={} to the URL", sha256.hex())),
        ),
    }
    Ok(image(reference, wasm, notes, watch, verify))
}

fn image(
    reference: &str,
    wasm: Vec<u8>,
    notes: Vec<Finding>,
    watch: Stopwatch,
    verify: PhaseTime,
) -> Image {
    Image {
        kind: SourceKind::Url,
        notes,
        fetch: watch.elapsed().without(verify),
        verify,
        ..Image::of_module(reference, wasm)
    }
}

struct Fetcher<'a> {
    module: &'a ModuleUrl,
    transport: Transport,
    options: &'a FetchOptions,
    progress: &'a dyn Progress,
}

/// A failed try.
struct Failed {
    error: ImageError,
    may_pass: bool,
    retry_after: Option<Duration>,
}

impl<'a> Fetcher<'a> {
    fn new(
        module: &'a ModuleUrl,
        options: &'a FetchOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let what = module.to_string();
        let is_plain = module.url().scheme() == "http";
        if is_plain && !module.is_loopback() && !options.plain_http {
            return Err(ImageError::Unreachable {
                what,
                reason: "plain HTTP is used for this machine only".into(),
                help: "write https://, or allow it with --plain-http".into(),
            });
        }
        let transport = Transport::to(&what, module.is_loopback(), is_plain, options)?;
        Ok(Self { module, transport, options, progress })
    }

    /// The body, and what is odd about it.
    async fn fetch(&self) -> Result<(Vec<u8>, Vec<Finding>), ImageError> {
        let mut failures = 0;
        loop {
            let failed = match self.attempt().await {
                Ok(found) => return Ok(found),
                Err(problem) => self.failed(problem),
            };
            failures += 1;
            let wait = match failed.retry_after {
                Some(asked) => asked,
                None => self.options.retry_delay.saturating_mul(1 << (failures - 1)),
            };
            if failures == TRIES || !failed.may_pass || wait > MAX_RETRY_AFTER {
                return Err(failed.error);
            }
            tracing::warn!("{}; trying again in {wait:?}", failed.error);
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self) -> Result<(Vec<u8>, Vec<Finding>), Problem> {
        let url = self.module.url();
        let request = Request::get(url.clone(), "*/*");
        let mut response = self.transport.send(&request, None).await?;
        if !response.status().is_success() {
            return Err(Problem::answer(super::transport::Endpoint::Registry, response).await);
        }
        let limit = self.options.max_module_bytes;
        let too_large = |actual| {
            let what = self.module.to_string();
            Problem::Content(ImageError::TooLarge { what, limit, actual })
        };
        let length = response.content_length();
        if length.is_some_and(|length| length > limit) {
            return Err(too_large(length));
        }
        let id = self.module.file_name();
        self.progress.blob_started(id, length);
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(Problem::transport)? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(too_large(None));
            }
            body.extend_from_slice(&piece);
            self.progress.blob_advanced(id, piece.len() as u64);
        }
        self.progress.blob_finished(id);
        if body.trim_ascii_start().starts_with(b"<") {
            return Err(Problem::Content(ImageError::NotFound {
                what: self.module.to_string(),
                reason: "the server answered with a web page".into(),
                help:
                    "check the URL: many servers answer so to what is not there, or wants a login"
                        .into(),
            }));
        }
        let mut notes = Vec::new();
        if response.url() != url {
            let to = shown(response.url());
            notes.push(
                Finding::warning(
                    Rule::ImageShape,
                    format!("the URL redirects to {to}, and Envoy follows no redirect"),
                )
                .help("give Envoy the URL that the redirect leads to"),
            );
        }
        notes.extend(packed(&body));
        Ok((body, notes))
    }

    fn failed(&self, problem: Problem) -> Failed {
        let what = self.module.to_string();
        let host = self.module.url().host_str().unwrap_or_default().to_owned();
        let unreachable = |reason: String, help: String| ImageError::Unreachable {
            what: what.clone(),
            reason,
            help,
        };
        let check =
            format!("check that {host} is the right host and that it can be reached from here");
        match problem {
            Problem::Content(error) => Failed { error, may_pass: false, retry_after: None },
            Problem::Refused { reason, help } => Failed {
                error: unreachable(reason, help.into()),
                may_pass: false,
                retry_after: None,
            },
            Problem::Transport(error) => {
                let reason = chain(&error);
                let is_certificate = reason.contains("certificate");
                let help = match is_certificate {
                    true => "if it has a certificate of an own CA, name a PEM file with that CA by --ca-file".into(),
                    false => check,
                };
                Failed {
                    error: unreachable(reason, help),
                    may_pass: !is_certificate && !error.is_builder(),
                    retry_after: None,
                }
            }
            Problem::Answer { status, body, retry_after, .. } => {
                let text = one_line(&String::from_utf8_lossy(&body));
                let text = match text.starts_with('<') || text.is_empty() {
                    true => String::new(),
                    false => format!(": {text}"),
                };
                let reason = format!("the server answered {status}{text}");
                let error = match status.as_u16() {
                    404 | 410 => ImageError::NotFound { what, reason, help: "check the URL".into() },
                    401 | 403 => unreachable(
                        reason,
                        "Envoy and filtergate send no credentials to a URL: serve the module without".into(),
                    ),
                    _ => unreachable(reason, check),
                };
                let may_pass = matches!(status.as_u16(), 408 | 429 | 500..=599);
                Failed { error, may_pass, retry_after }
            }
        }
    }
}

/// What is said of a body that is no module, but may have one in it.
fn packed(body: &[u8]) -> Option<Finding> {
    let kind = match Compression::of(body) {
        Compression::Gzip => "compressed with gzip",
        Compression::Zstd => "compressed with zstd",
        Compression::None if super::compression::is_tar(body) => "a tar archive",
        Compression::None => return None,
    };
    let istio = match kind {
        "compressed with zstd" => "",
        _ => "; Istio would unpack it, and take the first file of an archive",
    };
    let message = format!("what the URL has is {kind}, and Envoy takes a bare module only{istio}");
    Some(Finding::warning(Rule::ImageShape, message).help("serve the .wasm file itself"))
}
