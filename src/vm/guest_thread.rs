//! A thread for guests: their stack is larger than what threads usually get.

use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{Builder, JoinHandle},
};

/// Bytes of stack that a thread needs to run guests: wasm's own and the host's under it.
const STACK_BYTES: usize = 16 << 20;

thread_local! {
    /// Whether this thread was started with that much.
    static IS_FOR_GUESTS: Cell<bool> = const { Cell::new(false) };
}

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

/// Starts a thread on which guests can run: [`on_a_guest_thread`] stays on it.
///
/// # Errors
///
/// Where the system gives no thread.
pub fn spawn_for_guests<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    builder(name).spawn(marked(work))
}

/// Whether this thread was started by [`spawn_for_guests`].
pub fn is_for_guests() -> bool {
    IS_FOR_GUESTS.get()
}

/// Runs `work` with enough stack for guests: here, if this thread was started by
/// [`spawn_for_guests`], and otherwise on a thread of its own.
///
/// # Errors
///
/// Where there is no thread to be had, or the work itself fails.
pub fn on_a_guest_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, GuestThreadError> {
    if is_for_guests() {
        // As if it were another thread: what it leaves half done is not looked at again.
        return catch_unwind(AssertUnwindSafe(work)).map_err(|_| GuestThreadError::Panicked);
    }
    std::thread::scope(|scope| {
        builder("filtergate-guest")
            .spawn_scoped(scope, marked(work))
            .map_err(|error| GuestThreadError::Spawn(error.to_string()))?
            .join()
            .map_err(|_| GuestThreadError::Panicked)
    })
}

fn builder(name: &str) -> Builder {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES)
}

fn marked<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    || {
        IS_FOR_GUESTS.set(true);
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::thread::current;

    use super::*;

    #[test]
    fn a_thread_for_guests_needs_no_other() {
        let on_one = || {
            let here = current().id();
            on_a_guest_thread(|| current().id() == here)
        };
        assert_eq!(on_one(), Ok(false));
        assert_eq!(spawn_for_guests("guests", on_one).unwrap().join().unwrap(), Ok(true));
    }

    #[test]
    fn a_panic_stays_on_the_thread() {
        let failing = || on_a_guest_thread(|| assert!(!is_for_guests(), "of a test"));
        assert_eq!(failing(), Err(GuestThreadError::Panicked));
        let there = spawn_for_guests("guests", failing).unwrap();
        assert_eq!(there.join().unwrap(), Err(GuestThreadError::Panicked));
    }
}
