//! Load time: phases, samples and statistics.

mod load;
mod phase;
mod samples;
mod stats;

pub use crate::timing::PhaseTime;
pub use load::{ColdLoad, LoadConditions, LoadFailed, cold_load, sample};
pub use phase::{Phase, PhaseClock};
pub use samples::{Samples, Series};
pub use stats::{Summary, median};
