//! Images in a tar file: an OCI layout in an archive, and what `docker save` writes.
//!
//! The file is read twice: once for the names in it, and then where the blobs are. Nothing is
//! unpacked to disk, and no name in it is used as a path of this machine.

use super::compression::Compression;
use super::content::{self, BlobSink, Content, Named};
use super::docker_archive;
use super::error::one_line;
use super::file::blocking;
use super::layout::check_version;
use super::layout_index::LayoutIndex;
use super::manifest::{self, Descriptor, Document, MAX_DOCUMENT_BYTES};
use super::tarball::{Limited, unpacked_limit};
use super::{Digest, FetchOptions, ImageError, Selector, SourceKind, layout_index};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tar::EntryType;

const MAX_ENTRIES: usize = 100_000;
const MAX_NAME_BYTES: usize = 4096;
/// Links from one name to another within the archive: Docker wrote one where layers are the same.
const MAX_LINKS: usize = 4;
/// What a compressed archive may unpack to, in terms of the largest module.
const LAYERS: u64 = 4;
/// How often all of it may be unpacked: whatever is in it has to be read from the start.
const READS: u64 = 16;
const UNCOMPRESSED_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where the bytes of an archive are.
pub(crate) enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

/// Something in an archive.
enum Entry {
    /// A file: where its bytes begin in the unpacked archive, and how many there are.
    File { at: u64, size: u64 },
    /// Another name, from the root of the archive.
    Link(String),
}

/// What is told apart of a failed read.
enum ReadError {
    NotThere,
    TooLarge(u64),
    Broken(String),
}

impl ReadError {
    fn of(error: &io::Error) -> Self {
        Self::Broken(one_line(&error.to_string()))
    }

    fn into_image_error(self, what: String) -> ImageError {
        match self {
            Self::NotThere => ImageError::NotFound {
                what,
                reason: "the archive has no such file".into(),
                help: "save the whole image again".into(),
            },
            Self::TooLarge(limit) => ImageError::TooLarge { what, limit, actual: None },
            Self::Broken(reason) => {
                ImageError::invalid(what, format!("the archive cannot be read: {reason}"))
            }
        }
    }
}

/// Who reads takes all of it: a file has one position.
struct State {
    bytes: Bytes,
    /// What may still be unpacked, over all reads.
    left: u64,
}

/// The names in an archive, and its bytes.
struct Inner {
    state: Mutex<State>,
    compression: Compression,
    /// What may be unpacked at once.
    limit: u64,
    entries: HashMap<String, Entry>,
}

impl Inner {
    fn scan(mut bytes: Bytes, limit: u64) -> Result<Self, ReadError> {
        let of = |error: io::Error| ReadError::of(&error);
        let mut head = [0; 8];
        let compression = {
            let mut reader = reader(&mut bytes).map_err(of)?;
            let read = reader.read(&mut head).map_err(of)?;
            Compression::of(&head[..read])
        };
        let mut entries = HashMap::new();
        {
            let mut reader = reader(&mut bytes).map_err(of)?;
            let mut left = limit;
            match compression {
                Compression::None => {
                    let mut archive = tar::Archive::new(reader);
                    list(archive.entries_with_seek().map_err(of)?, &mut entries)?;
                }
                packed => {
                    let inner = packed.decoder(BufReader::new(&mut reader));
                    let mut archive = tar::Archive::new(Limited { inner, left: &mut left });
                    list(archive.entries().map_err(of)?, &mut entries)?;
                }
            }
        }
        let state = Mutex::new(State { bytes, left: limit.saturating_mul(READS) });
        Ok(Self { state, compression, limit, entries })
    }

    /// Where a file is, through links within the archive.
    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            match self.entries.get(name)? {
                Entry::File { at, size } => return Some((*at, *size)),
                Entry::Link(target) => name = target,
            }
        }
        None
    }

    /// Does `work` with the bytes of a file.
    fn with<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut dyn Read) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let of = |error: io::Error| ReadError::of(&error);
        let (at, size) = self.find(name).ok_or(ReadError::NotThere)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { bytes, left } = &mut *state;
        let mut reader = reader(bytes).map_err(of)?;
        if self.compression == Compression::None {
            reader.seek(SeekFrom::Start(at)).map_err(of)?;
            return work(&mut reader.take(size));
        }
        let inner = self.compression.decoder(BufReader::new(reader));
        let mut unpacked = Limited { inner, left };
        io::copy(&mut (&mut unpacked).take(at), &mut io::sink()).map_err(of)?;
        work(&mut unpacked.take(size))
    }

    /// A whole file, at most `limit` bytes of it; where `is_unpacked`, without the compression that it
    /// may have.
    fn read(&self, name: &str, is_unpacked: bool, limit: u64) -> Result<Vec<u8>, ReadError> {
        self.with(name, |reader| {
            let mut bytes = Vec::new();
            let mut reader = match is_unpacked {
                true => unpacked(reader)?,
                false => Box::new(reader),
            };
            (&mut reader)
                .take(limit.saturating_add(1))
                .read_to_end(&mut bytes)
                .map_err(|error| ReadError::of(&error))?;
            match bytes.len() as u64 > limit {
                true => Err(ReadError::TooLarge(limit)),
                false => Ok(bytes),
            }
        })
    }

    /// The size of a file without the compression that it may have.
    fn unpacked_size(&self, name: &str) -> Result<u64, ReadError> {
        let (_, size) = self.find(name).ok_or(ReadError::NotThere)?;
        self.with(name, |mut reader| {
            let mut head = Vec::new();
            let of = |error: io::Error| ReadError::of(&error);
            (&mut reader).take(8).read_to_end(&mut head).map_err(of)?;
            // Most are not compressed: their size is known.
            let compression = Compression::of(&head);
            if compression == Compression::None {
                return Ok(size);
            }
            let whole = BufReader::new(Cursor::new(head).chain(reader));
            let reader = compression.decoder(whole);
            let counted = io::copy(&mut reader.take(self.limit.saturating_add(1)), &mut io::sink());
            match counted.map_err(of)? {
                size if size > self.limit => Err(ReadError::TooLarge(self.limit)),
                size => Ok(size),
            }
        })
    }
}

trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A reader from the start.
fn reader(bytes: &mut Bytes) -> io::Result<Box<dyn ReadSeek + '_>> {
    match bytes {
        Bytes::File(file) => {
            file.seek(SeekFrom::Start(0))?;
            Ok(Box::new(BufReader::new(file)))
        }
        Bytes::Memory(bytes) => Ok(Box::new(Cursor::new(bytes.as_slice()))),
    }
}

fn unpacked<'r>(mut reader: &'r mut dyn Read) -> Result<Box<dyn Read + 'r>, ReadError> {
    let mut head = Vec::new();
    (&mut reader).take(8).read_to_end(&mut head).map_err(|error| ReadError::of(&error))?;
    let compression = Compression::of(&head);
    Ok(compression.decoder(BufReader::new(Cursor::new(head).chain(reader))))
}

/// The names in an archive. Of two that are the same, the last counts, as when it is unpacked.
fn list<'a, R: Read + 'a>(
    found: tar::Entries<'a, R>,
    entries: &mut HashMap<String, Entry>,
) -> Result<(), ReadError> {
    for (count, entry) in found.enumerate() {
        let entry = entry.map_err(|error| ReadError::of(&error))?;
        if count >= MAX_ENTRIES {
            return Err(ReadError::Broken(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let name = entry.path_bytes();
        if name.len() > MAX_NAME_BYTES {
            return Err(ReadError::Broken(format!("it has a name of {} bytes", name.len())));
        }
        let name = normal(&String::from_utf8_lossy(&name));
        let link = || entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned());
        let found = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                Some(Entry::File { at: entry.raw_file_position(), size: entry.size() })
            }
            EntryType::Link => link().map(|target| Entry::Link(normal(&target))),
            EntryType::Symlink => link().map(|target| {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Entry::Link(normal(&format!("{folder}/{target}")))
            }),
            // Directories, devices, and sparse files, whose bytes are not in one piece.
            _ => None,
        };
        if let Some(found) = found {
            entries.insert(name, found);
        }
    }
    Ok(())
}

/// A path from the root of the archive, out of which `..` does not lead.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// An archive with images in it.
pub(crate) struct Archive {
    /// As typed, for messages.
    path: PathBuf,
    inner: Arc<Inner>,
    kind: SourceKind,
    /// The layers of an image that has no manifest of its own: by digest, the name in the archive.
    layers: HashMap<Digest, String>,
}

impl Archive {
    /// Reads the names in the archive. `path` is how it is called.
    pub(crate) async fn open(
        path: &Path,
        bytes: Bytes,
        options: &FetchOptions,
    ) -> Result<Self, ImageError> {
        let shown = path.display().to_string();
        let limit = unpacked_limit(options.max_module_bytes.saturating_mul(LAYERS));
        let scan = move || Inner::scan(bytes, limit).map_err(|e| e.into_image_error(shown));
        let inner = blocking(scan).await?;
        let kind = match inner.entries.contains_key("index.json") {
            true => SourceKind::OciArchive,
            false => SourceKind::DockerArchive,
        };
        let path = path.to_owned();
        Ok(Self { path, inner: Arc::new(inner), kind, layers: HashMap::new() })
    }

    /// The image that the selector names; without one, the only image that there is.
    pub(crate) async fn select(
        &mut self,
        selector: Option<&Selector>,
    ) -> Result<Named, ImageError> {
        let has_docker = self.inner.entries.contains_key(docker_archive::MANIFEST);
        if self.kind == SourceKind::DockerArchive {
            if !has_docker {
                return Err(self.no_image());
            }
            return self.select_docker(selector).await;
        }
        let version = self.document_named("oci-layout").await?;
        check_version(&version, self.shown("oci-layout"))?;
        let index = self.document_named("index.json").await?;
        let name = self.shown("index.json");
        let form = "oci-archive:FILE:TAG";
        let named = LayoutIndex { content: &*self, path: &self.path, form, index, name }
            .select(selector)
            .await?;
        // Docker's own store keeps layers uncompressed and saves them so, in a layout, too; it would
        // push another image than that.
        if has_docker && is_uncompressed(&named, &self.name()) && is_name(selector) {
            self.kind = SourceKind::DockerArchive;
            return self.select_docker(selector).await;
        }
        Ok(named)
    }

    async fn index(&self) -> Result<Option<Vec<u8>>, ImageError> {
        match self.kind {
            SourceKind::OciArchive => self.document_named("index.json").await.map(Some),
            _ => Ok(None),
        }
    }

    async fn select_docker(&mut self, selector: Option<&Selector>) -> Result<Named, ImageError> {
        let list = self.document_named(docker_archive::MANIFEST).await?;
        let image = docker_archive::choose(&list, &self.path, selector)?;
        let config = self.document_named(&image.config).await?;
        let mut sizes = Vec::new();
        for layer in &image.layers {
            sizes.push(self.unpacked_size(layer).await?);
        }
        let synthesis = docker_archive::manifest(&image, &config, &sizes, &self.name())?;
        self.layers = synthesis.blobs;
        let digest = Digest::sha256(&synthesis.manifest);
        Ok(Named {
            bytes: synthesis.manifest,
            digest,
            pinned: None,
            verify: crate::timing::PhaseTime::default(),
        })
    }

    fn no_image(&self) -> ImageError {
        let reason = match self.inner.entries.keys().any(|name| name.ends_with(".wasm")) {
            true => {
                "is an archive of files, not of an image: it has neither `index.json` nor `manifest.json`"
            }
            false => {
                "is an archive without an image: it has neither `index.json` nor `manifest.json`"
            }
        };
        ImageError::NotAnImage {
            path: self.path.clone(),
            reason: reason.into(),
            help: "name the .wasm file itself, or an archive of `docker save`, `skopeo copy` or `buildah push`".into(),
        }
    }

    fn shown(&self, name: &str) -> String {
        format!("{} in {}", one_line(name), self.path.display())
    }

    /// A small file of the archive.
    async fn document_named(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let what = self.shown(name);
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || {
            let read = inner.read(&name, false, MAX_DOCUMENT_BYTES);
            read.map_err(|error| error.into_image_error(what))
        })
        .await
    }

    async fn unpacked_size(&self, name: &str) -> Result<u64, ImageError> {
        let what = self.shown(name);
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || inner.unpacked_size(&name).map_err(|error| error.into_image_error(what)))
            .await
    }

    /// Where a blob is in the archive, and whether it is unpacked on its way.
    fn blob_name(&self, digest: &Digest) -> (String, bool) {
        match self.layers.get(digest) {
            Some(name) => (name.clone(), true),
            None => (format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()), false),
        }
    }
}

fn is_name(selector: Option<&Selector>) -> bool {
    !matches!(selector, Some(Selector::Digest(_)))
}

fn is_uncompressed(named: &Named, what: &str) -> bool {
    match manifest::parse(&named.bytes, what) {
        Ok(Document::Manifest(manifest)) => {
            manifest.layers.iter().any(|layer| layer.media_type == UNCOMPRESSED_LAYER)
        }
        _ => false,
    }
}

impl Content for Archive {
    fn kind(&self) -> SourceKind {
        self.kind
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn has_manifests(&self) -> bool {
        self.kind != SourceKind::DockerArchive
    }

    fn stores_layers_uncompressed(&self) -> bool {
        self.kind == SourceKind::DockerArchive
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let (name, _) = self.blob_name(&descriptor.digest);
        self.document_named(&name).await
    }

    async fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(index) = self.index().await? else { return Ok(None) };
        match layout_index::tagged(&index, &self.shown("index.json"), tag)? {
            Some(entry) => self.document(&entry).await.map(Some),
            None => Ok(None),
        }
    }

    async fn referrers(&self, _digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        self.index().await
    }

    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError> {
        let what = content::blob_name(descriptor);
        let (name, is_unpacked) = self.blob_name(&descriptor.digest);
        if let Some((_, size)) = self.inner.find(&name).filter(|_| !is_unpacked) {
            sink.announce(size)?;
        }
        let (inner, limit) = (Arc::clone(&self.inner), descriptor.size);
        let read = move || match inner.read(&name, is_unpacked, limit) {
            Err(ReadError::TooLarge(_)) => Ok(None),
            Err(error) => Err(error.into_image_error(what)),
            Ok(bytes) => Ok(Some(bytes)),
        };
        match blocking(read).await? {
            Some(bytes) => sink.write_whole(bytes),
            None => Err(sink.size_mismatch(descriptor.size.saturating_add(1))),
        }
    }
}
