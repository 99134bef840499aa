//! A store of the run's own, so that a load from the store can be measured wherever the user's store is,
//! and with none at all.

use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use crate::{image::Digest, store::Store, vm::Artifacts};

use super::{
    load::{LoadConditions, compile},
    phase::{Phase, PhaseClock},
};

/// A store in a temporary folder, which goes with it.
pub(super) struct RunStore {
    // Dropped before its folder.
    store: Arc<Store>,
    warnings: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

impl RunStore {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// In words, where there can be none.
    pub(super) fn new() -> Result<Self, String> {
        let failed = |why: String| format!("{why}; set TMPDIR to a folder that can be written");
        let folder = tempfile::Builder::new()
            .prefix("filtergate-bench-")
            .tempdir()
            .map_err(|error| failed(format!("no temporary folder: {error}")))?;
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&warnings);
        let store = Store::open(folder.path(), move |warning| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(warning.to_owned());
        });
        let store = store.map_err(|error| failed(error.to_string()))?;
        Ok(Self { store: Arc::new(store), warnings, _folder: folder })
    }

    /// Compiles a module into the store, so that the next load finds it there.
    ///
    /// # Errors
    ///
    /// In words, where the next load would not find it.
    pub(super) fn keep(
        &self,
        wasm: &[u8],
        conditions: &LoadConditions,
    ) -> Result<Artifacts, String> {
        let artifacts = Artifacts::new(&self.store, Digest::sha256(wasm).hex());
        let load = || {
            let mut clock = PhaseClock::default();
            let LoadConditions { target, vm, .. } = conditions;
            compile(wasm, target, vm, Some(&artifacts), &mut clock)
                .map(|_| clock.get(Phase::Artifact).is_some())
                .map_err(|error| error.to_string())
        };
        // Another subject may have the same module.
        if !load()? {
            self.store.finish();
            if !load()? {
                let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
                let why = warnings.last().map_or("nobody says why", String::as_str);
                return Err(format!("the compiled module is not found again: {why}"));
            }
        }
        Ok(artifacts)
    }
}
