//! Folders and files that nobody else can have put there.

use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::StoreError;

/// A use so soon after the last is not noted again.
const USE_INTERVAL: Duration = Duration::from_secs(60);

fn failed(folder: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { folder: folder.to_owned(), source }
}

fn builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes a folder, and those that it is in.
pub fn make_all(folder: &Path) -> Result<(), StoreError> {
    builder().recursive(true).create(folder).map_err(failed(folder))
}

/// Makes a folder. Whether it was not there before.
pub fn make(folder: &Path) -> Result<bool, StoreError> {
    match builder().create(folder) {
        Ok(()) => Ok(true),
        // A file system that cannot be written may say so before it says that the folder is there.
        Err(_) if folder.symlink_metadata().is_ok() => Ok(false),
        Err(error) => Err(failed(folder)(error)),
    }
}

/// Refuses what is no folder, or belongs to another user, or is open to others.
pub fn check(folder: &Path) -> Result<(), StoreError> {
    let metadata = folder.symlink_metadata().map_err(failed(folder))?;
    let objection = match metadata.is_dir() {
        false if metadata.is_symlink() => Some("it is a symbolic link".to_owned()),
        false => Some("it is no folder".to_owned()),
        true => foreign(&metadata),
    };
    match objection {
        None => Ok(()),
        Some(reason) => Err(StoreError::Unsafe { folder: folder.to_owned(), reason }),
    }
}

/// Why a folder or file is not this user's alone.
#[cfg(unix)]
fn foreign(metadata: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me {
        return Some(format!(
            "it belongs to user {}, and this program runs as user {me}",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Some(format!(
            "others can write to it (mode {:03o}), and code from it is run",
            metadata.mode() & 0o777
        ));
    }
    None
}

#[cfg(not(unix))]
fn foreign(_metadata: &Metadata) -> Option<String> {
    None
}

/// Opens an entry to read it: a file, this user's own, at the end of no symbolic link.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let objection = match metadata.is_file() {
        true => foreign(&metadata),
        false => Some("it is no file".to_owned()),
    };
    match objection {
        None => Ok(file),
        Some(reason) => Err(io::Error::other(reason)),
    }
}

/// Makes the file's time of change that of its last use. Where that cannot be, it only goes sooner.
pub fn note_use(file: &File) {
    let now = SystemTime::now();
    let is_recent = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age < USE_INTERVAL));
    if !is_recent {
        let _ = file.set_modified(now);
    }
}
