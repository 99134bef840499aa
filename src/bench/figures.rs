//! The numbers of a measurement, each with what it is about: what reports list and the gate compares.

use serde::Serialize;

use crate::host::Counters;

use super::{
    phase::Phase,
    report::{BenchReport, Measured, TimesPair, Way},
};

/// What a number is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `module`, a phase, `total`, `memory` or `exchange`.
    pub what: &'static str,
    /// The stage of a memory, the name of an exchange, or `from the store` for that total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The root, where several were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_id: Option<String>,
}

impl Place {
    /// Whether it is of a load where a store has the module compiled; a cold one has no such places.
    pub fn is_from_store(&self) -> bool {
        let is_total =
            self.what == "total" && self.name.as_deref() == Some(Way::FromStore.as_str());
        is_total || self.what == Phase::Artifact.as_str()
    }
}

/// How a number is written for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Pages of 64 KiB.
    Pages,
    /// Nanoseconds.
    Ns,
}

/// A number that is the same each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    /// Of what.
    pub place: Place,
    /// `fuel`, `host_calls` and so on.
    pub metric: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Itself.
    pub value: u64,
    /// Whether another processor or another engine makes it another number.
    pub of_the_machine: bool,
}

/// All times with what they are of, in the order of reports.
pub fn times_of(measured: &Measured) -> Vec<(Place, &TimesPair)> {
    let several = measured.roots.len() > 1;
    let phases = measured.load.phases.iter().map(|phase| {
        let root_id = phase.root_id.clone().filter(|_| several);
        (Place { what: phase.name.as_str(), name: None, root_id }, &phase.times)
    });
    let total = (Place { what: "total", name: None, root_id: None }, &measured.load.total);
    // The other phases are the same as of a cold load.
    let from_store = measured.from_store.iter().flat_map(|load| {
        let artifact = load.phases.iter().find(|phase| phase.name == Phase::Artifact);
        let artifact = artifact.map(|phase| (Phase::Artifact.as_str(), None, &phase.times));
        let total = ("total", Some(Way::FromStore.as_str().to_owned()), &load.total);
        let all = artifact.into_iter().chain([total]);
        all.map(|(what, name, times)| (Place { what, name, root_id: None }, times))
    });
    let exchanges = measured.roots.iter().flat_map(|root| {
        root.exchanges.iter().map(move |exchange| {
            (of_exchange(&exchange.name, &root.root_id, several), &exchange.times)
        })
    });
    phases.chain([total]).chain(from_store).chain(exchanges).collect()
}

fn of_exchange(name: &str, root_id: &str, several: bool) -> Place {
    Place {
        what: "exchange",
        name: Some(name.to_owned()),
        root_id: several.then(|| root_id.to_owned()),
    }
}

/// All exact counters of what was measured under one compiler.
pub fn exact(report: &BenchReport, measured: &Measured) -> Vec<Exact> {
    let several = measured.roots.len() > 1;
    let module = |metric, unit, value, of_the_machine| Exact {
        place: Place { what: "module", name: None, root_id: None },
        metric,
        unit,
        value,
        of_the_machine,
    };
    let mut all = vec![
        module("functions", Unit::Count, report.module.functions, false),
        module("code_bytes", Unit::Bytes, report.module.code_bytes, false),
        module("compiled_bytes", Unit::Bytes, measured.compiled_bytes, true),
    ];
    for phase in &measured.load.phases {
        if phase.counters.fuel.is_some() {
            let root_id = phase.root_id.clone().filter(|_| several);
            let place = Place { what: phase.name.as_str(), name: None, root_id };
            all.extend(of_counters(&place, &phase.counters));
        }
    }
    for root in &measured.roots {
        let root_id = || several.then(|| root.root_id.clone());
        for stage in &root.memory {
            all.push(Exact {
                place: Place {
                    what: "memory",
                    name: Some(stage.stage.clone()),
                    root_id: root_id(),
                },
                metric: "pages",
                unit: Unit::Pages,
                value: stage.pages,
                of_the_machine: false,
            });
        }
        for exchange in root.exchanges.iter().filter(|exchange| exchange.failed.is_none()) {
            let place = of_exchange(&exchange.name, &root.root_id, several);
            all.extend(of_counters(&place, &exchange.counters));
        }
    }
    all
}

fn of_counters(place: &Place, counters: &Counters) -> impl Iterator<Item = Exact> {
    let Counters { fuel, host_calls, bytes_to_host, bytes_to_guest, allocations, allocated_bytes } =
        *counters;
    let numbers = [
        ("fuel", Unit::Count, fuel),
        ("host_calls", Unit::Count, Some(host_calls)),
        ("bytes_to_host", Unit::Bytes, Some(bytes_to_host)),
        ("bytes_to_guest", Unit::Bytes, Some(bytes_to_guest)),
        ("allocations", Unit::Count, Some(allocations)),
        ("allocated_bytes", Unit::Bytes, Some(allocated_bytes)),
    ];
    numbers.into_iter().filter_map(move |(metric, unit, value)| {
        let place = place.clone();
        Some(Exact { place, metric, unit, value: value?, of_the_machine: false })
    })
}
