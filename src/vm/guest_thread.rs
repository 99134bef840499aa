//! A thread for guests: their stack is larger than what threads usually get.

/// Bytes of stack that a thread needs to run guests: wasm's own and the host's under it.
const STACK_BYTES: usize = 16 << 20;

/// Why work on a thread for guests came to no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestThreadError {
    /// The system gave no thread.
    #[error("no thread to run the module on: {0}")]
    Spawn(String),
    /// A fault of filtergate's own, whose message stands on standard error.
    #[error("filtergate itself failed while it ran the module; please report it")]
    Panicked,
}

/// Runs `work` on a thread with enough stack for guests.
///
/// # Errors
///
/// Where there is no thread to be had, or the work itself fails.
pub fn on_a_guest_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, GuestThreadError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("filtergate-guest".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| GuestThreadError::Spawn(error.to_string()))?
            .join()
            .map_err(|_| GuestThreadError::Panicked)
    })
}
