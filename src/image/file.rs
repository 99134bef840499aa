//! Plain files, and reading files in general: once, bounded, and never from anything that is not a
//! regular file.

use super::digest::Digest;
use super::error::could_be_reference;
use super::{FetchOptions, Image, ImageError, Shape, SourceKind};
use crate::timing::{PhaseTime, Stopwatch, timed};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A module in a plain file. Its content is not looked at.
pub(crate) async fn fetch(
    path: &Path,
    reference: &str,
    options: &FetchOptions,
) -> Result<Image, ImageError> {
    let path = path.to_owned();
    let limit = options.max_module_bytes;
    let (wasm, wasm_sha256, fetch, verify) = blocking(move || {
        let watch = Stopwatch::thread();
        let wasm = read_bounded(&path, &path.display().to_string(), limit)?;
        let fetch = watch.elapsed();
        let mut verify = PhaseTime::default();
        let digest = timed(&mut verify, || Digest::sha256(&wasm));
        Ok((wasm, digest.hex().to_owned(), fetch, verify))
    })
    .await?;
    Ok(Image {
        reference: reference.into(),
        kind: SourceKind::File,
        shape: Shape::File,
        named_digest: None,
        manifest_digest: None,
        wasm,
        wasm_sha256,
        module_place: None,
        runtime_config: None,
        config_place: None,
        consumers: Vec::new(),
        notes: Vec::new(),
        fetch,
        verify,
    })
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
    let too_large = |actual| ImageError::TooLarge { what: what.into(), limit, actual };
    let unreadable = |error: io::Error| io_error(path, error);
    // Asked before opening, as to open a device or a FIFO can already do something.
    check_regular(path, &std::fs::metadata(path).map_err(unreadable)?)?;
    let file = open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_regular(path, &metadata)?;
    if metadata.len() > limit {
        return Err(too_large(Some(metadata.len())));
    }
    // One byte more than the limit shows a file that grows; one more than the length saves a
    // reallocation at the end of it.
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(None));
    }
    Ok(bytes)
}

fn open(path: &Path) -> io::Result<File> {
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
