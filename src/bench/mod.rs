//! Load time: phases, samples and statistics.

mod phase;

pub use phase::{Phase, PhaseClock, PhaseTime};
