//! What all instances of one Envoy process share: shared data, queues and metrics.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

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
    /// Metric values by kind and name.
    pub metrics: HashMap<(u32, Vec<u8>), MetricValue>,
}

/// What all instances share.
#[derive(Debug, Default)]
pub struct Process {
    tables: Mutex<Tables>,
}

impl Process {
    /// A process in which nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tables.
    pub fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic elsewhere leaves the tables whole: every change is one insertion.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
