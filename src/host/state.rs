//! What the host keeps for one instance of a module.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wasmtime::{ResourceLimiter, TypedFunc};

use crate::{
    abi::{AbiVersion, HOST_FUNCTIONS, Namespace, Status},
    target::{Release, Target},
};

use super::{
    context::{Context, ContextKind, StreamState},
    counters::{Boundary, Meter},
    logging::LogSink,
    memory::GuestMemory,
    pending::{Pending, Scheduled},
    process::Process,
    reentry::Reentrant,
    trace::Trace,
};

/// The plugin configuration under which a module runs.
#[derive(Debug, Clone, Default)]
pub struct Plugin {
    /// The plugin's name in Envoy's configuration.
    pub name: String,
    /// Which of the module's filters.
    pub root_id: String,
    /// Names the VM; instances with one `vm_id` share data and queues.
    pub vm_id: String,
    /// The bytes of the plugin configuration.
    pub configuration: Vec<u8>,
    /// The bytes of the VM configuration.
    pub vm_configuration: Vec<u8>,
    /// `vm_config.environment_variables.key_values`, which WASI shows. Envoy's order is that of a
    /// hash table, and differs between releases; here it is that of the names.
    pub environment_variables: BTreeMap<String, String>,
    /// `capability_restriction_config.allowed_capabilities`; without one everything is allowed.
    pub allowed_capabilities: Vec<String>,
    /// `allow_on_headers_stop_iteration`: a headers callback may stop the headers alone.
    pub allow_on_headers_stop_iteration: bool,
}

/// Host functions that Envoy does not restrict.
const UNRESTRICTABLE: &[&str] =
    &["pthread_equal", "emscripten_notify_memory_growth", "envoy_resolve_dns"];

impl Plugin {
    /// The same plugin with this root_id.
    pub fn with_root_id(&self, root_id: &str) -> Self {
        Self { root_id: root_id.to_owned(), ..self.clone() }
    }

    /// Whether Envoy lets a module use a host function or callback of this name.
    pub fn allows(&self, capability: &str) -> bool {
        self.allowed_capabilities.is_empty()
            || self.allowed_capabilities.iter().any(|allowed| allowed == capability)
    }

    /// The host functions that are restricted, over [`HOST_FUNCTIONS`].
    fn restricted(&self) -> u128 {
        let restricted = |name| !UNRESTRICTABLE.contains(&name) && !self.allows(name);
        let functions = HOST_FUNCTIONS.iter().enumerate();
        functions
            .filter(|(_, function)| restricted(function.name))
            .fold(0, |set, (index, _)| set | 1 << index)
    }
}

/// What a module is doing, which decides what the host lets it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The start section and segments, while the module is instantiated. Envoy has given itself
    /// neither a memory nor a context yet, so that a host function which needs one kills it.
    Instantiate,
    /// `_initialize`, `_start`, `main`: only the start allow-list.
    Start,
    /// An allocation that the host asked for: only the allocation allow-list.
    Malloc,
    /// Anything else: everything.
    Free,
}

/// Why a host function ended the guest's run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostTrap {
    /// Called while it is not allowed; Envoy's own word for it.
    #[error("restricted_callback")]
    Restricted {
        /// `env.proxy_get_property`.
        function: String,
    },
    /// Envoy itself would die here.
    #[error("{0}")]
    CrashesEnvoy(String),
    /// The callback ran over its time.
    #[error("the callback ran over its time")]
    Interrupted,
    /// A limit that keeps filtergate itself safe.
    #[error("filtergate's limit reached: {0}")]
    Limit(String),
}

impl HostTrap {
    /// The trap in `error` that ends a whole callback even where a nested call met it: anything but
    /// a trap of the guest's own and a restricted call.
    pub fn beyond_the_guest(error: &wasmtime::Error) -> Option<Self> {
        if error.downcast_ref::<wasmtime::Trap>() == Some(&wasmtime::Trap::Interrupt) {
            return Some(Self::Interrupted);
        }
        match error.downcast_ref::<Self>() {
            None | Some(Self::Restricted { .. }) => None,
            Some(trap) => Some(trap.clone()),
        }
    }
}

/// How a host function ends before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this result code or errno.
    Code(u32),
    /// By ending the guest's run.
    Trap(HostTrap),
}

impl From<Status> for Exit {
    fn from(status: Status) -> Self {
        Self::Code(status as u32)
    }
}

impl From<HostTrap> for Exit {
    fn from(trap: HostTrap) -> Self {
        Self::Trap(trap)
    }
}

/// `Ok(())` is result code 0.
pub type HostResult<T = ()> = Result<T, Exit>;

/// Work that waits for the end of the outermost call into the guest
/// (`DeferAfterCallActions` in proxy-wasm-cpp-host `src/context.cc`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deferred {
    /// Go on with the request side of this stream.
    ContinueRequest(u32),
    /// Go on with the response side of this stream.
    ContinueResponse(u32),
    /// Reset this stream.
    CloseStream(u32),
    /// Let through what was held of this connection's client.
    ContinueDownstream(u32),
    /// Close this connection.
    CloseConnection(u32),
    /// Answer this stream with the reply kept in its state.
    LocalReply(u32),
    /// The root context whose shutdown is done.
    RootDone(u32),
    /// Tell the module that a gRPC call or stream failed in the call that was to begin it.
    CallFailed(Box<Scheduled>),
}

/// Why the VM is failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmFailure {
    /// The export that trapped.
    pub function: String,
    /// The trap's text as Envoy has it.
    pub reason: String,
}

/// Memory and table limits of one store.
#[derive(Debug, Clone)]
pub struct StoreLimits {
    /// Bytes that one memory may have.
    pub memory_bytes: usize,
    /// Elements that one table may have.
    pub table_elements: usize,
    /// The largest size asked for and refused at creation, for the message.
    pub refused: Option<String>,
    /// The largest size that a memory reached, bytes.
    pub peak_memory_bytes: usize,
    /// Bytes of all memories now.
    pub memory_bytes_now: usize,
}

impl ResourceLimiter for StoreLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.memory_bytes;
        if allowed {
            self.peak_memory_bytes = self.peak_memory_bytes.max(desired);
            self.memory_bytes_now += desired.saturating_sub(current);
        } else if current == 0 {
            self.refused = Some(format!(
                "the module asks for {} pages of memory, the limit is {}",
                desired >> 16,
                self.memory_bytes >> 16
            ));
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements)
    }

    // Modules may have many memories and tables; each is limited, and V8 limits none of these.
    fn instances(&self) -> usize {
        1 << 16
    }

    fn memories(&self) -> usize {
        1 << 10
    }

    fn tables(&self) -> usize {
        1 << 10
    }
}

/// Everything that the host knows while a guest runs: the data of its store.
pub struct HostState {
    /// Memory and table limits.
    pub limits: StoreLimits,
    /// The ABI version by the marker.
    pub abi: AbiVersion,
    /// The plugin.
    pub plugin: Plugin,
    /// What the guest is doing.
    pub phase: Phase,
    /// Functions that may be called in [`Phase::Start`], over [`HOST_FUNCTIONS`].
    pub start_allowed: u128,
    /// The same for [`Phase::Malloc`].
    pub malloc_allowed: u128,
    /// Functions that the plugin's capabilities leave out, over [`HOST_FUNCTIONS`].
    pub restricted: u128,
    /// What the Envoy release does in its own way.
    pub release: &'static Release,
    /// The memory that the host reads and writes.
    pub memory: Option<GuestMemory>,
    /// `malloc` or `proxy_on_memory_allocate`.
    pub allocator: Option<TypedFunc<u32, u32>>,
    /// The allocator's export name.
    pub allocator_name: &'static str,
    /// Contexts by id; 0 is the VM's.
    pub contexts: BTreeMap<u32, Context>,
    /// The id that the next context gets.
    pub next_context: u32,
    /// How many calls into the guest have begun.
    pub call_number: u64,
    /// The context of the callback that runs; `None` outside of one.
    pub current: Option<u32>,
    /// What `proxy_set_effective_context` chose; 0 is "the current one".
    pub effective: u32,
    /// The plugin whose configuration can be read, while it is being configured.
    pub configuring: bool,
    /// Set by `proxy_send_local_response` until the running callback ends.
    pub stop_iteration: bool,
    /// What waits for the end of the outermost call.
    pub deferred: Vec<Deferred>,
    /// Set by the first trap; a failed VM is called no more.
    pub failed: Option<VmFailure>,
    /// Callbacks that the host calls from within a call of the guest's.
    pub reentrant: Reentrant,
    /// The first trap of a function that the host called from within a call of the guest's, and its
    /// name.
    pub nested_trap: Option<(&'static str, wasmtime::Error)>,
    /// Log lines of the guest.
    pub logs: LogSink,
    /// What all instances share.
    pub process: Arc<Process>,
    /// Calls of each host function, over [`HOST_FUNCTIONS`].
    pub calls: Box<[u64]>,
    /// Whether `plugin_root_id` was read.
    pub read_root_id: bool,
    /// The id that the next metric of each class gets.
    pub metric_ids: super::metrics::MetricIds,
    /// Status code and message for `proxy_get_status`.
    pub call_status: (u32, Vec<u8>),
    /// The foreign functions without a model here that the guest called.
    pub foreign_not_modelled: BTreeSet<&'static str>,
    /// Calls that have not come back.
    pub pending: Pending,
    /// Which of the process's instances this is.
    pub instance: u32,
    /// Bytes that the guest made the host keep for good.
    pub host_bytes: usize,
    /// Bytes that the guest made the host keep until the running stream ends.
    pub stream_bytes: usize,
    /// What was copied and allocated.
    pub boundary: Boundary,
    /// What crosses the boundary, where that is wanted.
    pub trace: Option<Box<Trace>>,
    /// What each callback costs, where that is wanted.
    pub meter: Option<Box<Meter>>,
}

/// What a guest may make the host keep in header maps, bodies, shared data and the like.
const MAX_HOST_BYTES: usize = 64 << 20;

impl HostState {
    /// The state of an instance that is about to be made.
    pub fn new(
        limits: StoreLimits,
        abi: AbiVersion,
        target: &Target,
        plugin: Plugin,
        process: Arc<Process>,
    ) -> Self {
        Self {
            limits,
            abi,
            restricted: plugin.restricted(),
            plugin,
            phase: Phase::Instantiate,
            start_allowed: target.start_allow_list(),
            malloc_allowed: target.malloc_allow_list(),
            release: target.release(),
            memory: None,
            allocator: None,
            allocator_name: "malloc",
            contexts: BTreeMap::new(),
            next_context: 1,
            current: None,
            effective: 0,
            call_number: 0,
            configuring: false,
            stop_iteration: false,
            deferred: Vec::new(),
            failed: None,
            reentrant: Reentrant::default(),
            nested_trap: None,
            logs: LogSink::default(),
            calls: vec![0; HOST_FUNCTIONS.len()].into(),
            read_root_id: false,
            metric_ids: Default::default(),
            call_status: (0, Vec::new()),
            foreign_not_modelled: BTreeSet::new(),
            pending: Pending::default(),
            instance: process.next_instance(),
            process,
            host_bytes: 0,
            stream_bytes: 0,
            boundary: Boundary::default(),
            trace: None,
            meter: None,
        }
    }

    /// Takes note of a call of the host function with this index, and refuses it where Envoy does.
    /// What the phase forbids ends the run; what the capabilities leave out only fails.
    #[inline]
    pub fn enter(&mut self, index: usize) -> HostResult {
        self.calls[index] += 1;
        if self.phase == Phase::Free && self.restricted == 0 {
            return Ok(());
        }
        self.enter_within_limits(index)
    }

    fn enter_within_limits(&mut self, index: usize) -> HostResult {
        let allowed = match self.phase {
            Phase::Free | Phase::Instantiate => u128::MAX,
            Phase::Start => self.start_allowed,
            Phase::Malloc => self.malloc_allowed,
        };
        let function = &HOST_FUNCTIONS[index];
        if allowed & (1 << index) != 0 {
            if self.restricted & (1 << index) == 0 {
                return Ok(());
            }
            self.context_id()?;
            /// `__WASI_ENOTCAPABLE`.
            const NOT_CAPABLE: u32 = 76;
            return Err(match function.namespace {
                Namespace::Env => Status::InternalFailure.into(),
                Namespace::Wasi => Exit::Code(NOT_CAPABLE),
            });
        }
        let module = function.namespace.modules().last().copied().unwrap_or_default();
        Err(HostTrap::Restricted { function: format!("{module}.{}", function.name) }.into())
    }

    /// The restricted functions that the guest called, each with the line that Envoy logs.
    pub fn restricted_calls(&self) -> impl Iterator<Item = (&'static str, String)> {
        let called = HOST_FUNCTIONS
            .iter()
            .enumerate()
            .filter(|(index, _)| self.calls[*index] > 0 && self.restricted & (1 << *index) != 0);
        called.map(|(_, function)| {
            let kind = match function.namespace {
                Namespace::Env => "proxy-wasm",
                Namespace::Wasi => "WASI",
            };
            let name = function.name;
            (name, format!("Attempted call to restricted {kind} capability: {name}"))
        })
    }

    /// The context that host functions act on: the effective one if it was chosen and still
    /// exists, else the current one (`contextOrEffectiveContext`).
    pub fn context_id(&self) -> HostResult<u32> {
        if self.effective != 0 && self.contexts.contains_key(&self.effective) {
            return Ok(self.effective);
        }
        self.current.ok_or_else(|| {
            HostTrap::CrashesEnvoy(
                "a host function was called from the start section, before Envoy has a context for it: \
                 Envoy dies of a segmentation fault"
                    .to_owned(),
            )
            .into()
        })
    }

    /// The context that host functions act on.
    pub fn context(&mut self) -> HostResult<&mut Context> {
        let id = self.context_id()?;
        // The VM's context is always there.
        Ok(self.contexts.entry(id).or_insert_with(|| Context::new(ContextKind::Vm, 0)))
    }

    /// The root context of the one that host functions act on: itself, unless it is a stream's.
    pub fn root_id(&self) -> HostResult<u32> {
        let id = self.context_id()?;
        Ok(match self.contexts.get(&id) {
            Some(context) if context.kind == ContextKind::Stream => context.parent,
            _ => id,
        })
    }

    /// Whether this root asked for ticks.
    pub fn ticks(&self, root: u32) -> bool {
        self.contexts.get(&root).is_some_and(|context| context.tick_period_ms > 0)
    }

    /// The stream of the context that host functions act on.
    pub fn stream(&mut self) -> HostResult<Option<&mut StreamState>> {
        Ok(self.context()?.stream.as_deref_mut())
    }

    /// Allocates a context id; ids start at 1 and are not reused.
    fn add_context(&mut self, context: Context) -> u32 {
        let id = self.next_context;
        self.next_context += 1;
        self.contexts.insert(id, context);
        id
    }

    /// Begins a root context, and gives its id.
    pub fn begin_root(&mut self) -> u32 {
        self.add_context(Context::new(ContextKind::Root, 0))
    }

    /// Begins a stream under a root context, and gives its id.
    pub fn begin_stream(&mut self, root: u32, is_tcp: bool) -> u32 {
        let start_ns = self.process.now_ns().cast_signed();
        let mut context = Context::new(ContextKind::Stream, root);
        context.stream = Some(Box::new(StreamState { is_tcp, start_ns, ..StreamState::default() }));
        self.add_context(context)
    }

    /// Forgets a stream that is over, and gives what it was.
    pub fn end_stream(&mut self, id: u32) -> Option<Box<StreamState>> {
        self.stream_bytes = 0;
        self.contexts.remove(&id)?.stream
    }

    /// Counts bytes that the guest makes the host keep.
    pub fn charge(&mut self, bytes: usize) -> Result<(), HostTrap> {
        self.host_bytes = self.host_bytes.saturating_add(bytes);
        self.refuse_too_many_bytes()
    }

    /// Counts bytes that the host keeps until the stream ends.
    pub fn charge_stream(&mut self, bytes: usize) -> Result<(), HostTrap> {
        self.stream_bytes = self.stream_bytes.saturating_add(bytes);
        self.refuse_too_many_bytes()
    }

    fn refuse_too_many_bytes(&self) -> Result<(), HostTrap> {
        if self.host_bytes.saturating_add(self.stream_bytes) > MAX_HOST_BYTES {
            return Err(HostTrap::Limit(format!(
                "the module made the host keep more than {} MiB of headers, bodies and shared data",
                MAX_HOST_BYTES >> 20
            )));
        }
        Ok(())
    }
}
