//! A whole bench: loads, counters and traffic of one or several modules, in turns.

use crate::vm::on_a_guest_thread;

use super::{
    counting,
    load::{LoadConditions, LoadFailed, Loads, Subject, sample},
    machine::{Busyness, Watch},
    phase::PhaseClock,
    reference::Reference,
    report::{Measured, Times},
    steady,
    traffic::Traffic,
};

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Loads that are measured, and batches of each stream.
    pub runs: u32,
    /// Loads before them that are not.
    pub warmup: u32,
    /// What is sent through the filter once it runs.
    pub traffic: Traffic,
    /// Workers of one Envoy whose memory is measured; with fewer than two it is not.
    pub workers: usize,
}

/// Measures each subject, their runs in turns, and how busy the machine was meanwhile.
///
/// # Errors
///
/// Where a module does not load, or not any more.
pub fn measure(
    subjects: &mut [Subject<'_>],
    plan: &Plan,
) -> Result<(Vec<Measured>, Busyness), LoadFailed> {
    let watch = Watch::begin();
    let measured = on_a_guest_thread(|| measure_here(subjects, plan))
        .map_err(|error| LoadFailed(error.to_string()))??;
    Ok((measured, watch.end()))
}

fn measure_here(subjects: &mut [Subject<'_>], plan: &Plan) -> Result<Vec<Measured>, LoadFailed> {
    let reference = Reference::new();
    let reference = reference.as_ref();
    let loads = sample(subjects, plan.runs, plan.warmup, reference)?;
    let mut counted = Vec::new();
    for subject in &mut *subjects {
        let wasm = (subject.bytes)(&mut PhaseClock::default())?;
        counted.push(counting::count(&wasm, &subject.conditions, &plan.traffic)?);
    }
    let conditions: Vec<&LoadConditions> =
        subjects.iter().map(|subject| &subject.conditions).collect();
    let mut costs: Vec<Vec<_>> = counted
        .iter_mut()
        .map(|counted| counted.roots.iter_mut().map(|root| &mut root.exchanges).collect())
        .collect();
    let later = steady::time(&loads, &conditions, &plan.traffic, plan.runs, reference, &mut costs)?;
    let mut all = Vec::new();
    for (((load, counted), later), conditions) in
        loads.into_iter().zip(counted).zip(later).zip(conditions)
    {
        let workers = match plan.workers {
            0 | 1 => None,
            count => Some(steady::workers(&load, conditions, &plan.traffic, count)?),
        };
        let Loads { template, mut load, from_store, mut reference_ns, .. } = load;
        let (mut from_store, not_from_store) = match from_store {
            Ok(load) => (Some(load), None),
            Err(why) => (None, Some(why)),
        };
        // What the guest does is the same, wherever its code comes from.
        for load in [&mut load].into_iter().chain(&mut from_store) {
            for (phase, root_id, counters) in &counted.phases {
                let mut rows = load.phases.iter_mut();
                if let Some(row) = rows.find(|row| row.name == *phase && row.root_id == *root_id) {
                    row.counters = *counters;
                }
            }
        }
        reference_ns.extend(later);
        all.push(Measured {
            compiler: template.compiler().as_str().to_owned(),
            compiled_bytes: template.text_bytes(),
            load,
            from_store,
            not_from_store,
            roots: counted.roots,
            workers,
            reference_ns: Times::of(reference_ns),
        });
    }
    Ok(all)
}
