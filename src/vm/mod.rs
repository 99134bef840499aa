//! Running modules in wasmtime: [`Template`] is the compiled and linked module, [`Instance`] one run.
//!
//! A template is compiled once and instantiated many times: base VM, canaries, controls and
//! exchanges all come from it.

mod engine;
mod instance;
mod template;
mod ticker;
mod trap;

pub use engine::{Compiler, build_engine};
pub use instance::{CallFailure, Callbacks, Headers, Instance, NewContext};
pub use template::{CompileError, InstantiateError, InstantiateErrorKind, Template, VmOptions};
pub use ticker::Ticker;
pub use trap::{Trap, TrapKind};

/// Bytes of stack that a thread needs to run guests: wasm's own and the host's under it.
pub const THREAD_STACK_BYTES: usize = 16 << 20;
