//! One cold load of a module, from its bytes to a configured root, and many of them.

use std::sync::Arc;

use crate::{
    exercise::{LoadRun, load_plugin},
    host::{Plugin, Process},
    target::Target,
    verdict::check_statically,
    vm::{Compiler, Template, VmOptions, on_a_guest_thread},
};

use super::{
    phase::{Phase, PhaseClock},
    samples::Samples,
};

/// Under which conditions a module is loaded.
#[derive(Debug, Clone)]
pub struct LoadConditions {
    /// The proxy release.
    pub target: Target,
    /// How guests run.
    pub vm: VmOptions,
    /// The plugin configuration.
    pub plugin: Plugin,
}

/// Why a load came to no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadFailed(pub String);

/// A module that was loaded. To drop it takes time that belongs to no phase.
pub struct ColdLoad {
    template: Template,
    _run: LoadRun,
}

impl ColdLoad {
    /// The compiler that ran.
    pub fn compiler(&self) -> Compiler {
        self.template.compiler()
    }
}

/// Loads a module as Envoy does for one plugin: static checks, compile, link, instantiate, start,
/// `proxy_on_vm_start`, `proxy_on_configure`.
///
/// It must run on a thread for guests, see [`on_a_guest_thread`].
///
/// # Errors
///
/// Where Envoy would refuse the module, or it cannot be run here.
pub fn cold_load(
    wasm: &[u8],
    conditions: &LoadConditions,
    clock: &mut PhaseClock,
) -> Result<ColdLoad, LoadFailed> {
    let report = clock.measure(Phase::Parse, || check_statically(wasm, &conditions.target));
    let loadable = report.is_loadable();
    let (true, Some(abi)) = (loadable, report.abi) else {
        let reason = report.findings.first().map(|finding| finding.message.clone());
        return Err(LoadFailed(reason.unwrap_or_else(|| "it is no Proxy-Wasm module".to_owned())));
    };
    let facts = report.facts.unwrap_or_default();
    let template =
        Template::compile(wasm, facts, abi, &conditions.target, &conditions.vm, None, clock)
            .map_err(|error| LoadFailed(error.to_string()))?;
    let process = Arc::new(Process::new());
    let names = report.has_function_names;
    let run = load_plugin(&template, &conditions.plugin, &process, names, clock);
    if !run.accepted {
        let reason = run.findings.first().map(|finding| finding.message.clone());
        return Err(LoadFailed(reason.unwrap_or_else(|| "it was refused".to_owned())));
    }
    Ok(ColdLoad { template, _run: run })
}

/// Loads a module `warmup` times for nothing and `runs` times for the record. `bytes` gets the
/// module anew for each load, and may add the phases that this takes.
///
/// # Errors
///
/// With the first load that fails.
pub fn sample(
    runs: u32,
    warmup: u32,
    conditions: &LoadConditions,
    mut bytes: impl FnMut(&mut PhaseClock) -> Result<Vec<u8>, LoadFailed> + Send,
) -> Result<Samples, LoadFailed> {
    on_a_guest_thread(|| {
        let mut samples = Samples::default();
        for run in 0..warmup.saturating_add(runs) {
            let mut clock = PhaseClock::default();
            let wasm = bytes(&mut clock)?;
            let loaded = cold_load(&wasm, conditions, &mut clock)?;
            if run >= warmup {
                samples.push(&clock);
            }
            drop(loaded);
        }
        Ok(samples)
    })
    .map_err(|error| LoadFailed(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions() -> LoadConditions {
        LoadConditions {
            target: Target::default(),
            vm: VmOptions::default(),
            plugin: Plugin::default(),
        }
    }

    fn read(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/filters/prebuilt");
        std::fs::read(format!("{folder}/{name}.wasm")).unwrap()
    }

    #[test]
    fn every_run_has_every_phase() {
        let wasm = read("limit-body");
        let mut fetched = 0;
        let samples = sample(3, 2, &conditions(), |_| {
            fetched += 1;
            Ok(wasm.clone())
        });
        let samples = samples.unwrap();
        assert_eq!(fetched, 5);
        let phases: Vec<_> = samples
            .phases()
            .map(|(phase, series)| (phase.as_str(), series.wall().unwrap().runs))
            .collect();
        let expected =
            ["parse", "compile", "link", "instantiate", "start", "vm_start", "configure"];
        assert_eq!(phases, expected.map(|name| (name, 3)));
    }

    #[test]
    fn a_module_that_does_not_load_is_no_sample() {
        let failed = sample(1, 0, &conditions(), |_| Ok(b"\0asm\x01\0\0\0".to_vec()));
        assert!(failed.unwrap_err().0.contains("marker"));
    }
}
