//! What a string on the command line names. Paths are recognised before references are parsed,
//! because `oci-client` takes nearly any word for an image on Docker Hub.

use super::digest::{Digest, InvalidDigest};
use super::{FetchOptions, plain_reference};
use oci_distribution::{ParseError, Reference};
use reqwest::Url;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// A string that names nothing that could be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The empty string.
    #[error("the image reference is empty")]
    Empty,
    /// A path is missing after a prefix.
    #[error("{reference:?}: a path is missing after `{prefix}`")]
    MissingPath {
        /// The reference as typed.
        reference: String,
        /// The prefix.
        prefix: &'static str,
    },
    /// A transport that is not read.
    #[error(
        "{reference:?}: `{scheme}` is not supported (a registry reference, `oci:`, `dir:`, `oci-archive:`, `docker-archive:`, a URL, a file or `-` is expected)"
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
            return Err(syntax(
                "a reference has no scheme other than oci://, docker:// or https://",
            ));
        }
        if s.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(syntax("a reference has no spaces in it"));
        }
        let inner = match s.strip_prefix('[') {
            Some(rest) => parse_ipv6(rest, digest.as_ref())
                .ok_or_else(|| syntax("not an IPv6 host with an image name behind it"))?,
            None => parse_named(s, digest.as_ref()).map_err(|error| {
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

/// A reference whose host is a name, or is left out. `digest` is that behind the `@`.
fn parse_named(s: &str, digest: Option<&Digest>) -> Result<Reference, ParseError> {
    plain_reference::parse(s, digest).map_or_else(|| Reference::try_from(s), Ok)
}

/// `[::1]:5000/name:tag` without its first bracket. The parser of oci-client does not know IPv6
/// hosts, so the name is parsed behind another one.
fn parse_ipv6(rest: &str, digest: Option<&Digest>) -> Option<Reference> {
    let (address, rest) = rest.split_once(']')?;
    address.parse::<Ipv6Addr>().ok()?;
    let (port, name) = rest.split_once('/')?;
    if !port.is_empty() {
        port.strip_prefix(':')?.parse::<u16>().ok()?;
    }
    let parsed = parse_named(&format!("localhost/{name}"), digest).ok()?;
    let host = format!("[{address}]{port}");
    let repository = parsed.repository().to_owned();
    Some(plain_reference::of_parts(host, repository, parsed.tag(), parsed.digest()))
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

/// A module by its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleUrl {
    url: Url,
    sha256: Option<Digest>,
}

impl ModuleUrl {
    /// Parses `https://HOST/PATH[#sha256=HEX]`.
    fn parse(s: &str) -> Result<Self, ReferenceError> {
        let syntax = |reason: String| ReferenceError::Syntax { reference: shown(s), reason };
        let mut url: Url = s.parse().map_err(|error| syntax(format!("not a URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(syntax("a URL with a password in it would be shown to everybody".into()));
        }
        let sha256 = match url.fragment() {
            None => None,
            Some(fragment) => {
                let hex = fragment.strip_prefix("sha256=").or(fragment.strip_prefix("sha256:"));
                let digest = hex.map(|hex| format!("sha256:{}", hex.to_ascii_lowercase()).parse());
                match digest {
                    Some(Ok(digest)) => Some(digest),
                    _ => return Err(syntax("`#sha256=` and 64 hex digits are expected".into())),
                }
            }
        };
        url.set_fragment(None);
        Ok(Self { url, sha256 })
    }

    /// The URL without the digest.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The digest that the module has to have.
    pub fn sha256(&self) -> Option<&Digest> {
        self.sha256.as_ref()
    }

    /// Whether the server is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.url.host_str().is_some_and(is_loopback)
    }

    /// The last part of the path.
    pub(crate) fn file_name(&self) -> &str {
        let path = self.url.path();
        path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("module")
    }
}

impl fmt::Display for ModuleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::transport::shown(&self.url))
    }
}

/// A URL that could not be parsed, without what could be a password.
fn shown(s: &str) -> String {
    match s.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => s.to_owned(),
    }
}

/// Where an image is to be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that holds a module, or an archive with an image.
    File(PathBuf),
    /// Standard input, with the same in it.
    Stdin,
    /// An image in an OCI layout directory.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// Which of its images.
        selector: Option<Selector>,
    },
    /// The image in a directory that `skopeo copy … dir:` wrote.
    Directory(PathBuf),
    /// An image in a tar file: an OCI layout, or what `docker save` writes. Which it is says the
    /// content.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which of its images.
        selector: Option<Selector>,
    },
    /// A module by its URL.
    Url(ModuleUrl),
    /// An image in a registry.
    Registry(RegistryReference),
}

/// Transports that other tools have. They would otherwise be taken for a host or a name with a tag.
const OTHER_SCHEMES: [&str; 4] = ["docker-daemon:", "containers-storage:", "ostree:", "sif:"];

impl Source {
    /// Decides what `s` names. Prefixes come first, then paths that exist, then what looks like a
    /// path, and only then references.
    pub fn parse(s: &str) -> Result<Source, ReferenceError> {
        if s.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if s == "-" {
            return Ok(Source::Stdin);
        }
        for prefix in ["oci://", "docker://"] {
            if let Some(reference) = s.strip_prefix(prefix) {
                return RegistryReference::parse(reference).map(Source::Registry);
            }
        }
        if s.starts_with("https://") || s.starts_with("http://") {
            return ModuleUrl::parse(s).map(Source::Url);
        }
        let path_behind = |prefix: &'static str| {
            s.strip_prefix(prefix).map(|path| match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(ReferenceError::MissingPath { reference: s.into(), prefix }),
                path => Ok(PathBuf::from(path)),
            })
        };
        if let Some(path) = path_behind("file:") {
            return path.map(Source::File);
        }
        if let Some(path) = path_behind("dir:") {
            return path.map(Source::Directory);
        }
        for (prefix, is_file) in
            [("oci:", false), ("oci-archive:", true), ("docker-archive:", true)]
        {
            if let Some(rest) = s.strip_prefix(prefix) {
                let (path, selector) = split_selector(s, rest, prefix, is_file)?;
                return Ok(match is_file {
                    true => Source::Archive { path, selector },
                    false => Source::OciLayout { path, selector },
                });
            }
        }
        if let Some(scheme) = OTHER_SCHEMES.iter().find(|scheme| s.starts_with(**scheme)) {
            return Err(ReferenceError::UnsupportedScheme {
                reference: s.into(),
                scheme: scheme.trim_end_matches(':').into(),
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
            return match split_selector(s, s, "oci:", false) {
                Ok((path, selector)) if selector.is_some() && path.join("oci-layout").exists() => {
                    Ok(Source::OciLayout { path, selector })
                }
                _ => Ok(Source::File(path.into())),
            };
        }
        RegistryReference::parse(s).map(Source::Registry)
    }

    /// Whether getting it takes the network.
    pub fn needs_network(&self) -> bool {
        matches!(self, Source::Registry(_) | Source::Url(_))
    }

    /// Whether it can be read again for nothing.
    pub fn is_read_again(&self) -> bool {
        !self.needs_network() && *self != Source::Stdin
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
fn split_selector(
    reference: &str,
    s: &str,
    prefix: &'static str,
    is_file: bool,
) -> Result<(PathBuf, Option<Selector>), ReferenceError> {
    let exists = |path: &str| match is_file {
        true => Path::new(path).is_file(),
        false => Path::new(path).is_dir(),
    };
    let found = |path: &str, selector| match path {
        "" => Err(ReferenceError::MissingPath { reference: reference.into(), prefix }),
        path => Ok((path.into(), selector)),
    };
    if exists(s) {
        return found(s, None);
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
        .find(|at| exists(&name[..*at]))
        .or_else(|| name.find(':'));
    let (path, tag) = match split {
        Some(at) if !exists(name) => (&name[..at], Some(&name[at + 1..])),
        _ => (name, None),
    };
    match (digest, tag) {
        (Some(digest), _) => found(path, Some(Selector::Digest(digest))),
        (None, Some("")) => Err(ReferenceError::Syntax {
            reference: reference.into(),
            reason: "a tag is missing after the colon".into(),
        }),
        (None, Some(tag)) => found(path, Some(Selector::Tag(tag.into()))),
        (None, None) => found(path, None),
    }
}
