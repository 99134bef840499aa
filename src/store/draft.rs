//! An entry that is being written.

use std::{
    fs::TryLockError,
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// How the names of temporary files begin. No entry's does.
pub const PREFIX: &str = ".draft-";

/// A file beside the place that it is for. Without [`Draft::publish`] it is removed.
pub(crate) struct Draft {
    file: NamedTempFile,
    place: PathBuf,
}

impl Draft {
    pub(crate) fn new(place: &Path) -> io::Result<Self> {
        let folder = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder)?;
        // Tells those that sweep that somebody is still writing. A file system that knows no locks
        // has no parallel writers either, or loses a draft, which is only not kept then.
        match file.as_file().try_lock() {
            Ok(()) | Err(TryLockError::Error(_) | TryLockError::WouldBlock) => {}
        }
        Ok(Self { file, place: place.to_owned() })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Begins again.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.as_file().set_len(0)?;
        self.file.rewind()
    }

    /// Makes the file the entry.
    pub(crate) fn publish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.place).map_err(|failed| failed.error)?;
        Ok(())
    }
}

/// Removes a temporary file that nobody writes to any more. Whether it is gone.
pub fn sweep(path: &Path) -> bool {
    let is_stale = super::folder::open(path).is_ok_and(|file| match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    });
    is_stale && std::fs::remove_file(path).is_ok()
}
