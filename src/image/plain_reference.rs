//! References as nearly all of them are, in ASCII and with a registry in front.
//!
//! The parser of oci-client has a regular expression with all of Unicode in it, which takes ten times
//! as long to compile as a small module. It is for everything else: for names on Docker Hub, and to say
//! what is wrong with what is no reference.

use oci_distribution::Reference;

use super::digest::Digest;

/// As many characters as the name of a repository may have (`reference.NameTotalLengthMax` of
/// distribution).
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// `HOST[:PORT]/NAME[:TAG][@DIGEST]`, where `digest` is the one behind the `@`. `None` where that is
/// for the other parser.
///
/// The grammar is that of distribution's `reference/regexp.go`.
pub(super) fn parse(s: &str, digest: Option<&Digest>) -> Option<Reference> {
    let name = s.split('@').next()?;
    let (host, path) = name.split_once('/')?;
    let (path, tag) = match path.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    let is_plain = is_registry(host)
        && path.len() <= MAX_REPOSITORY
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag);
    if !is_plain {
        return None;
    }
    let digest = digest.map(Digest::to_string);
    Some(of_parts(host.to_owned(), path.to_owned(), tag, digest.as_deref()))
}

/// A reference to `latest`, if neither a tag nor a digest says otherwise.
pub(super) fn of_parts(
    host: String,
    repository: String,
    tag: Option<&str>,
    digest: Option<&str>,
) -> Reference {
    match (tag, digest) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(host, repository, tag.into(), digest.into())
        }
        (None, Some(digest)) => Reference::with_digest(host, repository, digest.into()),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or("latest").into()),
    }
}

/// A host that is no part of a name on Docker Hub, with or without a port.
fn is_registry(host: &str) -> bool {
    let (domain, port) = match host.split_once(':') {
        Some((domain, port)) => (domain, Some(port)),
        None => (host, None),
    };
    // Docker Hub has two, and a rule for names without a slash.
    let is_hub = domain.ends_with("docker.io");
    let is_host = domain == "localhost" || domain.contains('.') || port.is_some();
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_host && !is_hub && domain.split('.').all(is_domain_component) && port.is_none_or(is_port)
}

fn is_domain_component(part: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    ends(part.bytes().next())
        && ends(part.bytes().next_back())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Letters and digits, with one dot, one or two underscores, or any number of hyphens between them.
fn is_path_component(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut between = part.split(is_word).filter(|between| !between.is_empty());
    part.starts_with(is_word)
        && part.ends_with(is_word)
        && between.all(|between| {
            matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest_of(s: &str) -> Option<Digest> {
        s.split_once('@').map(|(_, digest)| digest.parse().unwrap())
    }

    #[test]
    fn common_references_are_plain() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for reference in [
            "ghcr.io/acme/filter:1.2",
            "ghcr.io/acme/filter",
            "localhost:5000/filter:v1.0_x-y",
            "localhost/filter",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/filter__a.b--c:latest",
            &format!("registry.example:443/a/b/c@{digest}"),
            &format!("registry.example/a:1@{digest}"),
        ] {
            let parsed = parse(reference, digest_of(reference).as_ref());
            assert_eq!(parsed, Some(Reference::try_from(reference).unwrap()), "{reference}");
        }
        for other in ["filter", "acme/filter:1", "docker.io/acme/filter", "index.docker.io/filter"]
        {
            assert_eq!(parse(other, None), None, "{other}");
        }
    }

    proptest! {
        /// What is plain is the same reference to the other parser.
        #[test]
        fn both_parsers_agree(
            s in "([a-zA-Z0-9.-]{0,6}|localhost|[a-z]{1,3}\\.[a-z]{1,3})(:[0-9a]{0,3})?/[a-z0-9A._/é-]{0,8}(:[a-zA-Z0-9_.é-]{0,4})?(@sha256:[0-9a-f]{64})?",
        ) {
            if let Some(plain) = parse(&s, digest_of(&s).as_ref()) {
                prop_assert_eq!(Ok(plain), Reference::try_from(s.as_str()).map_err(|e| e.to_string()));
            }
        }
    }
}
