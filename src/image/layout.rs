//! Images in a directory: OCI image layouts with `oci-layout`, `index.json` and `blobs/ALGORITHM/HEX`,
//! and what skopeo calls `dir:`, one image with `manifest.json` and its blobs beside it.

use super::content::{self, BlobSink, Content, Named};
use super::digest::Digest;
use super::file::{io_error, read_bounded};
use super::layout_index::LayoutIndex;
use super::manifest::{Descriptor, MAX_DOCUMENT_BYTES};
use super::{ImageError, Selector, SourceKind, layout_index};
use crate::timing::PhaseTime;
use std::path::{Path, PathBuf};

/// A directory with images in it. Its files are read where they are wanted: to hand them to a thread
/// that may block takes longer than to read them.
pub(crate) struct Layout {
    /// As typed, for messages.
    path: PathBuf,
    /// Without symbolic links, for the check that nothing leads out of it.
    root: PathBuf,
    /// Whether it is a layout, or else one image.
    is_layout: bool,
}

impl Layout {
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let layout = Self::of(path, true)?;
        if !layout.root.join("oci-layout").exists() {
            return Err(ImageError::NotAnImage {
                path: layout.path,
                reason: "is not an OCI layout: it has no `oci-layout` file".into(),
                help: "name the directory that holds `oci-layout`, `index.json` and `blobs`".into(),
            });
        }
        let what = layout.path.join("oci-layout").display().to_string();
        let version = layout.read(Path::new("oci-layout"), &what, MAX_DOCUMENT_BYTES)?;
        check_version(&version, what)?;
        Ok(layout)
    }

    /// A directory with one image.
    pub(crate) fn open_flat(path: &Path) -> Result<Self, ImageError> {
        Self::of(path, false)
    }

    fn of(path: &Path, is_layout: bool) -> Result<Self, ImageError> {
        let root = path.canonicalize().map_err(|e| io_error(path, e))?;
        Ok(Self { path: path.to_owned(), root, is_layout })
    }

    /// The image of such a directory.
    pub(crate) fn only_image(&self) -> Result<Named, ImageError> {
        let what = self.path.join("manifest.json").display().to_string();
        let bytes = self.read(Path::new("manifest.json"), &what, MAX_DOCUMENT_BYTES)?;
        let digest = Digest::sha256(&bytes);
        Ok(Named { bytes, digest, pinned: None, verify: PhaseTime::default() })
    }

    /// Reads a file of the layout. A symbolic link may stay inside it, for layouts that share
    /// blobs do that; it must not lead out.
    fn read(&self, relative: &Path, what: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let path = self.root.join(relative);
        let shown = self.path.join(relative);
        let real = path.canonicalize().map_err(|e| io_error(&shown, e))?;
        if !real.starts_with(&self.root) {
            return Err(ImageError::invalid(
                shown.display().to_string(),
                "is a symbolic link that leads out of the layout",
            ));
        }
        read_bounded(&real, what, limit)
    }

    /// Only takes a [`Digest`], whose syntax is checked: `sha256:../../x` cannot come this far.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        if !self.is_layout {
            return digest.hex().into();
        }
        Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn read_blob(&self, digest: &Digest, what: String, limit: u64) -> Result<Vec<u8>, ImageError> {
        self.read(&self.blob_path(digest), &what, limit).map_err(|error| match error {
            ImageError::FileNotFound { path } => ImageError::NotFound {
                what,
                reason: format!("the layout has no {}", path.display()),
                help: "copy the whole image into the layout again".into(),
            },
            other => other,
        })
    }

    /// The image that the selector names; without one, the only image that there is.
    pub(crate) async fn select(&self, selector: Option<&Selector>) -> Result<Named, ImageError> {
        let index = self.index()?;
        let name = self.index_name();
        let form = "oci:DIRECTORY:TAG or oci:DIRECTORY@DIGEST";
        LayoutIndex { content: self, path: &self.path, form, index, name }.select(selector).await
    }

    fn index_name(&self) -> String {
        self.path.join("index.json").display().to_string()
    }

    fn index(&self) -> Result<Vec<u8>, ImageError> {
        self.read(Path::new("index.json"), &self.index_name(), MAX_DOCUMENT_BYTES)
    }
}

/// Whether an `oci-layout` file is of a version that is known.
pub(crate) fn check_version(file: &[u8], what: String) -> Result<(), ImageError> {
    let version = serde_json::from_slice::<serde_json::Value>(file)
        .ok()
        .and_then(|v| Some(v.get("imageLayoutVersion")?.as_str()?.to_owned()));
    match version {
        Some(version) if version.starts_with("1.") => Ok(()),
        Some(version) => Err(ImageError::invalid(
            what,
            format!("layout version {version:?} is not known, only 1.0.0 is"),
        )),
        None => Err(ImageError::invalid(what, "has no `imageLayoutVersion`")),
    }
}

impl Content for Layout {
    fn kind(&self) -> SourceKind {
        if self.is_layout { SourceKind::OciLayout } else { SourceKind::Directory }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let what = content::manifest_name(&descriptor.digest);
        self.read_blob(&descriptor.digest, what, MAX_DOCUMENT_BYTES)
    }

    async fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, ImageError> {
        if !self.is_layout {
            return Ok(None);
        }
        match layout_index::tagged(&self.index()?, &self.index_name(), tag)? {
            Some(entry) => self.document(&entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// Tools write them into `index.json` beside everything else.
    async fn referrers(&self, _digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        match self.is_layout {
            true => self.index().map(Some),
            false => Ok(None),
        }
    }

    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError> {
        let what = content::blob_name(descriptor);
        // A file that is too long is found out by its length, not by reading it.
        match self.read_blob(&descriptor.digest, what, descriptor.size) {
            Ok(bytes) => sink.write_whole(bytes),
            Err(ImageError::TooLarge { actual, .. }) => {
                Err(sink.size_mismatch(actual.unwrap_or(descriptor.size.saturating_add(1))))
            }
            Err(other) => Err(other),
        }
    }
}
