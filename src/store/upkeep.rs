//! What is in the store, and getting rid of it.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Store, StoreError, WRONG_DIGEST, compiled, draft, folder};
use crate::image::Digest;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A manifest, config, layer or module, by its digest.
    Blob,
    /// A module, compiled by one compiler for one kind of CPU.
    Compiled,
    /// What an image of a repository is made of.
    Image,
}

impl Kind {
    /// The folders of entries, each after the one that it is in.
    pub(super) const FOLDERS: [&'static str; 5] =
        ["blobs", "blobs/sha256", "blobs/sha512", "artifacts", "images"];

    const OF_FOLDER: [(&'static str, Self); 4] = [
        ("blobs/sha256", Self::Blob),
        ("blobs/sha512", Self::Blob),
        ("artifacts", Self::Compiled),
        ("images", Self::Image),
    ];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Compiled => "compiled",
            Self::Image => "image",
        }
    }
}

/// Something in the store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// A blob's digest, the digest of the module that a compiled one was, or of the image.
    pub digest: Digest,
    /// The compiler that was asked for, of what is compiled.
    pub compiler: Option<String>,
    /// Bytes.
    pub bytes: u64,
    /// When it was last used, to within a minute.
    pub used: SystemTime,
    /// The references of images that it is part of, as far as is known.
    pub references: Vec<String>,
    /// Where it is.
    pub path: PathBuf,
}

/// What to remove. Without a condition it is everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prune {
    /// What was not used for so long.
    pub older_than: Option<Duration>,
    /// As much as it takes to come down to so many bytes, what was not used for longest first.
    pub max_bytes: Option<u64>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries.
    pub entries: usize,
    /// Files that a process which ended too soon had not finished.
    pub unfinished: usize,
    /// The bytes of the entries.
    pub bytes: u64,
    /// The bytes of what is still there.
    pub left_bytes: u64,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// Entries that are as they were written.
    pub intact: usize,
    /// Entries that are not, and why. They are removed.
    pub damaged: Vec<(Entry, String)>,
}

impl Store {
    /// All entries, those of images last, and what was used last first.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for (part, kind) in Kind::OF_FOLDER {
            let folder = self.folder().join(part);
            let failed = |source| StoreError::Io { folder: folder.clone(), source };
            for file in fs::read_dir(&folder).map_err(failed)? {
                // What another process removes meanwhile is not there.
                entries.extend(file.ok().and_then(|file| self.entry(&file.path(), part, kind)));
            }
        }
        let mut references: HashMap<String, BTreeSet<String>> = HashMap::new();
        for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::Image) {
            let Some(record) = self.record(&file_name(&entry.path)) else { continue };
            if let Ok(digest) = record.digest.parse() {
                entry.digest = digest;
            }
            for digest in record.holds {
                references.entry(digest).or_default().extend(record.names.iter().cloned());
            }
            entry.references = record.names.into_iter().collect();
        }
        for entry in entries.iter_mut().filter(|entry| entry.kind != Kind::Image) {
            let names = references.get(&entry.digest.to_string());
            entry.references =
                names.map(|names| names.iter().cloned().collect()).unwrap_or_default();
        }
        entries.sort_by(|a, b| (a.kind, b.used, &a.path).cmp(&(b.kind, a.used, &b.path)));
        Ok(entries)
    }

    /// A file as an entry, if its name is one's.
    fn entry(&self, path: &Path, part: &str, kind: Kind) -> Option<Entry> {
        let metadata = path.symlink_metadata().ok()?;
        let name = file_name(path);
        let (algorithm, hex, compiler) = match kind {
            Kind::Blob => (part.rsplit('/').next()?, name.as_str(), None),
            Kind::Compiled => {
                let (module, compiler) = name.split_once('-')?;
                let (compiler, _) = compiler.rsplit_once('-')?;
                ("sha256", module, Some(compiler.to_owned()))
            }
            Kind::Image => ("sha256", name.as_str(), None),
        };
        Some(Entry {
            kind,
            digest: format!("{algorithm}:{hex}").parse().ok()?,
            compiler,
            bytes: metadata.len(),
            used: metadata.modified().ok()?,
            references: Vec::new(),
            path: path.to_owned(),
        })
    }

    /// Removes entries, and what processes that were killed have left unfinished.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be read.
    pub fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned { unfinished: self.sweep(), ..Pruned::default() };
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.used);
        let mut left: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let now = SystemTime::now();
        let everything = prune.older_than.is_none() && prune.max_bytes.is_none();
        for entry in entries {
            let age = now.duration_since(entry.used).unwrap_or_default();
            let goes = everything
                || prune.older_than.is_some_and(|limit| age > limit)
                || prune.max_bytes.is_some_and(|limit| left > limit);
            if goes && fs::remove_file(&entry.path).is_ok() {
                left -= entry.bytes;
                pruned.entries += 1;
                pruned.bytes += entry.bytes;
            }
        }
        pruned.left_bytes = left;
        Ok(pruned)
    }

    /// Removes temporary files that nobody writes to any more; how many.
    fn sweep(&self) -> usize {
        let folders = Kind::OF_FOLDER.iter().map(|(part, _)| self.folder().join(part));
        folders
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(Result::ok)
            .filter(|file| file.file_name().to_string_lossy().starts_with(draft::PREFIX))
            .filter(|file| draft::sweep(&file.path()))
            .count()
    }

    /// Compares every entry with its digest, and removes what differs.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be read.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        for entry in self.entries()? {
            match self.verify_entry(&entry) {
                Ok(()) => verified.intact += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let mut reason = error.to_string();
                    if let Err(error) = fs::remove_file(&entry.path) {
                        reason = format!("{reason}; it cannot be removed: {error}");
                    }
                    verified.damaged.push((entry, reason));
                }
            }
        }
        Ok(verified)
    }

    fn verify_entry(&self, entry: &Entry) -> io::Result<()> {
        let mut file = folder::open(&entry.path)?;
        let name = file_name(&entry.path);
        let is_intact = match entry.kind {
            Kind::Blob => entry.digest.is_of_all(file)?,
            Kind::Compiled => compiled::verify(&mut file, &name).map(|_| true)?,
            Kind::Image => self.record(&name).is_some_and(|record| record.is_named(&name)),
        };
        if is_intact { Ok(()) } else { Err(io::Error::other(WRONG_DIGEST)) }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
