//! Which wasm proposals Envoy's engine takes, which ours does, and validation under each set.

use wasmparser::{BinaryReaderError, Validator, WasmFeatures};

use super::proposals::newest_v8;

/// A set of proposals that belongs to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The newest V8 that Envoy is built with. What an older one lacks is the target's to say.
    EnvoyV8,
    /// wasmtime with the Cranelift compiler.
    Cranelift,
    /// wasmtime with the Winch compiler.
    Winch,
}

/// Why a module is no valid module for an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at offset {offset:#x})")]
pub struct Invalid {
    /// The validator's words.
    pub message: String,
    /// Where in the file.
    pub offset: usize,
}

impl From<BinaryReaderError> for Invalid {
    fn from(error: BinaryReaderError) -> Self {
        Self { message: error.message().to_owned(), offset: error.offset() }
    }
}

const WASM2_AND_WIDELY_USED: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::THREADS);

/// The proposals that `engine` takes.
pub fn engine_features(engine: Engine) -> WasmFeatures {
    match engine {
        Engine::EnvoyV8 => newest_v8(),
        Engine::Cranelift => {
            WASM2_AND_WIDELY_USED
                | WasmFeatures::RELAXED_SIMD
                | WasmFeatures::TAIL_CALL
                | WasmFeatures::FUNCTION_REFERENCES
                | WasmFeatures::GC
                | WasmFeatures::GC_TYPES
                | WasmFeatures::EXCEPTIONS
        }
        Engine::Winch => WASM2_AND_WIDELY_USED.difference(WasmFeatures::GC_TYPES),
    }
}

/// Validates all of `bytes`, function bodies too.
///
/// # Errors
///
/// The first thing that `engine` would refuse.
pub fn validate(bytes: &[u8], engine: Engine) -> Result<(), Invalid> {
    Validator::new_with_features(engine_features(engine)).validate_all(bytes)?;
    Ok(())
}
