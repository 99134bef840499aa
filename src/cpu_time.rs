//! CPU time, where the system tells it.

/// Nanoseconds that this thread has been running.
pub(crate) fn of_this_thread() -> u64 {
    #[cfg(unix)]
    return read(rustix::time::ClockId::ThreadCPUTime);
    #[cfg(not(unix))]
    0
}

/// Nanoseconds that all threads of the process have been running.
pub(crate) fn of_the_process() -> u64 {
    #[cfg(unix)]
    return read(rustix::time::ClockId::ProcessCPUTime);
    #[cfg(not(unix))]
    0
}

#[cfg(unix)]
fn read(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
