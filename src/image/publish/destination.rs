//! Where an image is to be written, as skopeo names it.

use std::{fmt, path::PathBuf};

use crate::image::{Digest, ReferenceError, RegistryReference, Selector, Source};

/// Where an image is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A repository in a registry.
    Registry(RegistryReference),
    /// An OCI layout directory, which is made or extended.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// The image's tag in it.
        tag: Option<String>,
    },
    /// A tar file of an OCI layout, which is replaced.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The image's tag in it.
        tag: Option<String>,
    },
    /// A tar file as `docker load` takes it, which is replaced.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// What docker shall call the image.
        name: Option<RegistryReference>,
    },
}

impl Destination {
    /// Decides what `s` names.
    pub fn parse(s: &str) -> Result<Self, ReferenceError> {
        let syntax =
            |reason: &str| ReferenceError::Syntax { reference: s.into(), reason: reason.into() };
        for (prefix, is_oci) in [("oci-archive:", true), ("docker-archive:", false)] {
            let Some(rest) = s.strip_prefix(prefix) else { continue };
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name)),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(ReferenceError::MissingPath { reference: s.into(), prefix });
            }
            if name == Some("") {
                return Err(syntax("a tag is missing after the colon"));
            }
            let path = path.into();
            return match is_oci {
                true => Ok(Self::OciArchive { path, tag: name.map(str::to_owned) }),
                false => Ok(Self::DockerArchive {
                    path,
                    name: name.map(RegistryReference::parse).transpose()?,
                }),
            };
        }
        if s.starts_with("oci:") && !s.starts_with("oci://") {
            return match Source::parse(s)? {
                Source::OciLayout { path, selector: None } => {
                    Ok(Self::OciLayout { path, tag: None })
                }
                Source::OciLayout { path, selector: Some(Selector::Tag(tag)) } => {
                    Ok(Self::OciLayout { path, tag: Some(tag) })
                }
                _ => Err(syntax("an image is written to a tag, not to a digest")),
            };
        }
        // A path says nothing of how to write to it, and the other sources cannot be written.
        match Source::parse(s)? {
            Source::Registry(reference) => Ok(Self::Registry(reference)),
            _ => Err(syntax(
                "no image is written to that: name a registry (HOST/NAME[:TAG], or oci://NAME), or a file by oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME]",
            )),
        }
    }

    /// The digest that the image has to have.
    pub(crate) fn pinned(&self) -> Option<&Digest> {
        match self {
            Self::Registry(reference) => reference.digest(),
            _ => None,
        }
    }

    /// The name of the image with its digest.
    pub(crate) fn with_digest(&self, digest: &Digest) -> String {
        match self {
            Self::Registry(reference) if reference.digest().is_some() => self.to_string(),
            // No tool can name the image in it by a digest.
            Self::DockerArchive { .. } => self.to_string(),
            _ => format!("{self}@{digest}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |f: &mut fmt::Formatter<'_>, prefix, path: &PathBuf, name: Option<String>| {
            write!(f, "{prefix}:{}", path.display())?;
            name.map_or(Ok(()), |name| write!(f, ":{name}"))
        };
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { path: at, tag } => path(f, "oci", at, tag.clone()),
            Self::OciArchive { path: at, tag } => path(f, "oci-archive", at, tag.clone()),
            Self::DockerArchive { path: at, name } => {
                path(f, "docker-archive", at, name.as_ref().map(ToString::to_string))
            }
        }
    }
}
