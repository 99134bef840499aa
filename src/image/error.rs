//! Why an image could not be had, or is not what it claims to be.

use super::manifest::MAX_DOCUMENT_BYTES;
use crate::verdict::Rule;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why there is no image. The message is one line with the whole chain of causes in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file that does not exist.
    #[error("{}: no such file", path.display())]
    FileNotFound {
        /// The path as typed.
        path: PathBuf,
    },
    /// Something that the registry or the OCI layout does not have.
    #[error("{what}: not found: {reason}")]
    NotFound {
        /// The image, manifest or blob.
        what: String,
        /// What the registry said, or where it was looked for.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The registry refused.
    #[error("{what}: not authorized ({credentials}): {reason}")]
    Unauthorized {
        /// The image or blob.
        what: String,
        /// The registry's host.
        host: String,
        /// Which credentials were used, without the secret.
        credentials: String,
        /// What the registry said.
        reason: String,
    },
    /// The docker config or a credential helper is broken. Going on without credentials would only
    /// hide that.
    #[error("credentials for {host}: {reason}")]
    Credentials {
        /// The registry's host.
        host: String,
        /// What is wrong.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The file of CA certificates is broken. Going on without it would only hide that.
    #[error("the CA file {}: {reason}", path.display())]
    CaFile {
        /// The path as typed.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The registry could not be reached, or had trouble of its own.
    #[error("{what}: {reason}")]
    Unreachable {
        /// The image or blob.
        what: String,
        /// The chain of causes.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The pull took longer than it may.
    #[error("{what}: not complete after {} s", after.as_secs_f64())]
    TimedOut {
        /// The image.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// A local file that exists and cannot be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A path that names something which cannot be an image.
    #[error("{}: {reason}", path.display())]
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The OCI layout has more than one image, or none, and the reference does not say which.
    #[error("{}: {reason}", path.display())]
    Ambiguous {
        /// The layout.
        path: PathBuf,
        /// What it has.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The bytes are not those that the digest names.
    #[error("{what}: digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// The manifest or blob.
        what: String,
        /// The digest of the descriptor or the reference.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// The bytes are not as many as the descriptor says.
    #[error("{what}: size mismatch: the descriptor says {expected} bytes, got {actual}")]
    SizeMismatch {
        /// The manifest or blob.
        what: String,
        /// The size in the descriptor.
        expected: u64,
        /// The size of the content; where it is cut off, as much as was read.
        actual: u64,
    },
    /// Something is over a limit.
    #[error("{what}: {}larger than the limit of {limit} bytes", actual.map(|n| format!("{n} bytes, ")).unwrap_or_default())]
    TooLarge {
        /// The module, manifest or config.
        what: String,
        /// The limit.
        limit: u64,
        /// The size, where it is known.
        actual: Option<u64>,
    },
    /// The image is intact, but has no module where a consumer would look for one.
    #[error("{what}: {reason}")]
    Shape {
        /// The image or blob.
        what: String,
        /// What was looked for and what is there.
        reason: String,
        /// What Istio logs for such an image.
        consumer_message: Option<String>,
        /// The next step.
        help: String,
    },
    /// A place on this machine that cannot be written to.
    #[error("{}: cannot be written: {reason}", path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
        /// What stands against it.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The registry did not take what was pushed, or the destination cannot hold it.
    #[error("{what}: {reason}")]
    PushRefused {
        /// The image, manifest or blob.
        what: String,
        /// Why not.
        reason: String,
        /// The next step.
        help: String,
    },
    /// There is no signature by the key that was asked for.
    #[error("{what}: {reason}")]
    Signature {
        /// The image.
        what: String,
        /// Which signatures there are, and why they do not count.
        reason: String,
        /// The next step.
        help: String,
    },
    /// The content is broken: a manifest that is no JSON, a layer that is no archive.
    #[error("{what}: {reason}")]
    Invalid {
        /// The manifest or blob.
        what: String,
        /// What is wrong with it.
        reason: String,
        /// What Istio logs for such an image, where that is known.
        consumer_message: Option<String>,
    },
}

impl ImageError {
    /// Broken content of which it is not known what Istio logs.
    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into(), consumer_message: None }
    }

    /// The same after so many tries, where that is worth saying.
    pub(crate) fn tried(mut self, times: u32) -> Self {
        if let Self::Unreachable { reason, .. } = &mut self {
            reason.push_str(&format!("; tried {times} times"));
        }
        self
    }

    /// Adds what Istio logs for the image, where that is known.
    pub(crate) fn said_by_consumers(mut self, log: Option<String>) -> Self {
        if let Self::Shape { consumer_message, .. } | Self::Invalid { consumer_message, .. } =
            &mut self
        {
            *consumer_message = log;
        }
        self
    }

    /// The rule that the error belongs to.
    pub fn rule(&self) -> Rule {
        use ImageError::*;
        match self {
            FileNotFound { .. } | NotFound { .. } => Rule::ImageNotFound,
            Unauthorized { .. } | Credentials { .. } => Rule::ImageUnauthorized,
            Unreachable { .. } | TimedOut { .. } | Unreadable { .. } | CaFile { .. } => {
                Rule::ImageUnreachable
            }
            Unwritable { .. } | PushRefused { .. } => Rule::ImageNotWritten,
            DigestMismatch { .. } | SizeMismatch { .. } => Rule::ImageDigestMismatch,
            TooLarge { .. } => Rule::ImageTooLarge,
            Shape { .. } => Rule::ImageShape,
            Signature { .. } => Rule::ImageSignature,
            NotAnImage { .. } | Ambiguous { .. } | Invalid { .. } => Rule::ImageInvalid,
        }
    }

    /// Whether the image was had and is bad, as opposed to: it could not be had.
    pub fn is_verdict(&self) -> bool {
        use ImageError::*;
        matches!(
            self,
            DigestMismatch { .. }
                | SizeMismatch { .. }
                | TooLarge { .. }
                | Shape { .. }
                | Signature { .. }
                | Invalid { .. }
        )
    }

    /// What Istio logs for such an image, where that is known.
    pub fn consumer_message(&self) -> Option<&str> {
        match self {
            ImageError::Shape { consumer_message, .. }
            | ImageError::Invalid { consumer_message, .. } => consumer_message.as_deref(),
            _ => None,
        }
    }

    /// The next step for the user.
    pub fn help(&self) -> String {
        use ImageError::*;
        match self {
            FileNotFound { path } => match could_be_reference(path) {
                true => format!(
                    "check the path; if it is the name of an image in a registry, write oci://{}",
                    path.display()
                ),
                false => "check the path".into(),
            },
            NotFound { help, .. }
            | Unreachable { help, .. }
            | NotAnImage { help, .. }
            | Ambiguous { help, .. }
            | Shape { help, .. }
            | Unwritable { help, .. }
            | PushRefused { help, .. }
            | Signature { help, .. } => help.clone(),
            Unauthorized { host, .. } => format!(
                "check that the name is right (many registries answer this way for what does not exist), then run `docker login {host}`, or give --username and --password-stdin"
            ),
            Credentials { help, .. } => help.clone(),
            CaFile { .. } => {
                "give --ca-file a PEM file with the certificate of the registry's CA".into()
            }
            TimedOut { .. } => "try again, or allow more time with --timeout".into(),
            Unreadable { .. } => "check the file's permissions".into(),
            DigestMismatch { .. } => {
                "do not use this image: push it again, and pin the digest that the push prints"
                    .into()
            }
            SizeMismatch { .. } => {
                "do not use this image: it was cut or changed on its way; push it again".into()
            }
            TooLarge { limit, .. } if *limit == MAX_DOCUMENT_BYTES => {
                "check what was pushed: the manifest and config of a module are a few kilobytes"
                    .into()
            }
            TooLarge { .. } => {
                "strip debug information from the module (`wasm-opt --strip-debug`), or raise the limit"
                    .into()
            }
            Invalid { .. } => {
                "build and push the image again; `docker build` with `FROM scratch` and `COPY plugin.wasm /` makes one that every consumer takes".into()
            }
        }
    }
}

/// Whether a path could have been meant as the name of an image in a registry.
pub(crate) fn could_be_reference(path: &Path) -> bool {
    path.is_relative() && !path.starts_with(".") && !path.starts_with("..")
}

/// The message of an error with those of all its causes, which transports keep apart.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many wrappers repeat their cause word for word.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    one_line(&text)
}

/// Text from elsewhere as one line of bounded length and without control characters.
pub(crate) fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 400;
    let mut line = String::new();
    for (count, word) in text.split_whitespace().enumerate() {
        if count > 0 {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        if line.chars().count() > MAX_CHARS {
            line = line.chars().take(MAX_CHARS).collect();
            line.push('…');
            break;
        }
    }
    line
}
