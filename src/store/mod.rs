//! What is kept from one run to the next, by its content: manifests and blobs of images, compiled
//! modules, and which image they belong to.
//!
//! The store is a cache. Whatever goes wrong with it is said once and costs time, never a result:
//! what cannot be read is fetched again, and what cannot be written is not kept. It belongs to one
//! user. Nobody else can write to it, which is why compiled code from it is run; a damaged entry is
//! found by its digest and removed.
//!
//! An entry is written beside its place, synchronised and then renamed, so that another process sees
//! all of it or nothing, and one that is killed leaves a temporary file that [`Store::prune`] finds.

mod compiled;
mod draft;
mod folder;
mod shelf;
mod upkeep;

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use crate::{
    image::Digest,
    timing::{PhaseTime, timed},
};

pub(crate) use compiled::Compiled;
pub(crate) use draft::Draft;
pub(crate) use shelf::Shelf;
pub use upkeep::{Entry, Kind, Prune, Pruned, Verified};

/// The variable that names the store's folder.
pub const FOLDER_VARIABLE: &str = "FILTERGATE_CACHE";

/// More than this is not kept: what was not used for the longest time goes first.
pub const MAX_BYTES: u64 = 4 << 30;

/// What may wait to be kept: it holds modules and files.
const MAX_JOBS: usize = 16;

/// What is wrong with an entry whose digest is another.
const WRONG_DIGEST: &str = "its content is not what its digest says";

/// The layout of the folder. Another one gets another name, so that releases do not meet.
const LAYOUT: &str = "v1";

/// Programs that make backups leave folders with this file out (<https://bford.info/cachedir/>).
const CACHE_TAG: (&str, &str) = (
    "CACHEDIR.TAG",
    "Signature: 8a477f597d28d172789f06886806bc55\n# Written by filtergate; it can be deleted.\n",
);

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The environment names no folder for it.
    #[error(
        "no folder for the store: neither {FOLDER_VARIABLE} nor XDG_CACHE_HOME nor HOME is set"
    )]
    NoFolder,
    /// The folder cannot be made or looked at.
    #[error("the store {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The folder is not fit to hold code that is run.
    #[error("the store {}: {reason}", folder.display())]
    Unsafe {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    /// The next step for the user.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoFolder | Self::Io { .. } => {
                "set FILTERGATE_CACHE to a folder that can be written, or give --no-cache"
            }
            Self::Unsafe { .. } => {
                "make the folder this user's own and close it to others (`chmod 700`), set FILTERGATE_CACHE to another, or give --no-cache"
            }
        }
    }
}

/// Where content is kept.
pub struct Store {
    /// Canonical, so that no symbolic link is followed later.
    folder: PathBuf,
    warnings: Arc<Warnings>,
    /// Whether anything was added.
    grew: AtomicBool,
    clerk: Mutex<Option<Clerk>>,
}

/// What goes wrong with the store, for whoever wants to know.
struct Warnings {
    tell: Box<dyn Fn(&str) + Send + Sync>,
    folder: PathBuf,
    /// Whether it was said that nothing can be kept.
    complained: AtomicBool,
}

impl Warnings {
    /// Says, but only the first time, that something is not kept. Nothing depends on it.
    fn not_kept(&self, error: &io::Error) {
        tracing::debug!("the store: {error}");
        // Another process may have swept a temporary file away.
        if error.kind() != io::ErrorKind::NotFound && !self.complained.swap(true, Ordering::Relaxed)
        {
            let folder = self.folder.display();
            (self.tell)(&format!("cannot write to the store {folder}, nothing is kept: {error}"));
        }
    }
}

/// Does what nobody waits for.
struct Clerk {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

type Job = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Store {
    /// The folder that the environment names: `FILTERGATE_CACHE`, else `filtergate` in
    /// `XDG_CACHE_HOME`, else `~/.cache/filtergate`.
    ///
    /// # Errors
    ///
    /// Where none of the variables is set.
    pub fn folder_of_environment() -> Result<PathBuf, StoreError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(folder) = variable(FOLDER_VARIABLE) {
            return Ok(folder.into());
        }
        // The XDG base directory specification has relative paths ignored.
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|cache| cache.join("filtergate"))
            .ok_or(StoreError::NoFolder)
    }

    /// Opens the store in `folder`, which is made where it does not exist. `on_warning` is told what
    /// goes wrong later.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be made, or another user owns it or could write to it.
    pub fn open(
        folder: &Path,
        on_warning: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        folder::make_all(folder)?;
        let io = |source| StoreError::Io { folder: folder.to_owned(), source };
        let canonical = folder.canonicalize().map_err(io)?;
        folder::check(&canonical)?;
        let folder = canonical.join(LAYOUT);
        if folder::make(&folder)? {
            // Whoever makes backups without it only makes them larger.
            let _ = std::fs::write(folder.join(CACHE_TAG.0), CACHE_TAG.1);
        }
        folder::check(&folder)?;
        for part in Kind::FOLDERS {
            let part = folder.join(part);
            folder::make(&part)?;
            folder::check(&part)?;
        }
        let warnings = Warnings {
            tell: Box::new(on_warning),
            folder: folder.clone(),
            complained: AtomicBool::new(false),
        };
        Ok(Self {
            folder,
            warnings: Arc::new(warnings),
            grew: AtomicBool::new(false),
            clerk: Mutex::new(None),
        })
    }

    /// The folder with everything in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the blob of that digest is, if it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// The blob of that digest. One that is damaged or larger than `limit` is none. `verify` is the
    /// time that hashing it takes.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        limit: u64,
        verify: &mut PhaseTime,
    ) -> Option<Vec<u8>> {
        let path = self.blob_path(digest);
        let what = || format!("blob {digest}");
        let bytes = match read_all(self.open_entry(&path, what)?, limit) {
            Ok(bytes) => bytes?,
            Err(error) => {
                self.damaged(&path, &what(), &error.to_string());
                return None;
            }
        };
        if timed(verify, || digest.is_of(&bytes)) {
            return Some(bytes);
        }
        self.damaged(&path, &what(), WRONG_DIGEST);
        None
    }

    /// Keeps a blob, whose digest the caller has computed, before this returns; where it is.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn keep_blob(&self, digest: &Digest, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.blob_path(digest);
        let verify = &mut PhaseTime::default();
        if self.blob(digest, bytes.len() as u64, verify).is_none() {
            let mut draft = Draft::new(&path)?;
            draft.write(bytes)?;
            draft.publish()?;
            self.grew.store(true, Ordering::Relaxed);
        }
        Ok(path)
    }

    /// An entry's file, which is noted as used.
    fn open_entry(&self, path: &Path, what: impl FnOnce() -> String) -> Option<File> {
        match folder::open(path) {
            Ok(file) => {
                folder::note_use(&file);
                Some(file)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                None
            }
            Err(error) => {
                self.damaged(path, &what(), &error.to_string());
                None
            }
        }
    }

    /// Removes what cannot be used.
    fn damaged(&self, path: &Path, what: &str, reason: &str) {
        let _ = std::fs::remove_file(path);
        (self.warnings.tell)(&format!("{what} in the store is damaged and is made anew: {reason}"));
    }

    /// Does `job` on another thread: to synchronise a file with the disk takes milliseconds.
    fn later(&self, job: impl FnOnce() + Send + 'static) {
        let mut clerk = self.clerk.lock().unwrap_or_else(PoisonError::into_inner);
        if clerk.is_none() {
            let (jobs, todo) = sync_channel::<Job>(MAX_JOBS);
            let thread = std::thread::Builder::new().name("filtergate-store".to_owned());
            match thread.spawn(move || todo.into_iter().for_each(|job| job())) {
                Ok(thread) => *clerk = Some(Clerk { jobs, thread }),
                Err(error) => return self.warnings.not_kept(&error),
            }
        }
        let sender = clerk.as_ref().map(|clerk| clerk.jobs.clone());
        drop(clerk);
        let Some(sender) = sender else { return };
        match sender.try_send(Box::new(job)) {
            // The thread ends when the last sender goes, and not before.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            // Who brings more than can be kept in time, does it.
            Err(TrySendError::Full(job)) => job(),
        }
    }

    /// Waits until everything is kept, and removes what is too much. A verdict need not wait for it.
    pub fn finish(&self) {
        let clerk = self.clerk.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Clerk { jobs, thread }) = clerk {
            drop(jobs);
            let _ = thread.join();
        }
        if self.grew.swap(false, Ordering::Relaxed) {
            let prune = Prune { older_than: None, max_bytes: Some(MAX_BYTES) };
            if let Err(error) = self.prune(&prune) {
                tracing::debug!("{error}");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}

/// All of a file; `None` where it is larger than `limit`.
fn read_all(file: File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    if length > limit {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= limit))
}
