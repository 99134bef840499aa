//! Compiled modules in a store, so that a module is compiled once and not at every check.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use wasmtime::{Engine, Module};

use super::engine::{Build, Compiler, shared_engine};
use crate::store::{Compiled, Store};

/// What a store has of one module in compiled form.
#[derive(Debug, Clone)]
pub struct Artifacts {
    store: Arc<Store>,
    module_sha256: String,
}

impl Artifacts {
    /// Of the module with this SHA-256, in lowercase hex. The caller has computed it of the very
    /// bytes that are to be compiled.
    pub fn new(store: &Arc<Store>, module_sha256: &str) -> Self {
        Self { store: Arc::clone(store), module_sha256: module_sha256.to_owned() }
    }

    /// The name of what comes out when `engine`, of `asked`, is to compile the module. Winch and its
    /// substitute have one name: what decides between them is the module. The engine's hash has the
    /// version of wasmtime, the engine's configuration, and the CPU's features in it.
    fn name(&self, asked: Compiler, engine: &Engine) -> String {
        // Its keys are fixed. Another release of Rust may come to another hash, and compile anew.
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{}-{asked}-{:016x}", self.module_sha256, hasher.finish())
    }

    /// The module as it was compiled before, where it was, and by which compiler. `engine` is that of
    /// `asked`.
    #[allow(unsafe_code)]
    pub(super) fn load(&self, asked: Build, engine: &Engine) -> Option<(Compiler, Module)> {
        let name = self.name(asked.compiler, engine);
        let Compiled { file, compiler } = self.store.compiled(&name)?;
        let is_asked = compiler == asked.compiler.as_str();
        let ran = if is_asked { asked.compiler } else { Compiler::CraneliftFast };
        let engine = shared_engine(Build { compiler: ran, ..asked }).ok()?;
        // SAFETY: wasmtime wants code that it compiled itself and that does not change. This program
        // wrote it, into a folder which only this user can write to, as the store has checked; its
        // digest is what it was then. A file of the store is replaced, and never written to again.
        match unsafe { Module::deserialize_open_file(&engine, file) } {
            Ok(module) => Some((ran, module)),
            Err(error) => {
                self.store.discard_compiled(&name, &format!("{error:#}"));
                None
            }
        }
    }

    /// Keeps what `ran` made of the module where `asked`, of `engine`, was asked to.
    pub(super) fn keep(&self, asked: Compiler, engine: &Engine, ran: Compiler, module: &Module) {
        let module = module.clone();
        self.store.keep_compiled(self.name(asked, engine), ran.as_str(), move || {
            module.serialize().map_err(std::io::Error::other)
        });
    }
}
