//! What of the store one image is made of.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use serde::{Deserialize, Serialize};

use super::{Draft, Store};
use crate::{image::Digest, timing::PhaseTime};

/// Names under which an image was asked for that are kept.
const MAX_NAMES: usize = 16;
/// A larger record is nobody's.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Which content an image of a repository is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The repository with its registry's host.
    pub repository: String,
    /// The digest that a reference resolved to.
    pub digest: String,
    /// The references that did.
    pub names: BTreeSet<String>,
    /// The digests of manifests and blobs.
    pub holds: BTreeSet<String>,
}

impl Record {
    /// Whether the file of this name is its own.
    pub(super) fn is_named(&self, name: &str) -> bool {
        record_name(&self.repository, &self.digest) == name
    }
}

/// What the store has of one image.
///
/// Only what came from the same repository is taken for it: that another one had a blob says nothing
/// of whether this one has it.
pub(crate) struct Shelf {
    store: Arc<Store>,
    /// As it is in the store.
    before: Record,
    now: Mutex<Record>,
}

impl Shelf {
    /// The shelf of the image `digest` in `repository`.
    pub(crate) fn new(store: &Arc<Store>, repository: &str, digest: &Digest) -> Self {
        let digest = digest.to_string();
        let before = store
            .record(&record_name(repository, &digest))
            // The name is a digest of these two; a record that says otherwise is not believed.
            .filter(|record| record.repository == repository && record.digest == digest)
            .unwrap_or_else(|| Record {
                repository: repository.to_owned(),
                digest,
                ..Record::default()
            });
        let now = Mutex::new(before.clone());
        Self { store: Arc::clone(store), before, now }
    }

    /// A manifest or blob of the image. It is verified.
    pub(crate) fn get(
        &self,
        digest: &Digest,
        limit: u64,
        verify: &mut PhaseTime,
    ) -> Option<Vec<u8>> {
        match self.before.holds.contains(&digest.to_string()) {
            true => self.store.blob(digest, limit, verify),
            false => None,
        }
    }

    /// Begins to keep a manifest or blob.
    pub(crate) fn draft(&self, digest: &Digest) -> Option<Draft> {
        match Draft::new(&self.store.blob_path(digest)) {
            Ok(draft) => Some(draft),
            Err(error) => {
                self.store.warnings.not_kept(&error);
                None
            }
        }
    }

    /// Keeps a draft that was verified, when there is time.
    pub(crate) fn keep(&self, digest: &Digest, draft: Draft) {
        self.with_record(|record| record.holds.insert(digest.to_string()));
        self.store.publish_later(draft);
    }

    /// Says that a draft came to nothing.
    pub(crate) fn give_up(&self, error: &std::io::Error) {
        self.store.warnings.not_kept(error);
    }

    /// Keeps a manifest that was verified, if the image's record does not have it yet.
    pub(crate) fn put_unless_there(&self, digest: &Digest, bytes: &[u8]) {
        let is_known = self.before.holds.contains(&digest.to_string());
        if !is_known || !self.store.blob_path(digest).exists() {
            self.put(digest, bytes);
        }
    }

    /// Keeps the whole of a manifest or blob that was verified.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) {
        let Some(mut draft) = self.draft(digest) else { return };
        match draft.write(bytes) {
            Ok(()) => self.keep(digest, draft),
            Err(error) => self.give_up(&error),
        }
    }

    /// Notes that the image holds a module of this digest, wherever it is in it.
    pub(crate) fn note_module(&self, digest: &Digest) {
        self.with_record(|record| record.holds.insert(digest.to_string()));
    }

    fn with_record<T>(&self, work: impl FnOnce(&mut Record) -> T) -> T {
        work(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what the image was made of, and that it was asked for as `name`.
    pub(crate) fn finish(&self, name: &str) {
        let record = self.with_record(|record| {
            if record.names.len() < MAX_NAMES {
                record.names.insert(name.to_owned());
            }
            record.clone()
        });
        if record == self.before {
            return;
        }
        let path = self.store.record_path(&record_name(&record.repository, &record.digest));
        let written = serde_json::to_vec(&record).map_err(std::io::Error::other).and_then(|json| {
            let mut draft = Draft::new(&path)?;
            draft.write(&json).map(|()| draft)
        });
        match written {
            // After the blobs, which wait in the same line.
            Ok(draft) => self.store.publish_later(draft),
            Err(error) => self.store.warnings.not_kept(&error),
        }
    }
}

fn record_name(repository: &str, digest: &str) -> String {
    Digest::sha256(format!("{repository}@{digest}").as_bytes()).hex().to_owned()
}

impl Store {
    fn record_path(&self, name: &str) -> std::path::PathBuf {
        self.folder.join("images").join(name)
    }

    /// A record. What is none is not there.
    pub(super) fn record(&self, name: &str) -> Option<Record> {
        let file = self.open_entry(&self.record_path(name), || format!("image record {name}"))?;
        let bytes = super::read_all(file, MAX_RECORD_BYTES).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(super) fn publish_later(&self, draft: Draft) {
        let warnings = Arc::clone(&self.warnings);
        self.grew.store(true, Ordering::Relaxed);
        self.later(move || {
            if let Err(error) = draft.publish() {
                warnings.not_kept(&error);
            }
        });
    }
}
