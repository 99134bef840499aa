//! What a failed request to a registry means.

use super::credentials::Credentials;
use super::error::{chain, one_line};
use super::transport::{Endpoint, Problem};
use super::{ImageError, RegistryReference};
use oci_distribution::errors::{OciEnvelope, OciErrorCode};
use std::time::Duration;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Manifest,
    Blob,
    /// That the registry takes a blob.
    Upload,
    /// That it takes a manifest.
    PutManifest,
}

impl Asked {
    fn is_push(self) -> bool {
        matches!(self, Asked::Upload | Asked::PutManifest)
    }
}

/// A failed request.
pub(crate) struct Failure {
    pub error: ImageError,
    /// Whether another try may help.
    pub may_pass: bool,
    /// How long the registry wants to be left alone before that.
    pub retry_after: Option<Duration>,
}

/// What an answer of the registry means.
enum Meaning {
    NotFound,
    Unauthorized,
    RateLimited,
    /// 5xx, and the 4xx that is about time.
    Trouble,
    Refused,
}

impl Failure {
    pub(crate) fn of(
        problem: Problem,
        asked: Asked,
        what: &str,
        reference: &RegistryReference,
        credentials: &Credentials,
    ) -> Self {
        let (endpoint, status, body, retry_after) = match problem {
            Problem::Answer { endpoint, status, body, retry_after } => {
                (endpoint, status.as_u16(), body, retry_after)
            }
            Problem::Transport(error) => return Self::transport(&error, what, reference),
            Problem::Content(error) => return Self::lasting(error),
            Problem::Refused { reason, help } => {
                return Self::lasting(ImageError::Unreachable {
                    what: what.into(),
                    reason,
                    help: help.into(),
                });
            }
        };
        let may_pass = matches!(status, 408 | 429 | 500..=599);
        let retry_after = retry_after.filter(|_| matches!(status, 429 | 503));
        let envelope = serde_json::from_slice::<OciEnvelope>(&body).ok();
        let meaning = meaning(endpoint, status, envelope.as_ref());
        let mut reason = answer_text(endpoint, status, envelope.as_ref(), &body);
        if let Some(delay) = retry_after {
            reason.push_str(&format!(" (it asks to wait {} s)", delay.as_secs()));
        }
        let (what, host) = (what.to_owned(), reference.registry());
        if asked.is_push()
            && endpoint == Endpoint::Registry
            && matches!(status, 400..=499)
            && !may_pass
            && !matches!(meaning, Meaning::Unauthorized if status == 401)
        {
            let help = push_help(asked, status, host, &credentials.origin);
            return Self::lasting(ImageError::PushRefused { what, reason, help });
        }
        let error = match meaning {
            Meaning::NotFound => {
                let help = match asked {
                    Asked::Blob => "push the image again: the registry has its manifest, but not all of its blobs".into(),
                    _ => format!("check the name and the tag or digest, and that {host} is the registry"),
                };
                ImageError::NotFound { what, reason, help }
            }
            Meaning::Unauthorized => {
                let credentials = credentials.origin.clone();
                ImageError::Unauthorized { what, host: host.into(), credentials, reason }
            }
            Meaning::RateLimited => {
                let reason = format!("the registry limits the rate of requests: {reason}");
                let help = format!(
                    "try again later; logged-in users may often do more: `docker login {host}`"
                );
                ImageError::Unreachable { what, reason, help }
            }
            Meaning::Trouble => {
                let help = "the registry has trouble of its own: try again later".into();
                ImageError::Unreachable { what, reason, help }
            }
            Meaning::Refused => {
                // What Go's server and nginx say to plain HTTP.
                let wants_tls = status == 400 && reason.contains("HTTPS");
                let reason = format!("the registry refused the request: {reason}");
                let help = match wants_tls {
                    true => format!(
                        "{host} speaks TLS: leave out --plain-http, and for a loopback host name the CA of its certificate by --ca-file"
                    ),
                    false => {
                        format!("check that {host} is an OCI registry and that the name is right")
                    }
                };
                ImageError::Unreachable { what, reason, help }
            }
        };
        Self { error, may_pass, retry_after }
    }

    fn lasting(error: ImageError) -> Self {
        Self { error, may_pass: false, retry_after: None }
    }

    fn transport(error: &reqwest::Error, what: &str, reference: &RegistryReference) -> Self {
        let host = reference.registry();
        if error.is_body() || error.is_decode() {
            return Self {
                error: ImageError::Unreachable {
                    what: what.into(),
                    reason: format!("the transfer broke off: {}", root_cause(error)),
                    help: format!(
                        "try again; if it stays so, something between here and {host} ends transfers: a proxy, or the registry's storage"
                    ),
                },
                may_pass: true,
                retry_after: None,
            };
        }
        let reason = chain(error);
        let certificate = reason.contains("certificate");
        // A server that speaks plain HTTP answers a TLS greeting with something that is no TLS.
        let not_tls = reason.contains("InvalidContentType") || reason.contains("corrupt message");
        let help = if certificate {
            format!(
                "if {host} has a certificate of an own CA, name a PEM file with that CA by --ca-file; it is added to the system's"
            )
        } else if not_tls {
            format!(
                "{host} does not seem to speak TLS: allow that with --plain-http if it is meant not to"
            )
        } else {
            format!(
                "check that {host} is the right host and port, and that it can be reached from here"
            )
        };
        Self {
            error: ImageError::Unreachable { what: what.into(), reason, help },
            may_pass: !certificate && !not_tls && !error.is_builder(),
            retry_after: None,
        }
    }
}

/// What an HTTP client's wrappers are about.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    one_line(&cause.to_string())
}

/// The next step where a registry refuses what is pushed.
fn push_help(asked: Asked, status: u16, host: &str, credentials: &str) -> String {
    match (asked, status) {
        (_, 403) => format!(
            "check the repository's name, and that whoever pushes may write to it ({credentials}): `docker login {host}`, or give --username and --password-stdin"
        ),
        (Asked::Upload, 404 | 405) => format!(
            "check that {host} is the registry and the name is right; some registries want the repository or project to be made first (Amazon ECR, Harbor)"
        ),
        (_, 413) => "the registry, or a proxy in front of it, limits the size of what is pushed: strip debug information from the module (`wasm-opt --strip-debug`), or have the limit raised".into(),
        (Asked::PutManifest, _) => "if the tag is one that must not change, push to another; if the registry does not take media types of its own kind (Docker Hub, Amazon ECR and Quay did not for long), give --shape compat, which is an ordinary image".into(),
        _ => format!("check that {host} is an OCI registry that may be written to, and that the name is right"),
    }
}

/// The codes of the distribution specification say more than most of the numbers.
fn meaning(endpoint: Endpoint, status: u16, envelope: Option<&OciEnvelope>) -> Meaning {
    match (endpoint, status) {
        (_, 429) => Meaning::RateLimited,
        (_, 408 | 500..=599) => Meaning::Trouble,
        (Endpoint::Token, 400..=499) | (_, 401) => Meaning::Unauthorized,
        (_, 400..=499) => match (envelope.map(meaning_of_envelope), status) {
            (Some(Meaning::Refused) | None, 403) => Meaning::Unauthorized,
            (Some(Meaning::Refused) | None, 404) => Meaning::NotFound,
            (meaning, _) => meaning.unwrap_or(Meaning::Refused),
        },
        _ => Meaning::Refused,
    }
}

fn meaning_of_envelope(envelope: &OciEnvelope) -> Meaning {
    use OciErrorCode::*;
    match envelope.errors.first().map(|error| &error.code) {
        Some(ManifestUnknown | ManifestBlobUnknown | BlobUnknown | NameUnknown | NotFound) => {
            Meaning::NotFound
        }
        Some(Unauthorized | Denied) => Meaning::Unauthorized,
        Some(Toomanyrequests) => Meaning::RateLimited,
        Some(Other(code)) if code.contains("NOT_FOUND") || code.contains("UNKNOWN") => {
            Meaning::NotFound
        }
        Some(Other(code)) if code.contains("FORBIDDEN") => Meaning::Unauthorized,
        _ => Meaning::Refused,
    }
}

fn envelope_text(envelope: &OciEnvelope) -> String {
    let errors = envelope.errors.iter().map(|error| {
        let code = serde_json::to_value(&error.code).unwrap_or_default();
        let mut text = format!("{}: {}", code.as_str().unwrap_or("?"), error.message);
        if let Some(detail) = error.detail.as_str().filter(|d| !d.is_empty()) {
            text.push_str(&format!(" ({detail})"));
        }
        text
    });
    one_line(&errors.collect::<Vec<_>>().join("; "))
}

fn answer_text(
    endpoint: Endpoint,
    status: u16,
    envelope: Option<&OciEnvelope>,
    body: &[u8],
) -> String {
    let answer = match endpoint {
        Endpoint::Registry => format!("the registry answered {status}"),
        Endpoint::Token => format!("the token endpoint answered {status}"),
    };
    let text = match envelope {
        Some(envelope) => envelope_text(envelope),
        None => one_line(&String::from_utf8_lossy(body)),
    };
    // A page for people says nothing that the number does not.
    match text.is_empty() || text.starts_with('<') {
        true => answer,
        false => format!("{answer}: {text}"),
    }
}
