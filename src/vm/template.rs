//! A compiled and linked module.

use std::{sync::Arc, time::Duration};

use wasmtime::{Engine, InstancePre, Linker, Module, Store, Trap as WasmtimeTrap};

use crate::{
    abi::AbiVersion,
    bench::{Phase, PhaseClock},
    host::{GuestMemory, HostState, HostTrap, Plugin, Process, StoreLimits, define_imports},
    module::{self, Facts},
    target::Target,
    timing::Stopwatch,
};

use super::{
    artifacts::Artifacts,
    engine::{Build, Compiler, shared_engine},
    instance::Instance,
    ticker::Ticker,
    time_limit::TimeLimit,
};

/// How guests run.
#[derive(Debug, Clone)]
pub struct VmOptions {
    /// The compiler to try first; what Winch does not take goes to Cranelift.
    pub compiler: Compiler,
    /// The CPU time that one callback may take.
    pub callback_timeout: Duration,
    /// Whether every call across the boundary is kept.
    pub trace: bool,
    /// Whether the fuel that guests use is counted, which makes them slower.
    pub fuel: bool,
    /// Whether a module may be compiled on all cores. Where other modules keep the cores busy, to share
    /// each with all of them takes longer.
    pub parallel: bool,
}

impl Default for VmOptions {
    fn default() -> Self {
        Self {
            compiler: Compiler::Winch,
            callback_timeout: Duration::from_secs(1),
            trace: false,
            fuel: false,
            parallel: true,
        }
    }
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module is not valid for Envoy's engine.
    #[error("{0}")]
    Invalid(module::Invalid),
    /// Envoy's engine takes the module, and no compiler here does.
    #[error("{0}")]
    Unsupported(String),
    /// This machine cannot run guests.
    #[error("{0}")]
    Machine(String),
}

/// Code above this size is compiled on all cores: below it, starting the threads takes longer than they save.
const PARALLEL_CODE_BYTES: u64 = 32 << 10;

/// Fuel of an instance whose fuel is counted: more than it can use.
const FUEL: u64 = u64::MAX;

/// Elements that one table may have, V8's limit.
const MAX_TABLE_ELEMENTS: usize = 10_000_000;

/// A compiled and linked module, ready to be instantiated any number of times.
pub struct Template {
    module: Module,
    /// Ready where the module imports functions only.
    pre: Option<InstancePre<HostState>>,
    linker: Linker<HostState>,
    facts: Arc<Facts>,
    abi: AbiVersion,
    target: Target,
    compiler: Compiler,
    time_limit: TimeLimit,
    trace: bool,
    fuel: bool,
    _ticker: Ticker,
}

/// Why a module could not be instantiated.
#[derive(Debug)]
pub struct InstantiateError {
    /// What kind of failure.
    pub kind: InstantiateErrorKind,
    /// The reason in one line.
    pub message: String,
    /// V8's line for a trap in the start section, which the embedder prints without a level.
    pub trap: Option<super::Trap>,
}

/// The kinds of [`InstantiateError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstantiateErrorKind {
    /// Envoy says `Failed to create new Wasm instance`.
    Refused,
    /// The start section does not end.
    Timeout,
    /// Envoy would die.
    CrashesEnvoy,
    /// Only filtergate's own limits stand against it.
    Limit,
}

impl Template {
    /// Compiles and links `bytes`, whose static check found nothing against it. With `artifacts`,
    /// which have to be those of `bytes`, what was compiled before is not compiled again: then there
    /// is a [`Phase::Artifact`] and no [`Phase::Compile`].
    ///
    /// The compiler validates as it goes, so that a valid module is validated once.
    ///
    /// # Errors
    ///
    /// See [`CompileError`].
    pub fn compile(
        bytes: &[u8],
        facts: Facts,
        abi: AbiVersion,
        target: &Target,
        options: &VmOptions,
        artifacts: Option<&Artifacts>,
        clock: &mut PhaseClock,
    ) -> Result<Self, CompileError> {
        let parallel = options.parallel && facts.code_bytes > PARALLEL_CODE_BYTES;
        // What counts fuel is of use to nobody else.
        let artifacts = artifacts.filter(|_| !options.fuel);
        let asked = Build { compiler: options.compiler, parallel, fuel: options.fuel };
        let (compiler, module) = obtain(bytes, asked, artifacts, clock)?;
        clock.measure(Phase::Link, || {
            let ticker = Ticker::start(module.engine()).map_err(|error| {
                CompileError::Machine(format!("no thread for time limits: {error}"))
            })?;
            let mut linker = Linker::new(module.engine());
            define_imports(&mut linker, &facts).map_err(machine)?;
            let only_functions = facts.imports.iter().all(|import| import.kind.func().is_some());
            let pre = if only_functions {
                Some(linker.instantiate_pre(&module).map_err(machine)?)
            } else {
                None
            };
            Ok(Self {
                module,
                pre,
                linker,
                facts: Arc::new(facts),
                abi,
                target: target.clone(),
                compiler,
                time_limit: TimeLimit::new(options.callback_timeout),
                trace: options.trace,
                fuel: options.fuel,
                _ticker: ticker,
            })
        })
    }

    /// The compiler that ran.
    pub fn compiler(&self) -> Compiler {
        self.compiler
    }

    /// Bytes of machine code that the module became.
    pub fn text_bytes(&self) -> u64 {
        self.module.text().len() as u64
    }

    /// The module's sections.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The target under which it runs.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Makes it run under another target: what is compiled does not depend on it.
    pub fn set_target(&mut self, target: &Target) {
        self.target = target.clone();
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.module.engine()
    }

    fn state(&self, plugin: Plugin, process: Arc<Process>) -> HostState {
        let limits = StoreLimits {
            memory_bytes: usize::try_from(self.target.max_memory_bytes()).unwrap_or(usize::MAX),
            table_elements: MAX_TABLE_ELEMENTS,
            refused: None,
            peak_memory_bytes: 0,
            memory_bytes_now: 0,
        };
        let mut state = HostState::new(limits, self.abi, &self.target, plugin, process);
        state.trace = self.trace.then(Default::default);
        state
    }

    /// Instantiates the module: memories, segments and the start section. Nothing else runs yet.
    ///
    /// # Errors
    ///
    /// See [`InstantiateError`].
    pub fn instantiate(
        &self,
        plugin: Plugin,
        process: Arc<Process>,
    ) -> Result<Instance, Box<InstantiateError>> {
        let mut store = Store::new(self.engine(), self.state(plugin, process));
        store.limiter(|state| &mut state.limits);
        self.time_limit.apply(&mut store);
        if self.fuel {
            // An engine that counts fuel always takes some.
            let _ = store.set_fuel(FUEL);
        }
        let mut imported_memory = None;
        let instantiated = match &self.pre {
            Some(pre) => pre.instantiate(&mut store),
            None => self
                .imports_of_store(&mut store, &mut imported_memory)
                .and_then(|linker| linker.instantiate(&mut store, &self.module)),
        };
        match instantiated {
            Ok(instance) => Ok(Instance::new(
                store,
                instance,
                &self.module,
                imported_memory,
                self.time_limit,
                self.fuel.then_some(FUEL),
            )),
            Err(error) => Err(Box::new(instantiate_error(&error, store.data()))),
        }
    }

    /// Memories and tables that the module imports: the host makes one of each with the module's
    /// own limits (proxy-wasm-cpp-host `src/v8/v8.cc`, `link`).
    fn imports_of_store(
        &self,
        store: &mut Store<HostState>,
        memory: &mut Option<GuestMemory>,
    ) -> wasmtime::Result<Linker<HostState>> {
        let mut linker = self.linker.clone();
        for import in self.module.imports() {
            match import.ty() {
                wasmtime::ExternType::Memory(ty) => {
                    let made = wasmtime::Memory::new(&mut *store, ty)?;
                    linker.define(&mut *store, import.module(), import.name(), made)?;
                    *memory = Some(GuestMemory::Plain(made));
                }
                wasmtime::ExternType::Table(ty) => {
                    let null = wasmtime::Ref::null(ty.element().heap_type());
                    let made = wasmtime::Table::new(&mut *store, ty, null)?;
                    linker.define(&mut *store, import.module(), import.name(), made)?;
                }
                _ => {}
            }
        }
        Ok(linker)
    }
}

fn machine(error: wasmtime::Error) -> CompileError {
    CompileError::Machine(format!("{error:#}"))
}

/// The module as it was compiled before, or compiled now, and by which compiler.
fn obtain(
    bytes: &[u8],
    asked: Build,
    artifacts: Option<&Artifacts>,
    clock: &mut PhaseClock,
) -> Result<(Compiler, Module), CompileError> {
    // Other images may be checked beside this one, unless it has all cores.
    let watch = if asked.parallel { Stopwatch::process() } else { Stopwatch::thread() };
    let engine = shared_engine(asked).map_err(machine)?;
    if let Some(found) = artifacts.and_then(|artifacts| artifacts.load(asked, &engine)) {
        clock.add(Phase::Artifact, watch.elapsed());
        return Ok(found);
    }
    let compiled = compile(bytes, asked, &engine);
    clock.add(Phase::Compile, watch.elapsed());
    if let (Ok((ran, module)), Some(artifacts)) = (&compiled, artifacts) {
        artifacts.keep(asked.compiler, &engine, *ran, module);
    }
    compiled
}

fn compile(
    bytes: &[u8],
    asked: Build,
    engine: &Engine,
) -> Result<(Compiler, Module), CompileError> {
    let first = match Module::from_binary(engine, bytes) {
        Ok(module) => return Ok((asked.compiler, module)),
        Err(error) => error,
    };
    // Either the module is bad, or it needs what the compiler lacks.
    module::validate(bytes, module::Engine::EnvoyV8).map_err(CompileError::Invalid)?;
    let unsupported = |error| CompileError::Unsupported(format!("{error:#}"));
    if asked.compiler != Compiler::Winch {
        return Err(unsupported(first));
    }
    let substitute = Build { compiler: Compiler::CraneliftFast, ..asked };
    let engine = shared_engine(substitute).map_err(unsupported)?;
    let module = Module::from_binary(&engine, bytes).map_err(unsupported)?;
    Ok((substitute.compiler, module))
}

fn instantiate_error(error: &wasmtime::Error, state: &HostState) -> InstantiateError {
    let trap = super::Trap::new("start section", error);
    let is_trap = error.is::<WasmtimeTrap>() || error.is::<HostTrap>();
    let kind = match &trap.kind {
        super::TrapKind::Timeout => InstantiateErrorKind::Timeout,
        super::TrapKind::CrashesEnvoy(_) => InstantiateErrorKind::CrashesEnvoy,
        super::TrapKind::Limit(_) => InstantiateErrorKind::Limit,
        _ => InstantiateErrorKind::Refused,
    };
    let message = match (&state.limits.refused, &trap.kind) {
        (Some(refused), _) => refused.clone(),
        (None, super::TrapKind::Guest(_)) if !trap.backtrace.is_empty() => {
            format!("the start section trapped: {}", trap.reason())
        }
        (None, super::TrapKind::Guest(text)) if is_trap => match text.as_str() {
            "Uncaught RuntimeError: memory access out of bounds" => {
                "a data segment lies outside the memory".to_owned()
            }
            "Uncaught RuntimeError: table index is out of bounds" => {
                "an element segment lies outside its table".to_owned()
            }
            text => text.to_owned(),
        },
        (None, super::TrapKind::Guest(_)) => format!("{error:#}"),
        (None, super::TrapKind::Timeout) => "the start section does not end".to_owned(),
        (None, _) => trap.reason(),
    };
    InstantiateError { kind, message, trap: is_trap.then_some(trap) }
}
