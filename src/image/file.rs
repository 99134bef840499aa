//! Plain files, and reading files in general: once, bounded, and never from anything that is not a
//! regular file.

use super::archive::Bytes;
use super::compression::{Compression, is_tar};
use super::error::could_be_reference;
use super::{FetchOptions, Image, ImageError, SourceKind};
use crate::timing::{PhaseTime, Stopwatch, timed};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a file or standard input holds, decided by its beginning.
pub(crate) enum Opened {
    Module(Module),
    Archive(Bytes),
}

/// A module that is in no image. Its content is not looked at.
pub(crate) struct Module {
    wasm: Vec<u8>,
    kind: SourceKind,
    fetch: PhaseTime,
}

impl Module {
    pub(crate) fn into_image(self, reference: &str) -> Image {
        let mut verify = PhaseTime::default();
        let image = timed(&mut verify, || Image::of_module(reference, self.wasm));
        Image { kind: self.kind, fetch: self.fetch, verify, ..image }
    }
}

/// Opens a file, and reads it unless it is an archive.
pub(crate) fn open(path: &Path, options: &FetchOptions) -> Result<Opened, ImageError> {
    let limit = options.max_module_bytes;
    let watch = Stopwatch::thread();
    let (mut file, length) = open_regular(path)?;
    // An archive may be larger than a module.
    let mut head = buffer(if length <= limit { length } else { ARCHIVE_HEAD });
    let read = (&mut file).take(ARCHIVE_HEAD).read_to_end(&mut head);
    read.map_err(|error| io_error(path, error))?;
    if is_archive(&head) {
        return Ok(Opened::Archive(Bytes::File(file)));
    }
    let wasm = read_rest(head, file, length, path, &path.display().to_string(), limit)?;
    let kind = SourceKind::File;
    Ok(Opened::Module(Module { wasm, kind, fetch: watch.elapsed() }))
}

/// Reads standard input, at most as much as a module may have.
pub(crate) async fn stdin(options: &FetchOptions) -> Result<Opened, ImageError> {
    let limit = options.max_module_bytes;
    blocking(move || {
        let watch = Stopwatch::thread();
        let mut wasm = Vec::new();
        let what = Path::new("standard input");
        let read = io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut wasm);
        read.map_err(|error| io_error(what, error))?;
        if wasm.len() as u64 > limit {
            let what = what.display().to_string();
            return Err(ImageError::TooLarge { what, limit, actual: None });
        }
        if is_archive(&wasm) {
            return Ok(Opened::Archive(Bytes::Memory(wasm)));
        }
        let kind = SourceKind::Stdin;
        Ok(Opened::Module(Module { wasm, kind, fetch: watch.elapsed() }))
    })
    .await
}

/// Opens a file that is said to be an archive.
pub(crate) fn archive(path: &Path) -> Result<Bytes, ImageError> {
    Ok(Bytes::File(open_regular(path)?.0))
}

/// As much of a file as shows whether it is an archive, also of one that is compressed.
const ARCHIVE_HEAD: u64 = 64 << 10;

/// Whether a file is a tar archive, which may be compressed. A module may be, too, and is none.
fn is_archive(head: &[u8]) -> bool {
    let head = &head[..head.len().min(ARCHIVE_HEAD as usize)];
    let mut unpacked = Vec::new();
    // What is cut here is no error: the beginning has been unpacked.
    let _ = Compression::of(head).decoder(head).take(512).read_to_end(&mut unpacked);
    is_tar(&unpacked)
}

/// Runs work that blocks on a thread where that does no harm.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // It is never cancelled, so it panicked: go on panicking in the caller.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads the whole of a regular file, unless it is larger than `limit`.
pub(crate) fn read_bounded(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
    let (file, length) = open_regular(path)?;
    read_rest(buffer(length.min(limit)), file, length, path, what, limit)
}

/// Opens a regular file; it and its length.
fn open_regular(path: &Path) -> Result<(File, u64), ImageError> {
    let unreadable = |error: io::Error| io_error(path, error);
    // Asked before opening, as to open a device or a FIFO can already do something.
    check_regular(path, &std::fs::metadata(path).map_err(unreadable)?)?;
    let file = open_file(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_regular(path, &metadata)?;
    Ok((file, metadata.len()))
}

/// Space for a file: one byte more than its length saves a reallocation at the end of it.
fn buffer(length: u64) -> Vec<u8> {
    Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1))
}

/// Reads what comes behind `bytes`, the beginning of a file of this length.
fn read_rest(
    mut bytes: Vec<u8>,
    file: File,
    length: u64,
    path: &Path,
    what: &str,
    limit: u64,
) -> Result<Vec<u8>, ImageError> {
    let too_large = |actual| ImageError::TooLarge { what: what.into(), limit, actual };
    if length > limit {
        return Err(too_large(Some(length)));
    }
    // One byte more than the limit shows a file that grows.
    file.take(limit.saturating_add(1).saturating_sub(bytes.len() as u64))
        .read_to_end(&mut bytes)
        .map_err(|error| io_error(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(None));
    }
    Ok(bytes)
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A FIFO that was put there in the meantime must not make this wait for a writer.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

fn check_regular(path: &Path, metadata: &std::fs::Metadata) -> Result<(), ImageError> {
    if metadata.is_file() {
        return Ok(());
    }
    let (reason, help) = if metadata.is_dir() {
        (
            "is a directory without an `oci-layout` file",
            match could_be_reference(path) {
                true => format!(
                    "name a .wasm file or an OCI layout directory; if it is the name of an image in a registry, write oci://{}",
                    path.display()
                ),
                false => "name a .wasm file or an OCI layout directory".into(),
            },
        )
    } else {
        ("is not a regular file", "copy its content to a file first".to_owned())
    };
    Err(ImageError::NotAnImage { path: path.into(), reason: reason.into(), help })
}

pub(crate) fn io_error(path: &Path, error: io::Error) -> ImageError {
    let path = PathBuf::from(path);
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ImageError::FileNotFound { path },
        _ => ImageError::Unreadable { path, reason: error.to_string() },
    }
}
