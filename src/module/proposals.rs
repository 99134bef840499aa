//! Wasm proposals beyond WebAssembly 2.0, and which of them a module needs.

use wasmparser::{Validator, WasmFeatures};

/// A wasm proposal that an engine may have on or off.
#[derive(Debug)]
pub struct Proposal {
    /// Its name, as its repository under github.com/WebAssembly has it.
    pub name: &'static str,
    /// The validator's switch for it.
    pub features: WasmFeatures,
    /// The V8 version, major and minor, that has it on by default first; `None` where none has.
    pub v8_since: Option<(u16, u16)>,
}

const fn proposal(
    name: &'static str,
    features: WasmFeatures,
    v8_since: Option<(u16, u16)>,
) -> Proposal {
    Proposal { name, features, v8_since }
}

/// The proposals. The versions are those of V8's `src/wasm/wasm-feature-flags.h`, where each
/// proposal says when it shipped; memory64 and exception-handling have the version of the Chrome
/// release that has them on. Envoy sets no flag that changes them.
pub static PROPOSALS: &[Proposal] = &[
    proposal("threads", WasmFeatures::THREADS, Some((7, 4))),
    proposal("legacy-exceptions", WasmFeatures::LEGACY_EXCEPTIONS, Some((9, 5))),
    proposal("tail-call", WasmFeatures::TAIL_CALL, Some((11, 2))),
    proposal("extended-const", WasmFeatures::EXTENDED_CONST, Some((11, 4))),
    proposal("relaxed-simd", WasmFeatures::RELAXED_SIMD, Some((11, 4))),
    proposal("function-references", WasmFeatures::FUNCTION_REFERENCES, Some((11, 9))),
    proposal("gc", WasmFeatures::GC, Some((11, 9))),
    proposal("multi-memory", WasmFeatures::MULTI_MEMORY, Some((12, 0))),
    proposal("memory64", WasmFeatures::MEMORY64, Some((13, 3))),
    proposal("exception-handling", WasmFeatures::EXCEPTIONS, Some((13, 7))),
    proposal("stack-switching", WasmFeatures::STACK_SWITCHING, None),
    proposal("shared-everything-threads", WasmFeatures::SHARED_EVERYTHING_THREADS, None),
    proposal("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC, None),
    proposal("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES, None),
    proposal("memory-control", WasmFeatures::MEMORY_CONTROL, None),
];

/// What V8 takes of WebAssembly: 2.0, which every V8 of the tables has on, and all proposals that
/// some V8 of the tables has on.
pub(super) fn newest_v8() -> WasmFeatures {
    PROPOSALS
        .iter()
        .filter(|proposal| proposal.v8_since.is_some())
        .fold(WasmFeatures::WASM2, |all, proposal| all | proposal.features)
}

/// The proposals that a module, valid for the newest V8, cannot do without.
pub fn needed_proposals(bytes: &[u8]) -> Vec<&'static Proposal> {
    let is_valid = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    if is_valid(WasmFeatures::WASM2) {
        return Vec::new();
    }
    PROPOSALS
        .iter()
        .filter(|proposal| proposal.v8_since.is_some())
        .filter(|proposal| !is_valid(newest_v8().difference(proposal.features)))
        .collect()
}
