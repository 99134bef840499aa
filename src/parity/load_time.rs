//! How long a load takes in a real Envoy, by the times of its own log.

use std::path::Path;

use crate::bench::{
    Phase,
    report::{EnvoyPhase, InEnvoy, Times},
};

use super::{
    ParityError,
    envoy::{Envoy, Setup},
    log::Entry,
    theirs::release,
};

/// Starts Envoy `runs` times with the module and as often without, in turns.
///
/// # Errors
///
/// Where Envoy cannot be run, or does not take the module.
pub fn load_times(binary: &Path, setup: &Setup, runs: usize) -> Result<InEnvoy, ParityError> {
    let release = release(binary)?;
    let with = Setup { trace: true, ..setup.clone() };
    let without = Setup { module: None, ..with.clone() };
    let (mut ready, mut control) = (Vec::new(), Vec::new());
    let mut phases: Vec<(Phase, Vec<u64>)> = PHASES.map(|phase| (phase, Vec::new())).into();
    for _ in 0..runs {
        for (setup, times) in [(&without, &mut control), (&with, &mut ready)] {
            let envoy = Envoy::start(binary, setup)?;
            let entries = envoy.entries(0);
            if !envoy.loads() {
                let reason = entries.last().map(|entry| entry.text.clone()).unwrap_or_default();
                return Err(ParityError::NoStart { reason });
            }
            times.extend(until_ready(&entries));
            if setup.module.is_some() {
                for (phase, times) in &mut phases {
                    times.extend(stretch(&entries, *phase));
                }
            }
        }
    }
    let phases = phases.into_iter().filter(|(_, times)| !times.is_empty());
    Ok(InEnvoy {
        release,
        runs,
        phases: phases
            .map(|(name, times)| EnvoyPhase { name, wall_ns: Times::of(times) })
            .collect(),
        ready_ns: Times::of(ready),
        without_filter_ns: Times::of(control),
    })
}

/// The phases that its log tells.
const PHASES: [Phase; 4] = [Phase::Compile, Phase::Start, Phase::VmStart, Phase::Configure];

fn until_ready(entries: &[Entry]) -> Option<u64> {
    let first = entries.iter().find_map(|entry| entry.at_ns)?;
    let serves = |entry: &&Entry| {
        entry.logger == "main" && entry.text.contains("starting main dispatch loop")
    };
    entries.iter().find(serves)?.at_ns?.checked_sub(first)
}

fn stretch(entries: &[Entry], phase: Phase) -> Option<u64> {
    let is_call = |entry: &Entry| entry.logger == "wasm" && entry.text.starts_with("[host->vm] ");
    let callbacks: &[&str] = match phase {
        Phase::Compile => {
            // The line before the module's first callback is Envoy's last before it compiles.
            let first = entries.iter().position(is_call)?;
            let before = entries[..first].iter().rev().find(|entry| entry.logger != "wasm")?;
            return entries[first].at_ns?.checked_sub(before.at_ns?);
        }
        Phase::Start => &["_initialize", "_start"],
        Phase::VmStart => &["proxy_on_vm_start"],
        _ => &["proxy_on_configure"],
    };
    let of = |mark: &str, entry: &Entry| {
        entry.logger == "wasm"
            && entry.text.strip_prefix(mark).is_some_and(|text| {
                let end = text.find(['(', ' ']).unwrap_or(text.len());
                callbacks.contains(&&text[..end])
            })
    };
    let begun = entries.iter().find(|entry| of("[host->vm] ", entry))?.at_ns?;
    let ended = entries.iter().find(|entry| of("[host<-vm] ", entry))?.at_ns?;
    ended.checked_sub(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ns: u64, logger: &str, text: &str) -> Entry {
        let (level, logger) = ("info".to_owned(), logger.to_owned());
        Entry { at_ns: Some(at_ns), level, logger, text: text.to_owned() }
    }

    #[test]
    fn the_log_tells_the_phases() {
        let log = [
            entry(100, "main", "initializing epoch 0"),
            entry(200, "config", "loading 1 listener(s)"),
            entry(5_200, "wasm", "[host->vm] _initialize()"),
            entry(5_210, "wasm", "[host<-vm] _initialize return: void"),
            entry(5_300, "wasm", "[host->vm] proxy_on_vm_start(1, 0)"),
            entry(5_303, "wasm", "[host<-vm] proxy_on_vm_start return: 1"),
            entry(5_400, "wasm", "[host->vm] proxy_on_configure(1, 0)"),
            entry(5_440, "wasm", "[host<-vm] proxy_on_configure return: 1"),
            entry(9_000, "main", "starting main dispatch loop"),
        ];
        let phases = PHASES.map(|phase| stretch(&log, phase));
        assert_eq!(phases, [Some(5_000), Some(10), Some(3), Some(40)]);
        assert_eq!(until_ready(&log), Some(8_900));
        assert_eq!(until_ready(&log[..8]), None);
        assert_eq!(stretch(&log[..2], Phase::Compile), None);
    }
}
