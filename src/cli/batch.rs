//! Work on many things at once, whose results are taken in order.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::vm::{is_for_guests, spawn_for_guests};

/// As many jobs for `count` things as the machine has cores for.
pub fn default_jobs(count: usize) -> NonZeroUsize {
    match count {
        0 | 1 => NonZeroUsize::MIN,
        _ => thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    }
}

/// Results that may wait for an earlier one: a slow one must not have all the others pile up in memory.
const AHEAD: usize = 30;

struct State<R> {
    /// The first thing that nobody has begun.
    next: usize,
    /// How many results were taken.
    taken: usize,
    /// Those that wait, by their place behind the next one to be taken.
    ready: Vec<Option<thread::Result<R>>>,
    /// Nobody takes any more.
    stop: bool,
}

struct Shared<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<R>>) -> MutexGuard<'a, State<R>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` for each number below `count`, at most `jobs` of them at a time, and gives the results to
/// `take` in the order of the numbers.
///
/// The work is done on threads for guests, which is this one where there is a single job and it is such a
/// thread; `take` is called on this one. Where it fails, what has begun is left to itself.
///
/// What comes with a result is dropped when the result was taken or may be, so that nobody waits for
/// it. A thread may still be at that when this returns, and the last one's may never be dropped: the
/// process is about to end.
///
/// # Errors
///
/// The first of `take`.
pub fn in_order<R: Send + 'static, D, E>(
    count: usize,
    jobs: NonZeroUsize,
    work: impl Fn(usize) -> (R, D) + Send + Sync + 'static,
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let jobs = jobs.get().min(count);
    if jobs == 1 && is_for_guests() {
        return (0..count).try_for_each(|number| one_here(number, count, &work, &mut take));
    }
    let work = Arc::new(work);
    let window = jobs + AHEAD;
    let state = State { next: 0, taken: 0, ready: Vec::new(), stop: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    let mut started = 0;
    for _ in 0..jobs {
        let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
        let job = move || run_job(&shared, count, window, &*work);
        started += usize::from(spawn_for_guests("filtergate-job", job).is_ok());
    }
    if started == 0 {
        return (0..count).try_for_each(|number| one_here(number, count, &*work, &mut take));
    }
    for number in 0..count {
        let result = {
            let mut state = shared.lock();
            loop {
                if matches!(state.ready.first(), Some(Some(_))) {
                    break;
                }
                state = shared.wait(state);
            }
            state.taken += 1;
            state.ready.remove(0)
        };
        shared.changed.notify_all();
        let taken = match result {
            Some(Ok(result)) => take(number, result),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        };
        if let Err(error) = taken {
            shared.lock().stop = true;
            shared.changed.notify_all();
            return Err(error);
        }
    }
    Ok(())
}

fn one_here<R, D, E>(
    number: usize,
    count: usize,
    work: impl Fn(usize) -> (R, D),
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let (result, dropped) = work(number);
    take(number, result)?;
    if number + 1 == count {
        // Here it would be waited for.
        std::mem::forget(dropped);
    }
    Ok(())
}

fn run_job<R, D>(shared: &Shared<R>, count: usize, window: usize, work: &impl Fn(usize) -> (R, D)) {
    let mut state = shared.lock();
    loop {
        if state.stop || state.next >= count {
            return;
        }
        if state.next >= state.taken + window {
            state = shared.wait(state);
            continue;
        }
        let number = state.next;
        state.next += 1;
        drop(state);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(number)));
        let (result, dropped) = match done {
            Ok((result, dropped)) => (Ok(result), Some(dropped)),
            Err(panic) => (Err(panic), None),
        };
        state = shared.lock();
        let place = number - state.taken;
        if state.ready.len() <= place {
            state.ready.resize_with(place + 1, || None);
        }
        state.ready[place] = Some(result);
        drop(state);
        shared.changed.notify_all();
        drop(dropped);
        state = shared.lock();
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::atomic::AtomicUsize, sync::atomic::Ordering::SeqCst};

    use super::*;

    fn jobs(jobs: usize) -> NonZeroUsize {
        NonZeroUsize::new(jobs).unwrap()
    }

    #[test]
    fn results_come_in_order() {
        for of in [1, 2, 7] {
            let mut taken = Vec::new();
            // The first ones take longest.
            let work = |number: usize| {
                for _ in 0..1000 * (50 - number) {
                    std::hint::black_box(number);
                }
                (number * number, ())
            };
            let ok: Result<(), Infallible> = in_order(50, jobs(of), work, |number, result| {
                taken.push((number, result));
                Ok(())
            });
            ok.unwrap();
            let expected: Vec<_> = (0..50).map(|number| (number, number * number)).collect();
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn no_more_is_begun_than_may_wait() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let work = move |_| (counter.fetch_add(1, SeqCst), ());
        let taken: Result<(), Infallible> = in_order(100, jobs(2), work, |number, _| {
            // One is being taken: it no longer waits.
            assert!(begun.load(SeqCst) <= number + 1 + 2 + AHEAD);
            Ok(())
        });
        taken.unwrap();
    }

    #[test]
    fn nothing_is_begun_behind_an_error() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let work = move |_| (counter.fetch_add(1, SeqCst), ());
        let failed = in_order(1000, jobs(3), work, |number, _| match number {
            5 => Err("enough"),
            _ => Ok(()),
        });
        assert_eq!(failed, Err("enough"));
        assert!(begun.load(SeqCst) <= 6 + 3 + AHEAD);
    }

    #[test]
    fn one_job_stays_on_its_thread_and_leaves_the_last_to_the_end_of_the_process() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&dropped);
        let on_one = move || {
            let here = thread::current().id();
            let work = move |_| (thread::current().id() == here, Counted(Arc::clone(&counter)));
            let mut all_here = true;
            let ok: Result<(), Infallible> = in_order(5, jobs(1), work, |_, is_here| {
                all_here &= is_here;
                Ok(())
            });
            ok.unwrap();
            all_here
        };
        assert!(spawn_for_guests("guests", on_one).unwrap().join().unwrap());
        assert_eq!(dropped.load(SeqCst), 4);
    }

    #[test]
    fn a_panic_is_the_callers() {
        let work = |number: usize| (assert!(number != 3, "the third"), ());
        let all = || in_order(9, jobs(2), work, |_, ()| Ok::<_, Infallible>(()));
        let panic = std::panic::catch_unwind(all).unwrap_err();
        assert!(panic.downcast_ref::<&str>() == Some(&"the third"));
    }
}
