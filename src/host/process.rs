//! What all instances of one Envoy process share: shared data, queues and metrics.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use super::{env::wall_clock_ns, environment::Environment, metrics::HISTOGRAM};

/// The time at which reproducible processes begin, nanoseconds since the epoch: 2026-01-01.
const REPRODUCIBLE_BEGIN_NS: u64 = 1_767_225_600_000_000_000;
/// What passes there from one reading of the clock to the next: a guest that waits for time to pass
/// comes to an end.
const REPRODUCIBLE_STEP_NS: u64 = 1_000;

/// A value of shared data with its compare-and-swap number.
#[derive(Debug, Clone)]
pub struct SharedValue {
    /// The bytes.
    pub value: Vec<u8>,
    /// Never 0.
    pub cas: u32,
}

/// A shared queue.
#[derive(Debug, Default)]
pub struct Queue {
    /// Items that nobody took yet.
    pub items: VecDeque<Vec<u8>>,
    /// The instance and root context that registered it last.
    pub owner: (u32, u32),
}

/// An item was put into a queue: its owner is to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueReady {
    /// The instance of the owner.
    pub instance: u32,
    /// Its root context.
    pub root: u32,
    /// The queue.
    pub token: u32,
    /// Its place among all events.
    pub order: u64,
}

/// A metric's value, shared by all ids that were given for its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetricValue {
    /// A counter's or gauge's value, or the last sample of a histogram.
    pub value: u64,
    /// Samples of a histogram.
    pub samples: u64,
}

/// The tables behind one lock: instances run one after the other, so that it is never contended.
#[derive(Debug, Default)]
pub struct Tables {
    /// Shared data by `(vm_id, key)`.
    pub shared_data: HashMap<(String, Vec<u8>), SharedValue>,
    /// The last compare-and-swap number, for all of shared data.
    pub last_cas: u32,
    /// Queue tokens by `(vm_id, name)`.
    pub queue_tokens: HashMap<(String, Vec<u8>), u32>,
    /// Queues by token; tokens start at 1.
    pub queues: Vec<Queue>,
    /// Items that their owners have not heard of.
    pub posts: VecDeque<QueueReady>,
    /// Metric values by kind and name.
    pub metrics: HashMap<(u32, Vec<u8>), MetricValue>,
}

impl Tables {
    /// Whether no instance has left anything here.
    pub fn is_untouched(&self) -> bool {
        self.shared_data.is_empty() && self.queues.is_empty() && self.metrics.is_empty()
    }

    /// `name: value` of each counter and gauge, in the order of their names.
    pub fn counters_and_gauges(&self) -> Vec<String> {
        let shown = self.metrics.iter().filter(|((kind, _), _)| *kind != HISTOGRAM).map(
            |((_, name), metric)| format!("{}: {}", String::from_utf8_lossy(name), metric.value),
        );
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        shown
    }
}

/// What all instances share.
#[derive(Debug, Default)]
pub struct Process {
    tables: Mutex<Tables>,
    /// What surrounds the filter.
    pub environment: Environment,
    /// Nanoseconds that the drivers let pass.
    elapsed_ns: AtomicU64,
    orders: AtomicU64,
    instances: AtomicU32,
    /// In a reproducible process: readings of the clock, and the source of random numbers.
    reproducible: Option<Mutex<(u64, fastrand::Rng)>>,
}

impl Process {
    /// A process in which nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, surrounded by `environment`.
    pub fn within(environment: Environment) -> Self {
        Self { environment, ..Self::default() }
    }

    /// A process whose clock and random numbers are the same each time, so that a module does the same
    /// work each time: many seed their hash tables by them.
    #[must_use]
    pub fn reproducible(self) -> Self {
        Self { reproducible: Some(Mutex::new((0, fastrand::Rng::with_seed(0)))), ..self }
    }

    /// Fills `bytes` for the guest; answers whether the system had enough random numbers.
    pub fn fill_random(&self, bytes: &mut [u8]) -> bool {
        match &self.reproducible {
            None => getrandom::fill(bytes).is_ok(),
            Some(source) => {
                source.lock().unwrap_or_else(PoisonError::into_inner).1.fill(bytes);
                true
            }
        }
    }

    /// Nanoseconds that passed on the virtual clock, by which timers go.
    pub fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns.load(Ordering::Relaxed)
    }

    /// Lets time pass up to this reading of the virtual clock.
    pub fn advance_to(&self, elapsed_ns: u64) {
        self.elapsed_ns.fetch_max(elapsed_ns, Ordering::Relaxed);
    }

    /// What a guest reads as the time: the wall clock, and what the drivers let pass beyond it.
    pub fn now_ns(&self) -> u64 {
        let now = match &self.reproducible {
            None => wall_clock_ns(),
            Some(source) => {
                let readings = &mut source.lock().unwrap_or_else(PoisonError::into_inner).0;
                *readings += 1;
                REPRODUCIBLE_BEGIN_NS + *readings * REPRODUCIBLE_STEP_NS
            }
        };
        now.saturating_add(self.elapsed_ns())
    }

    /// A number for an event: those of one time come in this order.
    pub fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for an instance.
    pub fn next_instance(&self) -> u32 {
        self.instances.fetch_add(1, Ordering::Relaxed)
    }

    /// The tables.
    pub fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic elsewhere leaves the tables whole: every change is one insertion.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
