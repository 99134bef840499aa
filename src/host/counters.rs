//! Exact counters of what an instance did: they are the same from run to run, however busy the machine
//! is.

use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// What crossed the boundary between the module and the host, and what it took. Two readings of one
/// instance differ by what it did between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Fuel that the guest used; `None` where the engine does not count it. Only fuel under one
    /// compiler can be compared.
    pub fuel: Option<u64>,
    /// Calls of host functions.
    pub host_calls: u64,
    /// Bytes that host functions read from the guest's memory.
    pub bytes_to_host: u64,
    /// Bytes that they wrote to it.
    pub bytes_to_guest: u64,
    /// Calls of the module's allocator (`malloc` or `proxy_on_memory_allocate`) by the host.
    pub allocations: u64,
    /// Bytes that these asked for.
    pub allocated_bytes: u64,
}

impl Sub for Counters {
    type Output = Self;

    /// What was counted since `before`.
    fn sub(self, before: Self) -> Self {
        let fuel = self.fuel.zip(before.fuel);
        Self {
            fuel: fuel.map(|(now, before)| now.saturating_sub(before)),
            host_calls: self.host_calls.saturating_sub(before.host_calls),
            bytes_to_host: self.bytes_to_host.saturating_sub(before.bytes_to_host),
            bytes_to_guest: self.bytes_to_guest.saturating_sub(before.bytes_to_guest),
            allocations: self.allocations.saturating_sub(before.allocations),
            allocated_bytes: self.allocated_bytes.saturating_sub(before.allocated_bytes),
        }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let fuel = self.fuel.zip(other.fuel);
        Self {
            fuel: fuel.map(|(one, two)| one + two).or(self.fuel).or(other.fuel),
            host_calls: self.host_calls + other.host_calls,
            bytes_to_host: self.bytes_to_host + other.bytes_to_host,
            bytes_to_guest: self.bytes_to_guest + other.bytes_to_guest,
            allocations: self.allocations + other.allocations,
            allocated_bytes: self.allocated_bytes + other.allocated_bytes,
        }
    }
}

/// What the host copied and asked for, as it goes: an addition for each, always on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boundary {
    /// Bytes read from the guest's memory.
    pub bytes_to_host: u64,
    /// Bytes written to it.
    pub bytes_to_guest: u64,
    /// Calls of the module's allocator.
    pub allocations: u64,
    /// Bytes that these asked for.
    pub allocated_bytes: u64,
}

/// What a meter reads before and after each callback. Each costs time of its own, so that it takes a
/// run for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metered {
    /// The exact counters.
    Counters,
    /// Wall time.
    Wall,
    /// CPU time of the thread.
    Cpu,
}

/// One callback, by its meter.
#[derive(Debug, Clone, Copy)]
pub struct CallbackCost {
    /// The export.
    pub name: &'static str,
    /// What it counted, by [`Metered::Counters`].
    pub counters: Counters,
    /// How long it took, by the others; the reading of the clock is in it.
    pub ns: u64,
}

/// Keeps what each callback costs.
#[derive(Debug)]
pub struct Meter {
    /// What is read.
    pub reads: Metered,
    costs: Vec<CallbackCost>,
}

/// Most callbacks kept between two takings.
const MAX_COSTS: usize = 1 << 16;

impl Meter {
    /// Nothing is kept yet.
    pub fn new(reads: Metered) -> Self {
        Self { reads, costs: Vec::with_capacity(64) }
    }

    /// Keeps one callback.
    pub fn push(&mut self, cost: CallbackCost) {
        if self.costs.len() < MAX_COSTS {
            self.costs.push(cost);
        }
    }

    /// Takes the callbacks so far, in order.
    pub fn take(&mut self) -> Vec<CallbackCost> {
        std::mem::take(&mut self.costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_and_sums() {
        let before = Counters { fuel: Some(10), host_calls: 1, ..Counters::default() };
        let after = Counters { fuel: Some(25), host_calls: 4, bytes_to_host: 7, ..before };
        let cost = after - before;
        assert_eq!((cost.fuel, cost.host_calls, cost.bytes_to_host), (Some(15), 3, 7));
        assert_eq!((before + cost), after);
        // Without fuel on one side there is none in the difference.
        let unfuelled = Counters { fuel: None, ..before };
        assert_eq!((after - unfuelled).fuel, None);
        assert_eq!((unfuelled + cost).fuel, Some(15));
    }
}
