//! Running modules in wasmtime: [`Template`] is the compiled and linked module, [`Instance`] one run.
//!
//! A template is compiled once and instantiated many times: base VM, canaries, controls and
//! exchanges all come from it.

mod arrivals;
mod artifacts;
mod engine;
mod guest_thread;
mod instance;
mod template;
mod ticker;
mod time_limit;
mod trap;

pub use artifacts::Artifacts;
pub use engine::{Compiler, build_engine};
pub use guest_thread::{GuestThreadError, is_for_guests, on_a_guest_thread, spawn_for_guests};
pub use instance::{CallFailure, Callbacks, EndOfCall, Headers, Instance};
pub use template::{CompileError, InstantiateError, InstantiateErrorKind, Template, VmOptions};
pub use trap::{Trap, TrapKind};
