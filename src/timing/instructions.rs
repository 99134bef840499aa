//! Instructions that the processor itself counts, where the kernel hands the count out.
//!
//! There is one counter for the whole process: of instructions in user mode, of all threads that begin
//! after it (`perf_event_open`, with `inherit`). So it has to begin before any thread that works.

/// Why instructions are not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// The processor has no counter, or the hypervisor hides it.
    #[error(
        "this machine has no counter for them, which is common in virtual machines: measure on one that has"
    )]
    NoCounter,
    /// The kernel is told to let nobody count.
    #[error(
        "kernel.perf_event_paranoid is {0}, which forbids it: set it to 2 (sysctl kernel.perf_event_paranoid=2)"
    )]
    Paranoid(i32),
    /// Something else forbids it; mostly a container.
    #[error(
        "perf_event_open is forbidden here: in a container, allow it by the seccomp profile or with the capability PERFMON"
    )]
    Forbidden,
    /// The kernel was built without it, or something that stands for a kernel has none.
    #[error(
        "this kernel has no perf_event_open: measure with one that has (CONFIG_PERF_EVENTS), outside of a sandbox"
    )]
    NoSystemCall,
    /// The processor's counters were taken by turns.
    #[error(
        "others had the processor's counters meanwhile: stop perf and the like, or the kernel's watchdog (sysctl kernel.nmi_watchdog=0)"
    )]
    Shared,
    /// Another system.
    #[error("they are counted on Linux only, and this is {}", std::env::consts::OS)]
    NotLinux,
    /// The kernel's own words for anything else.
    #[error("perf_event_open: {0}")]
    Other(String),
}

#[cfg(target_os = "linux")]
pub use linux::count_instructions;
#[cfg(target_os = "linux")]
pub(super) use linux::now;

/// On other systems there is no count.
#[cfg(not(target_os = "linux"))]
pub fn count_instructions() -> Option<NotCounted> {
    Some(NotCounted::NotLinux)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn now() -> Option<u64> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io,
        sync::{
            Mutex, OnceLock, PoisonError,
            atomic::{AtomicBool, Ordering},
        },
    };

    use perf_event::Builder;
    use rustix::io::Errno;

    use super::NotCounted;

    struct Counter {
        events: Mutex<perf_event::Counter>,
        /// Whether it did not run all the time.
        shared: AtomicBool,
    }

    static COUNTER: OnceLock<Result<Counter, NotCounted>> = OnceLock::new();

    /// Counts the instructions of this thread and of those that begin from now on, until the process
    /// ends; after the first time it only says how that stands. `None` where they are counted.
    pub fn count_instructions() -> Option<NotCounted> {
        match COUNTER.get_or_init(|| begin().map_err(|error| refusal(&error, paranoid()))) {
            Err(why) => Some(why.clone()),
            Ok(counter) if counter.shared.load(Ordering::Relaxed) => Some(NotCounted::Shared),
            Ok(_) => None,
        }
    }

    /// The count; `None` where there is none or it has gaps.
    pub fn now() -> Option<u64> {
        let counter = COUNTER.get()?.as_ref().ok()?;
        let mut events = counter.events.lock().unwrap_or_else(PoisonError::into_inner);
        let read = events.read_count_and_time().ok()?;
        if has_gaps(read.time_enabled, read.time_running) {
            counter.shared.store(true, Ordering::Relaxed);
        }
        (!counter.shared.load(Ordering::Relaxed)).then_some(read.count)
    }

    fn begin() -> io::Result<Counter> {
        // Its defaults are instructions in user mode.
        let mut builder = Builder::new();
        builder.inherit(true);
        let mut events = builder.build()?;
        events.enable()?;
        Ok(Counter { events: Mutex::new(events), shared: AtomicBool::new(false) })
    }

    /// Whether a counter that was wanted for `enabled` nanoseconds ran too short a part of them. The kernel
    /// reads the times of several threads one after the other, so that a thousandth is no gap.
    fn has_gaps(enabled: u64, running: u64) -> bool {
        enabled.saturating_sub(running) > enabled / 1_000
    }

    /// The sysctl that says who may count.
    fn paranoid() -> Option<i32> {
        std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
    }

    /// What the kernel's error means (perf_event_open(2), section "Errors").
    fn refusal(error: &io::Error, paranoid: Option<i32>) -> NotCounted {
        /// Up to here everybody may count what runs in user mode.
        const USER_MODE: i32 = 2;
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => NotCounted::NoCounter,
            Some(Errno::ACCESS | Errno::PERM) => match paranoid {
                Some(level) if level > USER_MODE => NotCounted::Paranoid(level),
                _ => NotCounted::Forbidden,
            },
            Some(Errno::NOSYS) => NotCounted::NoSystemCall,
            Some(Errno::BUSY) => NotCounted::Shared,
            _ => NotCounted::Other(error.to_string()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn each_refusal_says_what_to_do() {
            let why = |errno: Errno, paranoid| refusal(&errno.into(), paranoid).to_string();
            for (errno, paranoid, words) in [
                (Errno::NOENT, Some(2), "no counter for them"),
                (Errno::OPNOTSUPP, None, "no counter for them"),
                (Errno::ACCESS, Some(3), "kernel.perf_event_paranoid is 3"),
                (Errno::PERM, Some(4), "sysctl kernel.perf_event_paranoid=2"),
                (Errno::PERM, Some(2), "in a container"),
                (Errno::ACCESS, None, "in a container"),
                (Errno::NOSYS, Some(-1), "CONFIG_PERF_EVENTS"),
                (Errno::BUSY, Some(-1), "nmi_watchdog"),
                (Errno::MFILE, Some(-1), "perf_event_open: "),
            ] {
                let text = why(errno, paranoid);
                assert!(text.contains(words), "{errno:?} {paranoid:?}: {text}");
            }
        }

        #[test]
        fn a_counter_taken_by_turns_has_gaps() {
            assert!(!has_gaps(0, 0) && !has_gaps(1_000_000, 1_000_000));
            assert!(!has_gaps(1_000_000, 999_500) && !has_gaps(1_000, 1_001));
            assert!(has_gaps(1_000_000, 500_000) && has_gaps(1_000_000, 0));
        }

        #[test]
        fn there_is_a_count_or_a_reason() {
            let not_counted = count_instructions();
            let before = now();
            std::hint::black_box((0..10_000u64).map(std::hint::black_box).max());
            let after = now();
            match count_instructions() {
                None => assert!(before < after),
                // Others may have taken the counter in between.
                Some(NotCounted::Shared) => assert_eq!(after, None),
                Some(why) => assert_eq!((not_counted, before, after), (Some(why), None, None)),
            }
        }
    }
}
