//! Images written to this machine: OCI layouts, tar files of them, and docker's own tar files.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::image::{
    Digest, ImageError,
    file::read_bounded,
    layout_index::REF_NAME,
    manifest::{Descriptor, MAX_DOCUMENT_BYTES},
};

use super::{
    Writer,
    build::{Built, header},
};

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT_VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";

fn unwritable(path: &Path, error: &io::Error) -> ImageError {
    ImageError::Unwritable {
        path: path.into(),
        reason: error.to_string(),
        help: "check the path, its permissions and the space on the disk".into(),
    }
}

/// A file that is not there before it is complete, with the permissions that new files have here.
fn staged(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".filtergate-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = staged(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// The entry of `index.json` for an image.
fn entry(named: &Descriptor, tag: Option<&str>) -> Value {
    let mut entry = json!({
        "mediaType": named.media_type,
        "digest": named.digest.to_string(),
        "size": named.size,
    });
    if let Some(kind) = &named.artifact_type {
        entry["artifactType"] = json!(kind);
    }
    if let Some(tag) = tag {
        entry["annotations"] = json!({ REF_NAME: tag });
    }
    entry
}

/// Writes into a layout directory.
pub(super) struct LayoutWriter {
    path: PathBuf,
    tag: Option<String>,
}

impl LayoutWriter {
    /// Takes a layout, an empty directory, or a name that is not there yet.
    pub(super) fn open(path: &Path, tag: Option<&str>) -> Result<Self, ImageError> {
        let failed = |error: io::Error| unwritable(path, &error);
        fs::create_dir_all(path).map_err(failed)?;
        let is_empty = fs::read_dir(path).map_err(failed)?.next().is_none();
        if !is_empty && !path.join(LAYOUT_FILE).exists() {
            return Err(ImageError::Unwritable {
                path: path.into(),
                reason: "is a directory with other files in it, and no OCI layout".into(),
                help: "name an OCI layout, an empty directory, or one that is not there yet".into(),
            });
        }
        let writer = Self { path: path.into(), tag: tag.map(str::to_owned) };
        if is_empty {
            replace(&path.join(LAYOUT_FILE), LAYOUT_VERSION.as_bytes()).map_err(failed)?;
        }
        Ok(writer)
    }

    /// Where a blob belongs. A layout from elsewhere may have links that lead out of it.
    fn place(&self, digest: &Digest) -> Result<PathBuf, ImageError> {
        let path = self.path.join(blob_path(digest));
        let folder = path.parent().unwrap_or(&self.path);
        let failed = |error: io::Error| unwritable(folder, &error);
        let root = self.path.canonicalize().map_err(failed)?;
        let blobs = self.path.join("blobs");
        let leads_out = |folder: &Path| {
            Ok(folder.exists() && !folder.canonicalize().map_err(failed)?.starts_with(&root))
        };
        if leads_out(&blobs)? || leads_out(folder)? {
            return Err(ImageError::Unwritable {
                path: folder.into(),
                reason: "is a symbolic link that leads out of the layout".into(),
                help: "write to another layout".into(),
            });
        }
        fs::create_dir_all(folder).map_err(failed)?;
        Ok(path)
    }

    /// Adds the image to `index.json`; one with the same tag is no longer listed. Writers at the same
    /// time wait for each other.
    fn list(&self, named: &Descriptor) -> Result<(), ImageError> {
        let path = self.path.join(INDEX);
        let failed = |error: io::Error| unwritable(&path, &error);
        let lock = File::open(self.path.join(LAYOUT_FILE)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut index = match path.exists() {
            false => json!({
                "schemaVersion": 2,
                "mediaType": crate::image::manifest::OCI_INDEX,
                "manifests": [],
            }),
            true => {
                let what = path.display().to_string();
                let bytes = read_bounded(&path, &what, MAX_DOCUMENT_BYTES)?;
                serde_json::from_slice(&bytes).map_err(|error| {
                    ImageError::invalid(what, format!("the index is not valid: {error}"))
                })?
            }
        };
        let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(ImageError::invalid(
                path.display().to_string(),
                "the index lists no manifests",
            ));
        };
        let tag_of = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
        let digest = named.digest.to_string();
        entries.retain(|entry| match &self.tag {
            Some(tag) => tag_of(entry).as_ref() != Some(tag),
            None => tag_of(entry).is_some() || entry["digest"] != digest.as_str(),
        });
        entries.push(entry(named, self.tag.as_deref()));
        // Keys are sorted: serde_json keeps its objects so.
        replace(&path, index.to_string().as_bytes()).map_err(failed)
    }
}

impl Writer for LayoutWriter {
    async fn has(&mut self, blob: &Descriptor) -> Result<bool, ImageError> {
        let path = self.place(&blob.digest)?;
        // What is there may be broken, and is small enough to be looked at.
        let bytes = match read_bounded(&path, "", blob.size) {
            Ok(bytes) => bytes,
            Err(_) => return Ok(false),
        };
        let verified = crate::image::content::verify_digest(
            &bytes,
            &blob.digest,
            "",
            &mut crate::timing::PhaseTime::default(),
        );
        Ok(verified.is_ok())
    }

    async fn blob(&mut self, blob: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        let path = self.place(&blob.digest)?;
        replace(&path, &bytes).map_err(|error| unwritable(&path, &error))
    }

    async fn manifest(&mut self, manifest: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        self.blob(manifest, bytes).await
    }

    async fn finish(mut self, named: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        self.blob(named, bytes).await?;
        self.list(named)
    }
}

/// Writes a tar file, which is not there before it is complete.
struct TarFile {
    path: PathBuf,
    archive: tar::Builder<BufWriter<NamedTempFile>>,
}

impl TarFile {
    fn create(path: &Path) -> Result<Self, ImageError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if path.is_dir() {
            return Err(ImageError::Unwritable {
                path: path.into(),
                reason: "is a directory, where a file is to be written".into(),
                help: "name a file, or write oci:DIRECTORY for a layout".into(),
            });
        }
        let file = staged(folder).map_err(|error| unwritable(path, &error))?;
        Ok(Self { path: path.into(), archive: tar::Builder::new(BufWriter::new(file)) })
    }

    fn add(&mut self, name: impl AsRef<Path>, content: &[u8]) -> Result<(), ImageError> {
        let mut header = header(content.len() as u64);
        self.archive
            .append_data(&mut header, name, content)
            .map_err(|error| unwritable(&self.path, &error))
    }

    fn finish(self) -> Result<(), ImageError> {
        let Self { path, archive } = self;
        let written = || -> io::Result<()> {
            let file =
                archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        written().map_err(|error| unwritable(&path, &error))
    }
}

/// Writes a tar file of a layout with one image.
pub(super) struct ArchiveWriter {
    file: TarFile,
    tag: Option<String>,
    written: std::collections::HashSet<String>,
}

impl ArchiveWriter {
    pub(super) fn create(path: &Path, tag: Option<&str>) -> Result<Self, ImageError> {
        let mut file = TarFile::create(path)?;
        file.add(LAYOUT_FILE, LAYOUT_VERSION.as_bytes())?;
        Ok(Self { file, tag: tag.map(str::to_owned), written: Default::default() })
    }
}

impl Writer for ArchiveWriter {
    async fn has(&mut self, blob: &Descriptor) -> Result<bool, ImageError> {
        Ok(self.written.contains(&blob.digest.to_string()))
    }

    async fn blob(&mut self, blob: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        if self.written.insert(blob.digest.to_string()) {
            self.file.add(blob_path(&blob.digest), &bytes)?;
        }
        Ok(())
    }

    async fn manifest(&mut self, manifest: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        self.blob(manifest, bytes).await
    }

    async fn finish(mut self, named: &Descriptor, bytes: Vec<u8>) -> Result<(), ImageError> {
        self.blob(named, bytes).await?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": crate::image::manifest::OCI_INDEX,
            "manifests": [entry(named, self.tag.as_deref())],
        });
        self.file.add(INDEX, index.to_string().as_bytes())?;
        self.file.finish()
    }
}

/// Writes an image of the compat shape as `docker load` takes it: layers are not compressed there,
/// and there is no manifest in OCI's sense. The image's id is the digest of its config.
pub(super) fn docker_archive(
    path: &Path,
    name: Option<&str>,
    image: &Built,
    archive: &[u8],
) -> Result<(), ImageError> {
    let config = format!("{}.json", image.config.descriptor.digest.hex());
    let layer = format!("{}.tar", Digest::sha256(archive).hex());
    let manifest = json!([{
        "Config": config,
        "RepoTags": name.map_or_else(Vec::new, |name| vec![name]),
        "Layers": [layer],
    }]);
    let mut file = TarFile::create(path)?;
    file.add(&layer, archive)?;
    file.add(&config, &image.config.bytes)?;
    file.add("manifest.json", manifest.to_string().as_bytes())?;
    file.finish()
}
