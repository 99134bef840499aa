//! HTTP for registries, where whoever answers may mean harm. No answer is read further than to a
//! limit, and credentials go to the host that they are for and to no other.

use super::error::chain;
use super::{FetchOptions, ImageError, RegistryReference};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use std::time::Duration;

/// As much as is read of an answer that is no content: a token, or the reason for a refusal.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("filtergate/", env!("CARGO_PKG_VERSION"));

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Registry,
    Token,
}

/// Why an attempt failed.
pub(crate) enum Problem {
    /// An answer other than 200.
    Answer { endpoint: Endpoint, status: StatusCode, body: Vec<u8>, retry_after: Option<Duration> },
    /// No answer, or only a part of one.
    Transport(reqwest::Error),
    /// An answer that asks for what is not done, or that makes no sense.
    Refused { reason: String, help: &'static str },
    /// What came is not what was asked for; it would not be the next time.
    Content(ImageError),
}

impl Problem {
    pub(crate) fn transport(mut error: reqwest::Error) -> Self {
        // A storage's query may hold a signature that is as good as a password.
        if let Some(url) = error.url_mut() {
            url.set_query(None);
        }
        Problem::Transport(error)
    }

    pub(crate) async fn answer(endpoint: Endpoint, mut response: Response) -> Self {
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        // The beginning says more than that the rest did not come.
        let _ = read(&mut response, MAX_ANSWER_BYTES, &mut body).await;
        Problem::Answer {
            endpoint,
            status: response.status(),
            body,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }
}

/// Reads at most `limit` bytes of a body, and says whether that was all of it.
pub(crate) async fn read(
    response: &mut Response,
    limit: usize,
    bytes: &mut Vec<u8>,
) -> Result<bool, reqwest::Error> {
    while let Some(piece) = response.chunk().await? {
        let room = limit - bytes.len();
        if piece.len() > room {
            bytes.extend_from_slice(&piece[..room]);
            return Ok(false);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(true)
}

/// A client for one registry, its token endpoint and its storage.
pub(crate) struct Transport(Client);

impl Transport {
    pub(crate) fn new(
        reference: &RegistryReference,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let builder = || {
            let builder = Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(options.connect_timeout)
                .read_timeout(options.read_timeout)
                .redirect(reqwest::redirect::Policy::none());
            // A proxy from the environment cannot reach this machine's loopback.
            if reference.is_loopback() { builder.no_proxy() } else { builder }
        };
        let client = match builder().build() {
            // A machine without CA certificates. Plain HTTP needs none.
            Err(_) if reference.is_plain_http(options) => builder().tls_certs_only([]).build(),
            result => result,
        };
        client.map(Self).map_err(|error| {
            let reason = chain(&error);
            let help = if reason.contains("CA certificates") {
                "install the system's CA certificates (the package `ca-certificates`), or set SSL_CERT_FILE to a file with them"
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

    /// Gets `url`, or where it redirects to. reqwest could follow redirects itself, but it drops the
    /// authorization for the first request to another host only, and sends it with the second.
    pub(crate) async fn get(
        &self,
        url: &Url,
        accept: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Problem> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.0.get(at.clone()).header(ACCEPT, accept);
            if let Some(authorization) = authorization
                && at.origin() == url.origin()
            {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(Problem::transport)?;
            match redirect(&response)? {
                Some(next) => at = next,
                None => return Ok(response),
            }
        }
        Err(Problem::Refused {
            reason: format!("more than {MAX_REDIRECTS} redirects, the last to {}", shown(&at)),
            help: "check the registry's storage and proxy settings: its redirects lead nowhere",
        })
    }
}

/// Where an answer redirects to.
fn redirect(response: &Response) -> Result<Option<Url>, Problem> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else {
        return Ok(None);
    };
    let next = location.to_str().ok().and_then(|location| response.url().join(location).ok());
    match next.filter(|next| matches!(next.scheme(), "http" | "https")) {
        Some(next) => Ok(Some(next)),
        None => Err(Problem::Refused {
            reason: format!("{} redirects to what is no http URL", shown(response.url())),
            help: "check the registry's storage and proxy settings",
        }),
    }
}

/// A URL without its query.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    super::error::one_line(url.as_str())
}
