//! HTTP for registries, where whoever answers may mean harm. No answer is read further than to a
//! limit, and credentials go to the host that they are for and to no other.

use super::error::chain;
use super::reference::{is_link_local, is_loopback};
use super::{FetchOptions, ImageError, RegistryReference};
use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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
    /// An answer other than the one that was hoped for.
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
        let retry_after = response.headers().get(RETRY_AFTER).and_then(delay);
        let mut body = Vec::new();
        // The beginning says more than that the rest did not come.
        let _ = read(&mut response, MAX_ANSWER_BYTES, &mut body).await;
        Problem::Answer { endpoint, status: response.status(), body, retry_after }
    }
}

/// What `Retry-After` asks for: a number of seconds, or a date. One in the past asks for nothing.
fn delay(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            let wait = date.duration_since(SystemTime::now()).unwrap_or_default();
            // A date has whole seconds; who comes in the middle of the one before is too early.
            Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
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

/// A request. It can be sent more than once: to where a redirect leads, with the token that was
/// asked for, and after a failed try.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A GET for one of these media types.
    pub(crate) fn get(url: Url, accept: &'static str) -> Self {
        let mut request = Self::new(Method::GET, url);
        request.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        request
    }

    /// With a body of that media type.
    pub(crate) fn with_body(mut self, media_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, media_type);
        self.body = body.into();
        self
    }
}

/// The HTTP clients of options and their clones. Fetches that share them share connections, too, and
/// read the system's CA certificates once.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<HashMap<Settings, Client>>>);

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// The client of these settings, for the server that has `what`.
    fn get(&self, settings: &Settings, what: &str) -> Result<Client, ImageError> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(settings) {
            return Ok(client.clone());
        }
        let client = settings.client(what)?;
        clients.insert(settings.clone(), client.clone());
        Ok(client)
    }
}

/// What tells one client from another.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Settings {
    is_loopback: bool,
    /// Without TLS the system's certificates, some hundred files, are not read.
    tls: bool,
    ca_file: Option<PathBuf>,
    connect_timeout: Duration,
    read_timeout: Duration,
}

/// A client for one server, and for what that redirects to.
pub(crate) struct Transport {
    /// What the server has, which is how errors name it.
    what: String,
    is_plain_http: bool,
    settings: Settings,
    first: Client,
    clients: Clients,
}

impl Transport {
    /// A client for a registry, its token endpoint and its storage.
    pub(crate) fn new(
        reference: &RegistryReference,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let is_plain_http = reference.is_plain_http(options);
        Self::to(&reference.to_string(), reference.is_loopback(), is_plain_http, options)
    }

    /// A client for the server that has `what`, which is how errors name it.
    pub(crate) fn to(
        what: &str,
        is_loopback: bool,
        is_plain_http: bool,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let settings = |tls| Settings {
            is_loopback,
            tls,
            ca_file: options.ca_file.clone(),
            connect_timeout: options.connect_timeout,
            read_timeout: options.read_timeout,
        };
        let get = |tls| options.clients.get(&settings(tls), what);
        let first = match (is_plain_http, is_loopback) {
            (true, true) => get(false)?,
            // There may be a proxy with TLS; or no CA certificates on this machine, and no need of them.
            (true, false) => get(true).or_else(|_| get(false))?,
            (false, _) => get(true)?,
        };
        let (what, settings) = (what.to_owned(), settings(true));
        Ok(Self { what, is_plain_http, settings, first, clients: options.clients.clone() })
    }

    /// A server without TLS may redirect to one with it.
    fn client(&self, url: &Url) -> Result<Client, ImageError> {
        match self.is_plain_http && url.scheme() == "https" {
            true => self.clients.get(&self.settings, &self.what),
            false => Ok(self.first.clone()),
        }
    }

    /// Sends a request, there and to where the answer redirects. reqwest could follow redirects
    /// itself, but it drops the authorization for the first request to another host only, and sends
    /// it with the second.
    pub(crate) async fn send(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Problem> {
        let Request { method, url, headers, body } = request;
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client(&at).map_err(Problem::Content)?;
            let mut builder = client.request(method.clone(), at.clone()).headers(headers.clone());
            if let Some(authorization) = authorization
                && at.origin() == url.origin()
            {
                builder = builder.header(AUTHORIZATION, authorization);
            }
            if !method.is_safe() {
                builder = builder.body(body.clone());
            }
            let response = builder.send().await.map_err(Problem::transport)?;
            match redirect(&response, request)? {
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

impl Settings {
    fn client(&self, what: &str) -> Result<Client, ImageError> {
        let certificates = match &self.ca_file {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .redirect(reqwest::redirect::Policy::none());
        let builder = match self.tls {
            true => builder.tls_certs_merge(certificates),
            false => builder.tls_certs_only([]),
        };
        // A proxy from the environment cannot reach this machine's loopback.
        let builder = if self.is_loopback { builder.no_proxy() } else { builder };
        builder.build().map_err(|error| {
            let reason = chain(&error);
            // The only certificates that are looked at while there is no server are the file's.
            if let Some(path) = &self.ca_file
                && reason.contains("certificate:")
            {
                return ImageError::CaFile { path: path.clone(), reason };
            }
            let help = if reason.contains("CA certificates") {
                "install the system's CA certificates (the package `ca-certificates`), or name a file with them by --ca-file or SSL_CERT_FILE"
            } else {
                "check the proxy and certificate settings in the environment"
            };
            ImageError::Unreachable {
                what: what.into(),
                reason: format!("cannot set up the client: {reason}"),
                help: help.into(),
            }
        })
    }
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate>, ImageError> {
    let broken = |reason: &str| ImageError::CaFile { path: path.into(), reason: reason.to_owned() };
    let pem = std::fs::read(path).map_err(|error| broken(&error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem)
        .map_err(|error| broken(&format!("is no file of PEM certificates: {}", chain(&error))))?;
    if certificates.is_empty() {
        return Err(broken("has no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)"));
    }
    Ok(certificates)
}

/// Where an answer redirects to.
fn redirect(response: &Response, request: &Request) -> Result<Option<Url>, Problem> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else {
        return Ok(None);
    };
    let refused = |reason: &str| Problem::Refused {
        reason: format!("{} redirects to {reason}", shown(response.url())),
        help: "check the registry's storage and proxy settings",
    };
    let next = location.to_str().ok().and_then(|location| response.url().join(location).ok());
    let Some(next) = next.filter(|next| matches!(next.scheme(), "http" | "https")) else {
        return Err(refused("what is no http URL"));
    };
    if is_astray(&request.url, &next) {
        return Err(refused(&format!("{}, an address of this machine alone", shown(&next))));
    }
    // What is sent is for the server that it was meant for, as credentials are.
    if !request.method.is_safe() && next.origin() != request.url.origin() {
        return Err(refused(&format!("{}; nothing was sent there", shown(&next))));
    }
    Ok(Some(next))
}

/// Whether a server elsewhere leads this machine to itself: it could have it ask its own services,
/// or its cloud's, and show in a message what they answer.
pub(crate) fn is_astray(from: &Url, to: &Url) -> bool {
    let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();
    let (from, to) = (host(from), host(to));
    from != to && (is_link_local(&to) || is_loopback(&to) && !is_loopback(&from))
}

/// A URL without its query, and without a password.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // Neither fails for a URL that has a host.
    let _ = url.set_password(None);
    super::error::one_line(url.as_str())
}
