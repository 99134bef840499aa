//! The load sequence: base VM, then a canary for each plugin
//! (proxy-wasm-cpp-host `src/wasm.cc`, `createWasm`, `initialize`, `canary`).

use std::sync::Arc;

use crate::{
    bench::{Phase, PhaseClock, PhaseEnd},
    host::{LogLine, Phase as CallPhase, Plugin, Process, TracedCall},
    verdict::{Finding, Rule},
    vm::{CallFailure, Instance, InstantiateErrorKind, Template, Trap, TrapKind},
};

/// A loaded instance with its root context.
pub struct Loaded {
    /// The instance.
    pub instance: Instance,
    /// The root's context id.
    pub root: u32,
}

/// What came of loading a plugin.
pub struct LoadRun {
    /// The instance as far as it got; `None` where nothing could be instantiated.
    pub loaded: Option<Loaded>,
    /// What was found, the first cause first.
    pub findings: Vec<Finding>,
    /// Whether Envoy would accept the configuration.
    pub accepted: bool,
    /// What the module logged.
    pub logs: Vec<LogLine>,
    /// What crossed the boundary, where that is traced.
    pub trace: Vec<TracedCall>,
}

impl LoadRun {
    /// Whether a limit of filtergate, not the module, ended the load.
    pub fn was_given_up(&self) -> bool {
        self.findings.iter().any(|finding| finding.rule == Rule::LimitReached)
    }
}

/// Envoy's line where the canary or worker does not start.
const START_FAILED: &str = "Wasm VM failed Failed to start base Wasm";
const CONFIGURE_FAILED: &str = "Wasm VM failed Failed to configure base Wasm plugin";
/// In the next step of findings on callbacks that failed.
const LOG_LINES_SAY_WHY: &str = "the module's log lines say why";

/// What becomes of a VM that failed while its start and configuration succeeded.
const ACCEPTED_ALL_THE_SAME: &str = "; the load still succeeds, so that Envoy accepts the configuration and then answers every request with 503";
const INITIALIZE_FAILED: &str = "Wasm VM failed Failed to initialize Wasm code";

/// Why an instance did not start.
struct StartFailure {
    finding: Finding,
    logs: Vec<LogLine>,
    trace: Vec<TracedCall>,
}

/// Instantiates the module and starts it, as the base VM does.
fn initialize(
    template: &Template,
    plugin: &Plugin,
    process: &Arc<Process>,
    names: bool,
    clock: &mut PhaseClock,
) -> Result<Instance, Box<StartFailure>> {
    let instantiated = clock
        .measure(Phase::Instantiate, || template.instantiate(plugin.clone(), Arc::clone(process)));
    let mut instance = match instantiated {
        Ok(instance) => instance,
        Err(error) => {
            let finding = instantiate_finding(&error);
            return Err(Box::new(StartFailure { finding, logs: Vec::new(), trace: Vec::new() }));
        }
    };
    note_end(clock, Phase::Instantiate, &instance);
    let started = clock.measure(Phase::Start, || start(&mut instance, template));
    note_end(clock, Phase::Start, &instance);
    match started {
        Ok(()) => Ok(instance),
        Err(trap) => {
            let state = instance.state_mut();
            Err(Box::new(StartFailure {
                finding: start_finding(&trap, names),
                logs: state.logs.take(),
                trace: state.take_trace(),
            }))
        }
    }
}

/// Notes what the instance has come to at the end of a phase.
fn note_end(clock: &mut PhaseClock, phase: Phase, instance: &Instance) {
    let end = PhaseEnd { counters: instance.counters(), memory_bytes: instance.memory_bytes() };
    clock.end(phase, end);
}

fn instantiate_finding(error: &crate::vm::InstantiateError) -> Finding {
    match error.kind {
        InstantiateErrorKind::Refused => {
            let mut finding = Finding::error(
                Rule::LoadInstantiate,
                format!("the module cannot be instantiated: {}", error.message),
            )
            .envoy("Failed to create new Wasm instance")
            .help("memory: lower the initial size (the cap is 1 GiB); segments and start section: check the linker's flags");
            if let Some(trap) = &error.trap {
                finding = finding.evidence(trap.backtrace.iter().cloned());
            }
            finding
        }
        InstantiateErrorKind::Timeout => Finding::error(
            Rule::HazardHangsEnvoy,
            "the start section does not end: Envoy would hang while it loads the configuration, with no log line",
        )
        .help("do not roll this module out; move the work out of the start section"),
        InstantiateErrorKind::CrashesEnvoy => {
            Finding::error(Rule::HazardCrashesEnvoy, format!("in the start section: {}", error.message))
                .envoy("Caught Segmentation fault, suspect faulting address 0x0")
                .help("do not roll this module out; call host functions from `_initialize` or a callback, not from the start section")
        }
        InstantiateErrorKind::Limit => {
            Finding::warning(Rule::LimitReached, format!("instantiation was given up: {}", error.message))
        }
    }
}

/// `startVm`: `_initialize` then `main` or `__main_void`, else `_start`, on the VM's context and under
/// the start allow-list.
fn start(instance: &mut Instance, template: &Template) -> Result<(), Box<Trap>> {
    const VM_CONTEXT: u32 = 0;
    instance.state_mut().phase = CallPhase::Start;
    let result = match instance.export::<(), ()>("_initialize") {
        Some(initialize) => {
            instance.call("_initialize", &initialize, VM_CONTEXT, ()).and_then(|()| {
                let main = instance.export::<(u32, u32), u32>("main");
                let main_void = instance
                    .export::<(), u32>("__main_void")
                    .filter(|_| template.target().looks_up("__main_void"));
                // The result of main is ignored.
                match (main, main_void) {
                    (Some(main), _) => instance.call("main", &main, VM_CONTEXT, (0, 0)).map(drop),
                    (None, Some(main)) => {
                        instance.call("__main_void", &main, VM_CONTEXT, ()).map(drop)
                    }
                    (None, None) => Ok(()),
                }
            })
        }
        None => match instance.export::<(), ()>("_start") {
            Some(start) => instance.call("_start", &start, VM_CONTEXT, ()),
            None => Ok(()),
        },
    };
    instance.state_mut().phase = CallPhase::Free;
    instance.end_call();
    result
}

fn start_finding(trap: &Trap, names: bool) -> Finding {
    match &trap.kind {
        TrapKind::Guest(_) => trap_finding(Rule::LoadStartTrap, trap, names, "")
            .help("the module's constructors or main failed: the backtrace and the log lines say where"),
        TrapKind::Restricted { function } => trap_finding(
            Rule::LoadStartTrap,
            trap,
            names,
            &format!(": it called `{function}`, which Envoy forbids before proxy_on_vm_start"),
        )
        .help("move that call into proxy_on_vm_start or proxy_on_configure; a WASI command that calls proc_exit should be built as a reactor (exporting _initialize)"),
        _ => return hazard_finding(trap, &format!("`{}`", trap.function)),
    }
    .envoy(INITIALIZE_FAILED)
}

/// A finding for a trap of the guest's own.
pub(super) fn trap_finding(rule: Rule, trap: &Trap, names: bool, why: &str) -> Finding {
    let mut finding =
        Finding::error(rule, format!("`{}` trapped: {}{why}", trap.function, trap.reason()))
            .evidence(trap.backtrace.iter().cloned());
    finding.envoy_messages = trap.envoy_messages(names);
    finding
}

/// A finding for what Envoy would not survive, or what filtergate itself gave up.
pub(super) fn hazard_finding(trap: &Trap, what: &str) -> Finding {
    match &trap.kind {
        TrapKind::CrashesEnvoy(why) => {
            Finding::error(Rule::HazardCrashesEnvoy, format!("in {what}: {why}"))
                .envoy("Caught Segmentation fault, suspect faulting address 0x8")
                .help("do not roll this module out: the whole proxy would die")
        }
        TrapKind::Timeout => Finding::error(
            Rule::HazardHangsEnvoy,
            format!("{what} does not end within its time: Envoy has no limit and would hang there, with no log line"),
        )
        .help("do not roll this module out; if the work only takes long, raise --callback-timeout to see it through"),
        _ => Finding::warning(Rule::LimitReached, format!("{what} was given up: {}", trap.reason())),
    }
    .evidence(trap.backtrace.iter().cloned())
}

/// What came of the base VM.
pub struct BaseRun {
    /// Why it did not start.
    pub finding: Option<Finding>,
    /// What the module logged.
    pub logs: Vec<LogLine>,
    /// What crossed the boundary, where that is traced.
    pub trace: Vec<TracedCall>,
}

/// Makes the base VM: the module is instantiated and started once, without a plugin. Where this
/// fails, Envoy looks at no plugin.
pub fn load_base(
    template: &Template,
    plugin: &Plugin,
    has_function_names: bool,
    clock: &mut PhaseClock,
) -> BaseRun {
    let process = Arc::new(Process::new());
    match initialize(template, plugin, &process, has_function_names, clock) {
        Ok(mut instance) => {
            let state = instance.state_mut();
            BaseRun { finding: None, logs: state.logs.take(), trace: state.take_trace() }
        }
        Err(failure) => {
            let StartFailure { finding, logs, trace } = *failure;
            BaseRun { finding: Some(finding), logs, trace }
        }
    }
}

/// Loads a plugin in an instance of its own: initialize, then the root's start and configure.
pub fn load_plugin(
    template: &Template,
    plugin: &Plugin,
    process: &Arc<Process>,
    has_function_names: bool,
    clock: &mut PhaseClock,
) -> LoadRun {
    let mut instance = match initialize(template, plugin, process, has_function_names, clock) {
        Ok(instance) => instance,
        Err(failure) => {
            let StartFailure { finding, logs, trace } = *failure;
            return LoadRun { loaded: None, findings: vec![finding], accepted: false, logs, trace };
        }
    };
    let root = instance.state_mut().begin_root();
    let mut findings = Vec::new();
    let started = clock.measure(Phase::VmStart, || {
        on_start(&mut instance, root, has_function_names, &mut findings)
    });
    note_end(clock, Phase::VmStart, &instance);
    let accepted = started
        && clock.measure(Phase::Configure, || {
            on_configure(&mut instance, root, has_function_names, &mut findings)
        });
    note_end(clock, Phase::Configure, &instance);
    let state = instance.state_mut();
    let (logs, trace) = (state.logs.take(), state.take_trace());
    if logs.is_empty() {
        for finding in &mut findings {
            // Do not send anybody to lines that are not there.
            if let Some(help) = &mut finding.help {
                *help = help.replace(LOG_LINES_SAY_WHY, "the module logged nothing");
            }
        }
    }
    LoadRun { loaded: Some(Loaded { instance, root }), findings, accepted, logs, trace }
}

/// `onStart`: a trap in `proxy_on_context_create` does not keep `proxy_on_vm_start` from being
/// called, nor the start from succeeding.
fn on_start(instance: &mut Instance, root: u32, names: bool, findings: &mut Vec<Finding>) -> bool {
    if let Some(create) = instance.callbacks().on_context_create.clone() {
        instance.state_mut().configuring = true;
        let result = instance.call("proxy_on_context_create", &create, root, (root, 0));
        instance.state_mut().configuring = false;
        if let Err(trap) = result {
            if !trap.is_the_guests() {
                findings.push(hazard_finding(&trap, "`proxy_on_context_create` of the root"));
                return false;
            }
            findings.push(
                trap_finding(Rule::RootContextTrap, &trap, names, " (root context)").help(format!(
                    "{LOG_LINES_SAY_WHY}; AssemblyScript: register a root context for this root_id"
                )),
            );
        }
    }
    let started = match instance.callbacks().on_vm_start.clone() {
        None => true,
        Some(vm_start) => {
            let size = u32::try_from(instance.state().plugin.vm_configuration.len());
            let params = (root, size.unwrap_or(u32::MAX));
            match instance.call_through("proxy_on_vm_start", &vm_start, root, params) {
                Ok(0) => {
                    if findings.is_empty() {
                        findings.push(
                            Finding::error(
                                Rule::RootVmStartFalse,
                                "`proxy_on_vm_start` returned false",
                            )
                            .help(format!(
                                "{LOG_LINES_SAY_WHY}; check the VM configuration (--vm-config)"
                            )),
                        );
                    }
                    false
                }
                Ok(_) => true,
                Err(CallFailure { trap, returned }) => {
                    if trap.is_the_guests() {
                        match findings.first_mut() {
                            // A consequence of the first trap: its lines belong to that finding.
                            Some(first) => first.envoy_messages.extend(trap.envoy_messages(names)),
                            None => findings.push(
                                trap_finding(Rule::RootVmStartTrap, &trap, names, "")
                                    .help(LOG_LINES_SAY_WHY),
                            ),
                        }
                    } else {
                        findings.push(hazard_finding(&trap, "`proxy_on_vm_start`"));
                    }
                    returned.is_some_and(|result| result != 0)
                }
            }
        }
    };
    instance.end_call();
    if !started && let Some(first) = findings.first_mut() {
        first.envoy_messages.push(START_FAILED.to_owned());
    }
    if started && let Some(first) = findings.first_mut() {
        first.message.push_str(ACCEPTED_ALL_THE_SAME);
    }
    started
}

/// `onConfigure`: a VM that has failed before is not asked.
fn on_configure(
    instance: &mut Instance,
    root: u32,
    names: bool,
    findings: &mut Vec<Finding>,
) -> bool {
    if instance.is_failed() {
        return true;
    }
    let Some(configure) = instance.callbacks().on_configure.clone() else { return true };
    let size = u32::try_from(instance.state().plugin.configuration.len()).unwrap_or(u32::MAX);
    instance.state_mut().configuring = true;
    let result = instance.call_through("proxy_on_configure", &configure, root, (root, size));
    instance.state_mut().configuring = false;
    instance.end_call();
    let finding = match result {
        Ok(0) => {
            let help = if size == 0 {
                "it was given no configuration: pass one with --config"
            } else {
                "check the configuration that was given with --config"
            };
            Finding::error(
                Rule::RootConfigureFalse,
                format!("`proxy_on_configure` returned false for a configuration of {size} bytes"),
            )
            .help(format!("{LOG_LINES_SAY_WHY}; {help}"))
        }
        Ok(_) => return true,
        Err(CallFailure { trap, returned }) if trap.is_the_guests() => {
            let mut finding = trap_finding(Rule::RootConfigureTrap, &trap, names, "").help(
                format!("{LOG_LINES_SAY_WHY}; if it needs a configuration, pass one with --config"),
            );
            if returned.is_some_and(|result| result != 0) {
                finding.message.push_str(ACCEPTED_ALL_THE_SAME);
                findings.push(finding);
                return true;
            }
            finding
        }
        Err(CallFailure { trap, .. }) => {
            findings.push(hazard_finding(&trap, "`proxy_on_configure`"));
            return false;
        }
    };
    findings.push(finding.envoy(CONFIGURE_FAILED));
    false
}
