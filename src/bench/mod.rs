//! Load time and the cost of traffic: exact counters, times, and what differs from build to build.
//!
//! [`measure`] makes what a [`BenchReport`] holds.

pub mod baseline;
pub mod budget;
mod counting;
pub mod figures;
pub mod gate;
mod load;
mod machine;
mod measure;
mod phase;
mod reference;
pub mod report;
mod run_store;
pub mod scale;
mod stats;
mod steady;
mod traffic;
mod warnings;

pub use crate::timing::{NotCounted, PhaseTime, count_instructions};
pub use load::{Bytes, LoadConditions, LoadFailed, Subject, TimedLoad, cold_load};
pub use machine::{Busyness, Fingerprint, Machine};
pub use measure::{Plan, measure};
pub use phase::{Phase, PhaseClock, PhaseEnd};
pub use report::BenchReport;
pub use stats::{Summary, median};
pub use traffic::Traffic;
pub use warnings::warnings;
