//! The clock behind time limits: it advances the epochs of engines while guests may run.

use std::{
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// How often epochs advance.
pub const TICK: Duration = Duration::from_millis(10);

/// The engines that somebody needs ticks of, each with their number.
struct Clock {
    state: Mutex<State>,
    wanted: Condvar,
}

struct State {
    has_thread: bool,
    engines: Vec<(Engine, usize)>,
}

/// One for the process: a thread for each module would take longer to start than a small module runs.
static CLOCK: Clock = Clock {
    state: Mutex::new(State { has_thread: false, engines: Vec::new() }),
    wanted: Condvar::new(),
};

impl Clock {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.engines.is_empty() {
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                drop(state);
                thread::sleep(TICK);
                state = self.lock();
                state.engines.iter().for_each(|(engine, _)| engine.increment_epoch());
            }
        }
    }
}

/// Has the epoch of an engine advance, once for each [`TICK`] however many there are of the same
/// engine, until it is dropped.
pub struct Ticker {
    engine: Engine,
}

impl Ticker {
    /// Starts ticking.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread: without one no limit would hold.
    pub fn start(engine: &Engine) -> io::Result<Self> {
        let mut state = CLOCK.lock();
        if !state.has_thread {
            thread::Builder::new().name("filtergate-epoch".to_owned()).spawn(|| CLOCK.run())?;
            state.has_thread = true;
        }
        match state.engines.iter_mut().find(|(known, _)| Engine::same(known, engine)) {
            Some((_, tickers)) => *tickers += 1,
            None => state.engines.push((engine.clone(), 1)),
        }
        drop(state);
        CLOCK.wanted.notify_one();
        Ok(Self { engine: engine.clone() })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        let mut state = CLOCK.lock();
        let at = state.engines.iter().position(|(known, _)| Engine::same(known, &self.engine));
        if let Some(at) = at {
            state.engines[at].1 -= 1;
            if state.engines[at].1 == 0 {
                state.engines.swap_remove(at);
            }
        }
    }
}
