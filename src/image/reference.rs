//! What a string on the command line names. Paths are recognised before references are parsed,
//! because `oci-client` takes nearly any word for an image on Docker Hub.

use super::FetchOptions;
use super::digest::{Digest, InvalidDigest};
use oci_distribution::Reference;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// A string that names nothing that could be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The empty string.
    #[error("the image reference is empty")]
    Empty,
    /// A path is missing after `file:` or `oci:`.
    #[error("{reference:?}: a path is missing after `{prefix}`")]
    MissingPath {
        /// The reference as typed.
        reference: String,
        /// The prefix.
        prefix: &'static str,
    },
    /// A transport that is not read.
    #[error(
        "{reference:?}: `{scheme}` is not supported (a registry reference, `oci:DIRECTORY` or a file is expected)"
    )]
    UnsupportedScheme {
        /// The reference as typed.
        reference: String,
        /// The transport.
        scheme: String,
    },
    /// A digest of the wrong syntax.
    #[error("{reference:?}: {source}")]
    Digest {
        /// The reference as typed.
        reference: String,
        /// What is wrong with it.
        source: InvalidDigest,
    },
    /// Not the syntax of an image reference.
    #[error("{reference:?}: {reason}")]
    Syntax {
        /// The reference as typed.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Which image of an OCI layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The annotation `org.opencontainers.image.ref.name`.
    Tag(String),
    /// The digest of a manifest or image index.
    Digest(Digest),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => write!(f, "{tag}"),
            Selector::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReference {
    inner: Reference,
    digest: Option<Digest>,
}

impl RegistryReference {
    /// Parses `HOST[:PORT]/NAME[:TAG][@DIGEST]`. Without a host it is Docker Hub, without a tag and
    /// a digest it is `latest`.
    pub fn parse(s: &str) -> Result<Self, ReferenceError> {
        let syntax =
            |reason: &str| ReferenceError::Syntax { reference: s.into(), reason: reason.into() };
        if s.is_empty() {
            return Err(ReferenceError::Empty);
        }
        // The parser below has one message for everything, so the common slips come first.
        let digest = match s.split_once('@') {
            None => None,
            Some((_, digest)) => Some(
                digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { reference: s.into(), source })?,
            ),
        };
        if s.contains("://") {
            return Err(syntax("a reference has no scheme other than oci:// or docker://"));
        }
        if s.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(syntax("a reference has no spaces in it"));
        }
        let inner = match s.strip_prefix('[') {
            Some(rest) => parse_ipv6(rest)
                .ok_or_else(|| syntax("not an IPv6 host with an image name behind it"))?,
            None => Reference::try_from(s).map_err(|error| {
                if repository(s).chars().any(char::is_uppercase) {
                    syntax("the repository name must be lowercase")
                } else {
                    syntax(&error.to_string())
                }
            })?,
        };
        // `UPPER/case` passes the parser: its first part could have been a host.
        if inner.repository().chars().any(char::is_uppercase) {
            return Err(syntax("the repository name must be lowercase"));
        }
        if let Some((_, port)) = inner.registry().rsplit_once(':')
            && !port.ends_with(']')
            && port.parse::<u16>().is_err()
        {
            return Err(syntax("the port is not a number below 65536"));
        }
        Ok(Self { inner, digest })
    }

    /// The registry's host and port, as in `docker login`.
    pub fn registry(&self) -> &str {
        self.inner.registry()
    }

    /// The repository's name.
    pub fn repository(&self) -> &str {
        self.inner.repository()
    }

    /// The tag, `latest` where neither a tag nor a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.inner.tag()
    }

    /// The digest. It wins over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.registry())
    }

    /// Whether the registry is talked to without TLS. Who names a CA expects TLS on loopback, too.
    pub(crate) fn is_plain_http(&self, options: &FetchOptions) -> bool {
        options.plain_http || self.is_loopback() && options.ca_file.is_none()
    }

    /// The host and port to connect to. They are others than those of the name for Docker Hub.
    pub(crate) fn host(&self) -> &str {
        self.inner.resolve_registry()
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What would be the repository of a reference that may be none.
fn repository(s: &str) -> &str {
    let name = s.split('@').next().unwrap_or(s);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    name.split_once('/').map_or(name, |(_, path)| path)
}

/// `[::1]:5000/name:tag` without its first bracket. The parser of oci-client does not know IPv6
/// hosts, so the name is parsed behind another one.
fn parse_ipv6(rest: &str) -> Option<Reference> {
    let (address, rest) = rest.split_once(']')?;
    address.parse::<Ipv6Addr>().ok()?;
    let (port, name) = rest.split_once('/')?;
    if !port.is_empty() {
        port.strip_prefix(':')?.parse::<u16>().ok()?;
    }
    let parsed = Reference::try_from(format!("localhost/{name}")).ok()?;
    let host = format!("[{address}]{port}");
    let repository = parsed.repository().to_owned();
    Some(match (parsed.tag(), parsed.digest()) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(host, repository, tag.into(), digest.into())
        }
        (_, Some(digest)) => Reference::with_digest(host, repository, digest.into()),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or("latest").into()),
    })
}

/// Whether a host, with or without a port, is this machine's loopback.
pub(crate) fn is_loopback(registry: &str) -> bool {
    without_port(registry) == "localhost" || address(registry).is_some_and(|ip| ip.is_loopback())
}

/// Whether a host, with or without a port, is an address that only this machine's own network
/// knows. Clouds answer there with what is secret to a machine.
pub(crate) fn is_link_local(registry: &str) -> bool {
    address(registry).is_some_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
    })
}

fn without_port(registry: &str) -> &str {
    match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    }
}

fn address(registry: &str) -> Option<IpAddr> {
    without_port(registry).parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Where an image is to be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that holds a module.
    File(PathBuf),
    /// An image in an OCI layout directory.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// Which of its images.
        selector: Option<Selector>,
    },
    /// An image in a registry.
    Registry(RegistryReference),
}

/// Transports that other tools have. They would otherwise be taken for a host or a name with a tag.
const OTHER_SCHEMES: [&str; 9] = [
    "http://",
    "https://",
    "oci-archive:",
    "docker-archive:",
    "docker-daemon:",
    "containers-storage:",
    "dir:",
    "ostree:",
    "sif:",
];

impl Source {
    /// Decides what `s` names. Prefixes come first, then paths that exist, then what looks like a
    /// path, and only then references.
    pub fn parse(s: &str) -> Result<Source, ReferenceError> {
        if s.is_empty() {
            return Err(ReferenceError::Empty);
        }
        for prefix in ["oci://", "docker://"] {
            if let Some(reference) = s.strip_prefix(prefix) {
                return RegistryReference::parse(reference).map(Source::Registry);
            }
        }
        if let Some(path) = s.strip_prefix("file:") {
            return match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(ReferenceError::MissingPath { reference: s.into(), prefix: "file:" }),
                path => Ok(Source::File(path.into())),
            };
        }
        if let Some(rest) = s.strip_prefix("oci:") {
            return parse_layout(s, rest);
        }
        if let Some(scheme) = OTHER_SCHEMES.iter().find(|scheme| s.starts_with(**scheme)) {
            return Err(ReferenceError::UnsupportedScheme {
                reference: s.into(),
                scheme: scheme.trim_end_matches("//").trim_end_matches(':').into(),
            });
        }
        let path = Path::new(s);
        if path.join("oci-layout").exists() {
            return Ok(Source::OciLayout { path: path.into(), selector: None });
        }
        if path.exists() {
            return Ok(Source::File(path.into()));
        }
        if looks_like_path(s) {
            // `./layout:tag`, where `./layout` is a layout, needs no prefix either.
            return match parse_layout(s, s) {
                Ok(Source::OciLayout { path, selector })
                    if selector.is_some() && path.join("oci-layout").exists() =>
                {
                    Ok(Source::OciLayout { path, selector })
                }
                _ => Ok(Source::File(path.into())),
            };
        }
        RegistryReference::parse(s).map(Source::Registry)
    }
}

fn looks_like_path(s: &str) -> bool {
    let lower = s.to_ascii_lowercase();
    ["/", "./", "../", "~/"].iter().any(|p| s.starts_with(p))
        || matches!(s, "." | ".." | "~")
        || [".wasm", ".wat", ".tar", ".tar.gz", ".tgz"].iter().any(|end| lower.ends_with(end))
}

/// `PATH[:TAG][@DIGEST]`, where the digest wins over the tag. A path may have colons in it: the
/// longest one that exists is taken, and where none does, the part before the first colon.
fn parse_layout(reference: &str, s: &str) -> Result<Source, ReferenceError> {
    let layout = |path: &str, selector| {
        if path.is_empty() {
            return Err(ReferenceError::MissingPath {
                reference: reference.into(),
                prefix: "oci:",
            });
        }
        Ok(Source::OciLayout { path: path.into(), selector })
    };
    if Path::new(s).is_dir() {
        return layout(s, None);
    }
    let (name, digest) = match s.rsplit_once('@') {
        Some((name, digest)) if digest.contains(':') && !digest.contains('/') => {
            let digest = digest
                .parse()
                .map_err(|source| ReferenceError::Digest { reference: reference.into(), source })?;
            (name, Some(digest))
        }
        _ => (s, None),
    };
    let split = name
        .rmatch_indices(':')
        .map(|(at, _)| at)
        .find(|at| Path::new(&name[..*at]).is_dir())
        .or_else(|| name.find(':'));
    let (path, tag) = match split {
        Some(at) if !Path::new(name).is_dir() => (&name[..at], Some(&name[at + 1..])),
        _ => (name, None),
    };
    match (digest, tag) {
        (Some(digest), _) => layout(path, Some(Selector::Digest(digest))),
        (None, Some("")) => Err(ReferenceError::Syntax {
            reference: reference.into(),
            reason: "a tag is missing after the colon".into(),
        }),
        (None, Some(tag)) => layout(path, Some(Selector::Tag(tag.into()))),
        (None, None) => layout(path, None),
    }
}
