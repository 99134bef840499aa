//! What a failed request to a registry means. oci-client keeps the parts of an answer in different
//! places, and the cause of a failed connection only in the chain of sources.

use super::credentials::Credentials;
use super::error::{chain, one_line};
use super::{ImageError, RegistryReference};
use oci_distribution::errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Token,
    Manifest,
    Blob,
}

/// A failed request.
pub(crate) struct Failure {
    pub error: ImageError,
    /// Whether another try may help.
    pub may_pass: bool,
}

/// What an answer of the registry means.
enum Meaning {
    NotFound,
    Unauthorized,
    RateLimited,
    /// 5xx and the two 4xx that are about time.
    Trouble,
    Refused,
}

impl Failure {
    pub(crate) fn of(
        error: OciDistributionError,
        request: Request,
        what: &str,
        reference: &RegistryReference,
        credentials: &Credentials,
    ) -> Self {
        use OciDistributionError as E;
        let (meaning, reason) = match error {
            E::RegistryError { envelope, .. } => {
                (meaning_of_envelope(&envelope), envelope_text(&envelope))
            }
            E::ServerError { code, message, .. } => {
                (meaning_of_status(code), status_text(code, &message))
            }
            E::UnauthorizedError { .. } => {
                (Meaning::Unauthorized, "the registry answered 401 Unauthorized".into())
            }
            E::AuthenticationFailure(answer) => token_failure(&answer),
            E::DigestError(DigestError::VerificationError { expected, actual }) => {
                return Self::lasting(ImageError::DigestMismatch {
                    what: what.into(),
                    expected,
                    actual,
                });
            }
            E::DigestError(error) => {
                return Self::lasting(ImageError::Invalid {
                    what: what.into(),
                    reason: format!("the registry's digest header: {}", chain(&error)),
                    consumer_message: None,
                });
            }
            // Everything else is about the connection, or an answer that makes no sense.
            error => return Self::transport(&error, what, reference),
        };
        let host = reference.registry();
        let (error, may_pass) = match meaning {
            Meaning::NotFound => (
                ImageError::NotFound {
                    what: what.into(),
                    reason,
                    help: match request {
                        Request::Blob => "push the image again: the registry has its manifest, but not all of its blobs".into(),
                        _ => format!("check the name and the tag or digest, and that {host} is the registry"),
                    },
                },
                false,
            ),
            Meaning::Unauthorized => (
                ImageError::Unauthorized {
                    what: what.into(),
                    host: host.into(),
                    credentials: credentials.origin.clone(),
                    reason,
                },
                false,
            ),
            Meaning::RateLimited => (
                ImageError::Unreachable {
                    what: what.into(),
                    reason: format!("the registry limits the rate of requests: {reason}"),
                    help: format!("try again later; logged-in users may often do more: `docker login {host}`"),
                },
                true,
            ),
            Meaning::Trouble => (
                ImageError::Unreachable {
                    what: what.into(),
                    reason,
                    help: "the registry has trouble of its own: try again later".into(),
                },
                true,
            ),
            Meaning::Refused => (
                ImageError::Unreachable {
                    what: what.into(),
                    reason: format!("the registry refused the request: {reason}"),
                    help: format!("check that {host} is an OCI registry and that the name is right"),
                },
                false,
            ),
        };
        Self { error, may_pass }
    }

    fn lasting(error: ImageError) -> Self {
        Self { error, may_pass: false }
    }

    fn transport(error: &OciDistributionError, what: &str, reference: &RegistryReference) -> Self {
        let reason = chain(error);
        let host = reference.registry();
        let certificate = reason.contains("certificate");
        // A server that speaks plain HTTP answers a TLS greeting with something that is no TLS.
        let not_tls = reason.contains("InvalidContentType") || reason.contains("corrupt message");
        let help = if certificate {
            format!(
                "make this machine trust {host}'s certificate: add its CA to the system's, or to a file that SSL_CERT_FILE names"
            )
        } else if not_tls {
            format!("{host} does not seem to speak TLS: allow plain HTTP if it is meant not to")
        } else {
            format!(
                "check that {host} is the right host and port, and that it can be reached from here"
            )
        };
        let passes = matches!(
            error,
            OciDistributionError::RequestError(_) | OciDistributionError::IoError(_)
        );
        Self {
            error: ImageError::Unreachable { what: what.into(), reason, help },
            may_pass: passes && !certificate && !not_tls,
        }
    }
}

fn meaning_of_status(code: u16) -> Meaning {
    match code {
        404 => Meaning::NotFound,
        401 | 403 => Meaning::Unauthorized,
        429 => Meaning::RateLimited,
        408 | 425 | 500..=599 => Meaning::Trouble,
        _ => Meaning::Refused,
    }
}

/// oci-client drops the status where the body is an error of the distribution specification.
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
    match one_line(&errors.collect::<Vec<_>>().join("; ")) {
        empty if empty.is_empty() => "the registry gave no reason".into(),
        text => text,
    }
}

fn status_text(code: u16, body: &str) -> String {
    // A page for people says nothing that the number does not.
    let is_page = body.trim_start().starts_with('<');
    let answer = format!("the registry answered {code}");
    let body = match serde_json::from_str::<OciEnvelope>(body) {
        Ok(envelope) => envelope_text(&envelope),
        Err(_) => one_line(body),
    };
    match body.is_empty() || is_page {
        true => answer,
        false => format!("{answer}: {body}"),
    }
}

/// The token endpoint's status is not kept, only its body.
fn token_failure(answer: &str) -> (Meaning, String) {
    let text = match serde_json::from_str::<OciEnvelope>(answer) {
        Ok(envelope) => {
            let text = envelope_text(&envelope);
            if let Meaning::RateLimited = meaning_of_envelope(&envelope) {
                return (Meaning::RateLimited, text);
            }
            text
        }
        Err(_) => one_line(answer),
    };
    let said = match text.is_empty() || text.starts_with('<') {
        true => "the token endpoint refused".into(),
        false => format!("the token endpoint answered {text}"),
    };
    (Meaning::Unauthorized, said)
}
