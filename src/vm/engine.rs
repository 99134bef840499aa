//! Engine configuration: the fast one for the gate, the optimising one for the bench.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use wasmtime::{
    Collector, Config, Engine as WasmtimeEngine, OptLevel, RegallocAlgorithm, Strategy,
};

use crate::module::{Engine, engine_features};

/// Which compiler runs, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compiler {
    /// The baseline compiler, for the gate.
    Winch,
    /// Cranelift without optimisation and with the one-pass register allocator, for what Winch does
    /// not take.
    CraneliftFast,
    /// Cranelift with full optimisation, for the bench.
    CraneliftSpeed,
}

impl Compiler {
    /// The name in reports and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Winch => "winch",
            Self::CraneliftFast => "cranelift-fast",
            Self::CraneliftSpeed => "cranelift",
        }
    }

    fn engine(self) -> Engine {
        match self {
            Self::Winch => Engine::Winch,
            Self::CraneliftFast | Self::CraneliftSpeed => Engine::Cranelift,
        }
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Stack that a guest may use. V8 gives about 1 MB, and the baseline compiler's frames are larger
/// than V8's.
const GUEST_STACK_BYTES: usize = 2 << 20;

/// Frames in a backtrace, as Envoy's `--stack-trace-limit`.
const BACKTRACE_FRAMES: usize = 20;

/// An engine for `compiler`. `parallel` pays off above some ten KiB of code.
///
/// # Errors
///
/// Where the compiler does not support this machine.
pub fn build_engine(compiler: Compiler, parallel: bool) -> wasmtime::Result<WasmtimeEngine> {
    WasmtimeEngine::new(&config(compiler, parallel))
}

/// How an engine is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Build {
    pub compiler: Compiler,
    pub parallel: bool,
    /// Whether fuel is counted: the code is larger and slower.
    pub fuel: bool,
}

/// Engines are kept: to build one takes as long as to run a small module.
static ENGINES: Mutex<Option<HashMap<Build, WasmtimeEngine>>> = Mutex::new(None);

/// The process's engine of this build.
///
/// # Errors
///
/// As [`build_engine`].
pub(super) fn shared_engine(build: Build) -> wasmtime::Result<WasmtimeEngine> {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let engines = engines.get_or_insert_default();
    if let Some(engine) = engines.get(&build) {
        return Ok(engine.clone());
    }
    let mut config = config(build.compiler, build.parallel);
    config.consume_fuel(build.fuel);
    let engine = WasmtimeEngine::new(&config)?;
    engines.insert(build, engine.clone());
    Ok(engine)
}

fn config(compiler: Compiler, parallel: bool) -> Config {
    let mut config = Config::new();
    let features = engine_features(compiler.engine());
    config.wasm_features(!features & wasmparser::WasmFeatures::WASM3, false);
    config.wasm_features(features, true);
    config
        .strategy(match compiler {
            Compiler::Winch => Strategy::Winch,
            Compiler::CraneliftFast | Compiler::CraneliftSpeed => Strategy::Cranelift,
        })
        .parallel_compilation(parallel)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES))
        .shared_memory(true)
        .native_unwind_info(false);
    if compiler == Compiler::CraneliftSpeed {
        config.cranelift_opt_level(OptLevel::Speed);
    } else {
        // Under Winch these are for the trampolines, which Cranelift makes.
        config.cranelift_opt_level(OptLevel::None);
        config.cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
    }
    if compiler != Compiler::Winch {
        config.collector(Collector::Null);
    }
    config
}
