//! A run for the exact counters, apart from those for the times: fuel is counted in it, and the clock and
//! the random numbers that the module sees are the same each time.

use crate::{
    exercise::Loaded,
    host::{CallbackCost, Counters, Metered, Process},
    vm::VmOptions,
};

use super::{
    load::{LoadConditions, LoadFailed, compile, load_root},
    phase::{Phase, PhaseClock},
    report::{CallbackRow, ExchangeCost, Root, StageMemory, TimesPair},
    traffic::Traffic,
};

/// Rounds of the traffic before those that count: what a module does the first time is not what it does
/// each time.
const WARM_UP_ROUNDS: usize = 3;
/// Rounds that count.
const ROUNDS: usize = 5;

/// Fuel makes a guest slower, so that it gets more time.
const MORE_TIME: u32 = 4;

/// Bytes of a page of wasm memory.
const PAGE_BYTES: u64 = 1 << 16;

/// What was counted.
pub(super) struct Counted {
    /// By phase and root_id: what the guest did in it.
    pub phases: Vec<(Phase, Option<String>, Counters)>,
    pub roots: Vec<Root>,
}

/// The phases in which the guest runs.
const GUEST_PHASES: [Phase; 4] =
    [Phase::Instantiate, Phase::Start, Phase::VmStart, Phase::Configure];

/// Loads each root once and sends the traffic through it, and counts.
pub(super) fn count(
    wasm: &[u8],
    conditions: &LoadConditions,
    traffic: &Traffic,
) -> Result<Counted, LoadFailed> {
    let vm = VmOptions {
        fuel: true,
        callback_timeout: conditions.vm.callback_timeout * MORE_TIME,
        ..conditions.vm.clone()
    };
    let (template, names) =
        compile(wasm, &conditions.target, &vm, None, &mut PhaseClock::default())?;
    let mut counted = Counted { phases: Vec::new(), roots: Vec::new() };
    for (index, plugin) in conditions.plugins.iter().enumerate() {
        let process = Process::within(conditions.environment.clone()).reproducible();
        let mut clock = PhaseClock::default();
        let mut worker = load_root(&template, names, plugin, process, &mut clock)?;
        let mut before = Counters { fuel: Some(0), ..Counters::default() };
        let mut memory = Vec::new();
        for phase in GUEST_PHASES {
            let Some(end) = clock.end_of(phase) else { continue };
            let of_root = matches!(phase, Phase::VmStart | Phase::Configure);
            if of_root || index == 0 {
                let root_id = of_root.then(|| plugin.root_id.clone());
                counted.phases.push((phase, root_id, end.counters - before));
            }
            before = end.counters;
            memory.push(stage(phase.as_str(), end.memory_bytes));
        }
        let exchanges = exchanges(&mut worker, traffic);
        if !exchanges.is_empty() {
            memory.push(stage("exchanges", worker.instance.memory_bytes()));
        }
        counted.roots.push(Root { root_id: plugin.root_id.clone(), memory, exchanges });
    }
    Ok(counted)
}

fn stage(stage: &str, bytes: u64) -> StageMemory {
    StageMemory { stage: stage.to_owned(), pages: bytes.div_ceil(PAGE_BYTES) }
}

/// What one stream did in one round.
struct Round {
    counters: Counters,
    callbacks: Vec<CallbackCost>,
}

fn exchanges(worker: &mut Loaded, traffic: &Traffic) -> Vec<ExchangeCost> {
    let names = traffic.names();
    let mut rounds: Vec<Vec<Round>> = names.iter().map(|_| Vec::new()).collect();
    let mut failed: Vec<Option<String>> = vec![None; names.len()];
    worker.instance.meter(Some(Metered::Counters));
    'all: for round in 0..WARM_UP_ROUNDS + ROUNDS {
        for index in 0..names.len() {
            let before = worker.instance.counters();
            let result = traffic.run(index, worker);
            let callbacks = worker.instance.take_costs();
            let counters = worker.instance.counters() - before;
            if let Err(why) = result {
                failed[index] = Some(why);
                break 'all;
            }
            if round >= WARM_UP_ROUNDS {
                rounds[index].push(Round { counters, callbacks });
            }
        }
    }
    worker.instance.meter(None);
    let costs = names.iter().zip(rounds).zip(failed);
    costs.map(|((name, rounds), failed)| exchange_cost(name, rounds, failed)).collect()
}

fn exchange_cost(name: &str, mut rounds: Vec<Round>, failed: Option<String>) -> ExchangeCost {
    let steady = rounds.windows(2).all(|pair| pair[0].counters == pair[1].counters);
    let failed =
        failed.or_else(|| rounds.is_empty().then(|| "a stream before it failed".to_owned()));
    // One whole round, so that the callbacks add up: the one whose fuel is the median.
    rounds.sort_by_key(|round| (round.counters.fuel, round.counters.host_calls));
    let middle = rounds.len() / 2;
    let round = (!rounds.is_empty()).then(|| rounds.swap_remove(middle));
    let (counters, callbacks) = match round {
        Some(round) => (round.counters, rows(&round.callbacks)),
        None => (Counters::default(), Vec::new()),
    };
    let times = TimesPair::default();
    ExchangeCost { name: name.to_owned(), failed, steady, counters, times, callbacks }
}

/// The callbacks by name, in the order in which each was called first.
fn rows(costs: &[CallbackCost]) -> Vec<CallbackRow> {
    let mut rows: Vec<CallbackRow> = Vec::new();
    for cost in costs {
        match rows.iter_mut().find(|row| row.name == cost.name) {
            Some(row) => {
                row.calls += 1;
                row.counters = row.counters + cost.counters;
            }
            None => rows.push(CallbackRow {
                name: cost.name.to_owned(),
                calls: 1,
                counters: cost.counters,
                wall_ns: 0,
                cpu_ns: 0,
            }),
        }
    }
    rows
}
