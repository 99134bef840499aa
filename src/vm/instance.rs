//! One run of a module.

use std::collections::VecDeque;

use wasmtime::{
    Extern, Instance as WasmtimeInstance, Module, Store, TypedFunc, WasmParams, WasmResults,
};

use crate::{
    abi::{ALLOCATORS, AbiVersion},
    host::{
        Boundary, CallOutcome, CallbackCost, Context, ContextKind, Counters, Deferred, GuestMemory,
        HostState, Meter, Metered, Phase, Reentrant, VmFailure, Words,
    },
    timing::Stopwatch,
};

use super::{time_limit::TimeLimit, trap::Trap};

type CallResponse = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// The callbacks that a module exports, with the types that its ABI gives them.
#[allow(missing_docs, reason = "the names are the ABI's own, less `proxy_`")]
#[derive(Clone, Default)]
pub struct Callbacks {
    pub on_vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub on_configure: Option<TypedFunc<(u32, u32), u32>>,
    pub on_tick: Option<TypedFunc<u32, ()>>,
    pub on_queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    pub on_http_call_response: Option<CallResponse>,
    pub on_grpc_receive_initial_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub on_grpc_receive: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub on_grpc_receive_trailing_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub on_grpc_close: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub on_resolve_dns: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub on_context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub on_request_headers: Option<Headers>,
    pub on_request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub on_request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub on_request_metadata: Option<TypedFunc<(u32, u32), u32>>,
    pub on_response_headers: Option<Headers>,
    pub on_response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub on_response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    pub on_response_metadata: Option<TypedFunc<(u32, u32), u32>>,
    pub on_new_connection: Option<TypedFunc<u32, u32>>,
    pub on_downstream_data: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub on_upstream_data: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub on_downstream_connection_close: Option<TypedFunc<(u32, u32), ()>>,
    pub on_upstream_connection_close: Option<TypedFunc<(u32, u32), ()>>,
    pub on_done: Option<TypedFunc<u32, u32>>,
    pub on_log: Option<TypedFunc<u32, ()>>,
    pub on_delete: Option<TypedFunc<u32, ()>>,
}

/// A headers callback: ABI 0.1.0 is not told the end of the stream.
#[derive(Clone)]
pub enum Headers {
    /// 0.1.0.
    V0_1(TypedFunc<(u32, u32), u32>),
    /// 0.2.x.
    V0_2(TypedFunc<(u32, u32, u32), u32>),
}

/// A call that failed the VM.
#[derive(Debug)]
pub struct CallFailure<R> {
    /// The first trap.
    pub trap: Box<Trap>,
    /// What the callback returned, where only the allocator trapped.
    pub returned: Option<R>,
}

/// What the end of an outermost call leaves to its caller.
#[derive(Debug, Default)]
pub struct EndOfCall {
    /// What waited for it.
    pub deferred: Vec<Deferred>,
    /// The trap of a callback that was told of a failed call.
    pub trap: Option<Box<Trap>>,
}

/// What a meter read before a callback.
enum Reading {
    Counters(Counters),
    Clock(Stopwatch),
}

/// One run of a module: its store and its callbacks.
pub struct Instance {
    store: Store<HostState>,
    instance: WasmtimeInstance,
    callbacks: Callbacks,
    time_limit: TimeLimit,
    /// What it was given at the beginning, where fuel is counted.
    fuel: Option<u64>,
}

impl Instance {
    pub(super) fn new(
        mut store: Store<HostState>,
        instance: WasmtimeInstance,
        module: &Module,
        imported_memory: Option<GuestMemory>,
        time_limit: TimeLimit,
        fuel: Option<u64>,
    ) -> Self {
        let mut memory = imported_memory;
        for export in module.exports() {
            match instance.get_export(&mut store, export.name()) {
                Some(Extern::Memory(exported)) => memory = Some(GuestMemory::Plain(exported)),
                Some(Extern::SharedMemory(exported)) => {
                    memory = Some(GuestMemory::Shared(exported));
                }
                _ => {}
            }
        }
        let abi = store.data().abi;
        let callbacks = Callbacks::of(&instance, &mut store, abi);
        let allocator = ALLOCATORS.iter().find_map(|allocator| {
            let function = instance.get_typed_func(&mut store, allocator.name).ok()?;
            Some((function, allocator.name))
        });
        let state = store.data_mut();
        state.memory = memory;
        if let Some((function, name)) = allocator {
            (state.allocator, state.allocator_name) = (Some(function), name);
        }
        state.reentrant = Reentrant {
            on_resolve_dns: callbacks.on_resolve_dns.clone(),
            on_grpc_receive_initial_metadata: callbacks.on_grpc_receive_initial_metadata.clone(),
            on_grpc_receive_trailing_metadata: callbacks.on_grpc_receive_trailing_metadata.clone(),
        };
        state.phase = Phase::Free;
        state.contexts.insert(0, Context::new(ContextKind::Vm, 0));
        Self { store, instance, callbacks, time_limit, fuel }
    }

    /// The callbacks.
    pub fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    /// The callbacks that may still be called: none of a VM that a trap failed.
    pub fn live_callbacks(&self) -> Option<&Callbacks> {
        (!self.is_failed()).then_some(&self.callbacks)
    }

    /// The host's side.
    pub fn state(&self) -> &HostState {
        self.store.data()
    }

    /// The host's side, to change.
    pub fn state_mut(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    /// Whether a trap failed this VM; Envoy calls it no more.
    pub fn is_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    /// What this instance did so far.
    pub fn counters(&self) -> Counters {
        let state = self.state();
        let Boundary { bytes_to_host, bytes_to_guest, allocations, allocated_bytes } =
            state.boundary;
        let left = self.store.get_fuel().ok();
        Counters {
            fuel: self.fuel.zip(left).map(|(given, left)| given.saturating_sub(left)),
            host_calls: state.calls.iter().sum(),
            bytes_to_host,
            bytes_to_guest,
            allocations,
            allocated_bytes,
        }
    }

    /// Bytes of all its memories.
    pub fn memory_bytes(&self) -> u64 {
        self.state().limits.memory_bytes_now as u64
    }

    /// Makes a meter read before and after each callback, or none.
    pub fn meter(&mut self, reads: Option<Metered>) {
        self.state_mut().meter = reads.map(|reads| Box::new(Meter::new(reads)));
    }

    /// The costs of the callbacks since the last time, where there is a meter.
    pub fn take_costs(&mut self) -> Vec<CallbackCost> {
        self.state_mut().meter.as_mut().map_or_else(Vec::new, |meter| meter.take())
    }

    fn read_meter(&self) -> Option<Reading> {
        Some(match self.state().meter.as_ref()?.reads {
            Metered::Counters => Reading::Counters(self.counters()),
            Metered::Wall => Reading::Clock(Stopwatch::wall()),
            Metered::Cpu => Reading::Clock(Stopwatch::thread()),
        })
    }

    fn end_reading(&mut self, name: &'static str, begun: Reading) {
        let (counters, ns) = match begun {
            Reading::Counters(before) => (self.counters() - before, 0),
            Reading::Clock(watch) => (Counters::default(), watch.elapsed_ns()),
        };
        if let Some(meter) = &mut self.state_mut().meter {
            meter.push(CallbackCost { name, counters, ns });
        }
    }

    /// An exported function of this type.
    pub fn export<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Option<TypedFunc<P, R>> {
        self.instance.get_typed_func(&mut self.store, name).ok()
    }

    /// Calls the guest on a context. A trap fails the VM.
    ///
    /// # Errors
    ///
    /// Where the call ended early, or the allocator trapped while the host called it.
    pub fn call<P: WasmParams + Words, R: WasmResults + Words>(
        &mut self,
        name: &'static str,
        function: &TypedFunc<P, R>,
        context: u32,
        params: P,
    ) -> Result<R, Box<Trap>> {
        self.call_through(name, function, context, params).map_err(|failure| failure.trap)
    }

    /// The same for callers to whom the callback's result matters even though the allocator trapped:
    /// Envoy fails the VM then, and still takes the result.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn call_through<P: WasmParams + Words, R: WasmResults + Words>(
        &mut self,
        name: &'static str,
        function: &TypedFunc<P, R>,
        context: u32,
        params: P,
    ) -> Result<R, CallFailure<R>> {
        self.time_limit.begin(&mut self.store);
        let state = self.store.data_mut();
        (state.current, state.effective) = (Some(context), 0);
        if let Some(trace) = &mut state.trace {
            trace.begin_callback(name, &params.words());
        }
        let reading = self.read_meter();
        let result = function.call(&mut self.store, params);
        if let Some(reading) = reading {
            self.end_reading(name, reading);
        }
        let state = self.store.data_mut();
        if let Some(trace) = &mut state.trace {
            trace.end_callback(
                result.as_ref().map_or(CallOutcome::NotReturned, CallOutcome::returned),
            );
        }
        (state.current, state.effective) = (None, 0);
        // A trap in a nested call failed the VM first; the callback's own end comes second.
        let nested_trap = state.nested_trap.take().map(|(name, error)| Trap::new(name, &error));
        let (trap, returned) = match (nested_trap, result) {
            (None, Ok(result)) => return Ok(result),
            (Some(trap), result) => (trap, result.ok()),
            (None, Err(error)) => (Trap::new(name, &error), None),
        };
        state.failed.get_or_insert_with(|| VmFailure {
            function: trap.function.clone(),
            reason: trap.reason(),
        });
        Err(CallFailure { trap: Box::new(trap), returned })
    }

    /// Ends an outermost call: the stop flag is cleared, calls that failed at once are told to the
    /// module, and what else waited for the end is given back in the order in which it was asked for.
    pub fn end_call(&mut self) -> EndOfCall {
        self.state_mut().stop_iteration = false;
        let mut end = EndOfCall::default();
        let mut deferred = VecDeque::from(std::mem::take(&mut self.state_mut().deferred));
        while let Some(next) = deferred.pop_front() {
            match next {
                Deferred::CallFailed(event) if self.is_failed() => drop(event),
                Deferred::CallFailed(event) => {
                    end.trap = self.bring(*event).err();
                    let state = self.state_mut();
                    state.stop_iteration = false;
                    deferred.extend(std::mem::take(&mut state.deferred));
                }
                other => end.deferred.push(other),
            }
        }
        end
    }
}

impl Callbacks {
    fn of(instance: &WasmtimeInstance, store: &mut Store<HostState>, abi: AbiVersion) -> Self {
        fn get<P: WasmParams, R: WasmResults>(
            instance: &WasmtimeInstance,
            store: &mut Store<HostState>,
            name: &str,
        ) -> Option<TypedFunc<P, R>> {
            // What the capabilities leave out is never looked up.
            store.data().plugin.allows(name).then(|| instance.get_typed_func(store, name).ok())?
        }
        let headers = |store: &mut Store<HostState>, name: &str| {
            if abi == AbiVersion::V0_1_0 {
                get(instance, store, name).map(Headers::V0_1)
            } else {
                get(instance, store, name).map(Headers::V0_2)
            }
        };
        Self {
            on_request_headers: headers(store, "proxy_on_request_headers"),
            on_response_headers: headers(store, "proxy_on_response_headers"),
            on_vm_start: get(instance, store, "proxy_on_vm_start"),
            on_configure: get(instance, store, "proxy_on_configure"),
            on_tick: get(instance, store, "proxy_on_tick"),
            on_resolve_dns: get(instance, store, "envoy_on_resolve_dns"),
            on_queue_ready: get(instance, store, "proxy_on_queue_ready"),
            on_http_call_response: get(instance, store, "proxy_on_http_call_response"),
            on_grpc_receive_initial_metadata: get(
                instance,
                store,
                "proxy_on_grpc_receive_initial_metadata",
            ),
            on_grpc_receive: get(instance, store, "proxy_on_grpc_receive"),
            on_grpc_receive_trailing_metadata: get(
                instance,
                store,
                "proxy_on_grpc_receive_trailing_metadata",
            ),
            on_grpc_close: get(instance, store, "proxy_on_grpc_close"),
            on_context_create: get(instance, store, "proxy_on_context_create"),
            on_request_body: get(instance, store, "proxy_on_request_body"),
            on_request_trailers: get(instance, store, "proxy_on_request_trailers"),
            on_response_body: get(instance, store, "proxy_on_response_body"),
            on_response_trailers: get(instance, store, "proxy_on_response_trailers"),
            on_request_metadata: get(instance, store, "proxy_on_request_metadata"),
            on_response_metadata: get(instance, store, "proxy_on_response_metadata"),
            on_new_connection: get(instance, store, "proxy_on_new_connection"),
            on_downstream_data: get(instance, store, "proxy_on_downstream_data"),
            on_upstream_data: get(instance, store, "proxy_on_upstream_data"),
            on_downstream_connection_close: get(
                instance,
                store,
                "proxy_on_downstream_connection_close",
            ),
            on_upstream_connection_close: get(
                instance,
                store,
                "proxy_on_upstream_connection_close",
            ),
            on_done: get(instance, store, "proxy_on_done"),
            on_log: get(instance, store, "proxy_on_log"),
            on_delete: get(instance, store, "proxy_on_delete"),
        }
    }
}
