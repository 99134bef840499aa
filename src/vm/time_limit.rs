//! How long one call into a guest may take.

use std::time::{Duration, Instant};

use wasmtime::{Store, Trap as WasmtimeTrap, UpdateDeadline};

use crate::{host::HostState, timing::thread_cpu};

use super::ticker::TICK;

/// A limit for the CPU time of a call, so that a busy machine fails no module.
///
/// The clock of the CPU is too slow to be read at each call. So the epoch's deadline comes after a
/// quarter of the limit, which counts as if the call had had the CPU for all of it, and again after each
/// further quarter, for which the clock is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimit {
    limit: Duration,
    first_ticks: u64,
    ticks: u64,
}

/// A call that gets no CPU at all ends as well, after so many times the limit.
const MOST_WALL: u32 = 10;

/// A call that has been over its deadline.
struct Overdue {
    call: u64,
    since: Instant,
    cpu: Option<Duration>,
}

impl TimeLimit {
    pub fn new(limit: Duration) -> Self {
        let ticks = limit.as_nanos().div_ceil(TICK.as_nanos());
        let quarter = u64::try_from(ticks).unwrap_or(u64::MAX / 2).div_ceil(4).max(1);
        // One more, so that a tick that is about to come ends nothing.
        Self { limit, first_ticks: quarter + 1, ticks: quarter }
    }

    /// Has the calls of a store end when their time is over.
    pub fn apply(self, store: &mut Store<HostState>) {
        let mut overdue: Option<Overdue> = None;
        let quarter = TICK * u32::try_from(self.ticks).unwrap_or(u32::MAX);
        // To ask again for the last few milliseconds is not worth another quarter.
        let enough = self.limit.mul_f64(0.9);
        store.epoch_deadline_callback(move |store| {
            let call = store.data().call_number;
            let cpu = thread_cpu();
            if overdue.as_ref().is_none_or(|known| known.call != call) {
                overdue = Some(Overdue { call, since: Instant::now(), cpu });
            }
            let since_then = overdue.as_ref().map_or(Duration::ZERO, |known| {
                let wall = known.since.elapsed();
                let of_cpu = cpu.zip(known.cpu).map(|(now, then)| now.saturating_sub(then));
                of_cpu.unwrap_or(wall).max(wall / MOST_WALL)
            });
            if quarter + since_then >= enough {
                return Err(WasmtimeTrap::Interrupt.into());
            }
            Ok(UpdateDeadline::Continue(self.ticks))
        });
        self.begin(store);
    }

    /// A call begins.
    pub fn begin(self, store: &mut Store<HostState>) {
        store.set_epoch_deadline(self.first_ticks);
        store.data_mut().call_number += 1;
    }
}
