//! What a registry wants before it answers, and the token that it wants.

use super::credentials::Login;
use super::error::one_line;
use super::reference::{is_link_local, is_loopback};
use super::transport::{Endpoint, MAX_ANSWER_BYTES, Problem, Request, Transport, read, shown};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

/// What a registry wants before it answers.
pub(crate) enum Challenge {
    Basic,
    /// A token from another server, or another part of the same.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// Of the challenges in a 401, the one to take. Where a token can be had, a password is not sent
    /// with every request.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        for challenge in values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| ChallengeParser::new(value).map_while(Result::ok))
        {
            let param = |name: &str| {
                let mut params = challenge.params.iter();
                let (_, value) = params.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("Bearer")
                && let Some(realm) = param("realm")
            {
                return Some(Challenge::Bearer { realm, service: param("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("Basic") {
                basic = Some(Challenge::Basic);
            }
        }
        basic
    }
}

/// The header for a user and a password.
pub(crate) fn basic(login: &Login) -> Option<HeaderValue> {
    let Login::Password { user, password } = login else { return None };
    header(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// The header for a token, if that could be one.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    header(&format!("Bearer {token}"))
}

fn header(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Gets a token for a scope. The scope that the registry asks for is not used: some ask for none,
/// and some for nonsense.
pub(crate) async fn fetch(
    transport: &Transport,
    realm: Url,
    scope: &str,
    service: Option<&str>,
    login: &Login,
) -> Result<HeaderValue, Problem> {
    let mut url = realm.clone();
    let fields = [("scope", Some(scope)), ("service", service)];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let request = match login {
        // An identity token is taken by the OAuth2 flow only, in a form.
        Login::IdentityToken(identity) => {
            url.set_query(None);
            url.query_pairs_mut().extend_pairs(fields).extend_pairs([
                ("grant_type", "refresh_token"),
                ("client_id", "filtergate"),
                ("refresh_token", identity),
            ]);
            let form = url.query().unwrap_or_default().to_owned();
            Request::new(Method::POST, realm.clone())
                .with_body(HeaderValue::from_static("application/x-www-form-urlencoded"), form)
        }
        _ => {
            url.query_pairs_mut().extend_pairs(fields);
            Request::get(url, "application/json")
        }
    };
    let authorization = basic(login);
    let mut response = transport.send(&request, authorization.as_ref()).await?;
    if response.status() != StatusCode::OK {
        return Err(Problem::answer(Endpoint::Token, response).await);
    }
    let mut body = Vec::new();
    let is_all =
        read(&mut response, MAX_ANSWER_BYTES, &mut body).await.map_err(Problem::transport)?;
    let no_token = |reason: String| Problem::Refused {
        reason: format!("the token endpoint {} {reason}", shown(&realm)),
        help: "check that the registry names the right token endpoint",
    };
    if !is_all {
        return Err(no_token(format!("answered with more than {MAX_ANSWER_BYTES} bytes")));
    }
    // The parser's own message could quote the token.
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| no_token("answered with no valid JSON".into()))?;
    [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty())
        .and_then(|token| bearer(&token))
        .ok_or_else(|| no_token("answered without a token".into()))
}

/// The realm is whatever the registry says. Over plain HTTP it must be where the registry is that
/// plain HTTP is spoken with already; and no registry elsewhere may have this machine ask itself.
pub(crate) fn endpoint(realm: &str, registry: &Url) -> Result<Url, Problem> {
    let refused = |reason| Problem::Refused {
        reason: format!(
            "the registry wants a token from {}, which {reason}; nothing was sent there",
            one_line(realm)
        ),
        help: "have the registry name a token endpoint that is reached over https",
    };
    let url = Url::parse(realm).map_err(|_| refused("is no URL"))?;
    let is_http = match url.scheme() {
        "https" => false,
        "http" => true,
        _ => return Err(refused("is no http URL")),
    };
    if url.host() == registry.host() && !(is_http && registry.scheme() == "https") {
        return Ok(url);
    }
    let (host, own) = (url.host_str().unwrap_or_default(), registry.host_str().unwrap_or_default());
    match (is_loopback(own), is_loopback(host)) {
        _ if is_http && registry.scheme() == "https" => {
            Err(refused("is plain HTTP, unlike the registry"))
        }
        (true, true) => Ok(url),
        _ if is_http => Err(refused("is plain HTTP on another host")),
        _ if is_loopback(host) || is_link_local(host) => {
            Err(refused("is an address of this machine alone"))
        }
        _ => Ok(url),
    }
}
