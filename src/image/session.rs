//! A conversation with one repository of a registry: who asks, what the registry wants to see
//! before it answers, and how often a request is tried.

use super::credentials::{self, Credentials, Login};
use super::oci_error::{Asked, Failure};
use super::token::{self, Challenge};
use super::transport::{Endpoint, Problem, Request, Transport};
use super::{FetchOptions, ImageError, RegistryReference};
use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode, Url};
use std::time::Duration;
use tokio::sync::Mutex;

const TRIES: u32 = 4;
/// A registry that asks for more patience than this is not asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is to be done in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    /// Reading too: a blob that is there already is not sent again.
    Push,
}

impl Access {
    /// The actions in the scope of a token.
    pub(crate) fn actions(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        }
    }
}

/// A repository in a registry.
pub(crate) struct Session<'a> {
    transport: Transport,
    pub reference: &'a RegistryReference,
    /// The repository's URL.
    url: Url,
    access: Access,
    credentials: Credentials,
    /// What is sent with every request, once the registry has asked for it.
    authorization: Mutex<Option<HeaderValue>>,
    retry_delay: Duration,
}

impl<'a> Session<'a> {
    /// Finds the credentials. Nothing is sent yet.
    pub(crate) async fn new(
        reference: &'a RegistryReference,
        access: Access,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let host = reference.registry();
        let credentials =
            credentials::find(reference, &options.credentials, options.read_timeout).await?;
        tracing::info!("registry {host}: credentials: {}", credentials.origin);
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
        let authorization = match &credentials.login {
            Login::RegistryToken(token) => Some(token::bearer(token).ok_or_else(|| {
                let reason = "the token has characters in it that none can have";
                credentials::failed(reference, format!("{}: {reason}", credentials.origin))
            })?),
            _ => None,
        };
        Ok(Self {
            transport: Transport::new(reference, options)?,
            reference,
            url,
            access,
            credentials,
            authorization: Mutex::new(authorization),
            retry_delay: options.retry_delay,
        })
    }

    /// The URL of something in the repository: `blobs/…`, `manifests/…`.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path()));
        url
    }

    /// Gets something of the repository. Any answer but 200 is a problem.
    pub(crate) async fn get(&self, path: &str, accept: &'static str) -> Result<Response, Problem> {
        let response = self.send(&Request::get(self.url(path), accept)).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(Problem::answer(Endpoint::Registry, response).await),
        }
    }

    /// Sends a request with what the registry wants to see. The answer may be any.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Problem> {
        // Some registries redirect uploads to another host, which is told nothing.
        if request.url.origin() != self.url.origin() {
            return self.transport.send(request, None).await;
        }
        let sent = self.authorization.lock().await.clone();
        let response = self.transport.send(request, sent.as_ref()).await?;
        let wanted = match response.status() {
            StatusCode::UNAUTHORIZED => self.authorize(&response, sent).await?,
            // To who does not say who he is, some registries deny that there is anything.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
                if sent.is_none() && self.credentials.login != Login::Anonymous =>
            {
                self.introduce().await?
            }
            _ => None,
        };
        match wanted {
            Some(wanted) => self.transport.send(request, Some(&wanted)).await,
            None => Ok(response),
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
        let login = &self.credentials.login;
        let wanted = match (Challenge::of(refusal.headers()), login) {
            // There is nothing but the token from the config, and that was sent.
            (None, _) | (_, Login::RegistryToken(_)) => None,
            (Some(Challenge::Basic), _) => token::basic(login),
            (Some(Challenge::Bearer { realm, service }), _) => {
                let scope =
                    format!("repository:{}:{}", self.reference.repository(), self.access.actions());
                let realm = token::endpoint(&realm, &self.url)?;
                let service = service.as_deref();
                Some(token::fetch(&self.transport, realm, &scope, service, login).await?)
            }
        };
        let wanted = wanted.filter(|wanted| Some(wanted) != sent.as_ref());
        if wanted.is_some() {
            current.clone_from(&wanted);
        }
        Ok(wanted)
    }

    /// Asks a registry that has not asked for credentials whether it wants them. One that does not
    /// say may still know a password.
    async fn introduce(&self) -> Result<Option<HeaderValue>, Problem> {
        let mut root = self.url.clone();
        root.set_path("/v2/");
        let response = self.transport.send(&Request::get(root, "application/json"), None).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => self.authorize(&response, None).await,
            StatusCode::OK => {
                let wanted = token::basic(&self.credentials.login);
                self.authorization.lock().await.clone_from(&wanted);
                Ok(wanted)
            }
            _ => Ok(None),
        }
    }

    /// The tries of one request for `what`, which is how errors name it.
    pub(crate) fn retry(&self, asked: Asked, what: String) -> Retry<'_> {
        Retry { session: self, asked, what, failures: 0 }
    }
}

/// The tries of one request.
pub(crate) struct Retry<'a> {
    session: &'a Session<'a>,
    asked: Asked,
    what: String,
    failures: u32,
}

impl Retry<'_> {
    /// Waits after a failed try, or gives up: after four of them, or where another cannot help.
    pub(crate) async fn after(&mut self, problem: Problem) -> Result<(), ImageError> {
        let Session { reference, credentials, retry_delay, .. } = self.session;
        let failure = Failure::of(problem, self.asked, &self.what, reference, credentials);
        self.failures += 1;
        if !failure.may_pass {
            return Err(failure.error);
        }
        if self.failures == TRIES {
            return Err(failure.error.tried(TRIES));
        }
        let delay = match failure.retry_after {
            Some(asked) if asked > MAX_RETRY_AFTER => return Err(failure.error),
            Some(asked) => asked,
            None => jittered(retry_delay.saturating_mul(1 << (self.failures - 1))),
        };
        tracing::warn!("{}; trying again in {delay:?}", failure.error);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Between half of a pause and one and a half, so that many clients which failed together do not
/// come back together.
fn jittered(pause: Duration) -> Duration {
    // Without randomness it is the pause itself.
    let random = getrandom::u32().unwrap_or(1 << 31);
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::jittered;
    use std::time::Duration;

    #[test]
    fn pauses_differ_and_are_bounded() {
        let pause = Duration::from_secs(2);
        let pauses: Vec<_> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|p| (pause / 2..=pause * 3 / 2).contains(p)), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p != pauses[0]));
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}
