//! The clock behind time limits: it advances an engine's epoch while guests may run.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use wasmtime::Engine;

/// How often the epoch advances.
pub const TICK: Duration = Duration::from_millis(10);

/// A thread that advances the epoch of an engine until it is dropped.
pub struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts ticking.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread: without one no limit would hold.
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (engine, signal) = (engine.weak(), Arc::clone(&stop));
        let thread =
            std::thread::Builder::new().name("filtergate-epoch".to_owned()).spawn(move || {
                let (stopped, condvar) = &*signal;
                let mut stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                while !*stopped {
                    stopped = condvar
                        .wait_timeout(stopped, TICK)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A ticker that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}
