//! Envoy's log while it is written: entries with a level and a logger, and the calls that its trace of
//! the Wasm extension holds.

use std::{
    io::{BufRead, Read as _},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::record::call_name;

/// Most entries kept; a module may log for as long as it runs.
const MAX_ENTRIES: usize = 100_000;
/// Most bytes kept of one entry.
const MAX_TEXT: usize = 64 << 10;

/// A level, in Envoy's word (`warning`).
pub type Level = String;

/// One entry of the log. A text may have several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was written, by Envoy's own clock: nanoseconds since the epoch. The access log tells
    /// none.
    pub at_ns: Option<u64>,
    /// The level.
    pub level: Level,
    /// The component that logs, such as `wasm`.
    pub logger: String,
    /// What it says.
    pub text: String,
}

impl Entry {
    /// The text of a module, which Envoy logs as `wasm log NAME ROOT_ID: TEXT`; the name only while
    /// the plugin serves.
    pub fn of_module(&self) -> Option<&str> {
        if self.logger != "wasm" {
            return None;
        }
        self.text.strip_prefix("wasm log")?.split_once(": ").map(|(_, text)| text)
    }
}

/// The log so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    ended: bool,
}

impl Log {
    /// Reads until the end. Entries begin with `token`, which no module knows: whatever else begins a
    /// line belongs to the entry before.
    pub fn read(&self, mut from: impl BufRead, token: &str) {
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = MAX_TEXT as u64;
            match from.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(1..) => self.push(&String::from_utf8_lossy(&line), token),
                Ok(0) | Err(_) => break,
            }
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn push(&self, line: &str, token: &str) {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut state = self.lock();
        if let Some(entry) = line.strip_prefix(token).and_then(parse) {
            if state.entries.len() < MAX_ENTRIES {
                state.entries.push(entry);
            }
        } else if let Some(last) = state.entries.last_mut()
            && last.text.len() + line.len() < MAX_TEXT
        {
            last.text.push('\n');
            last.text.push_str(line);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_there` says so of the entries, the log ends, or `limit` is over. What it said
    /// last.
    pub fn wait(&self, limit: Duration, mut is_there: impl FnMut(&[Entry]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if is_there(&state.entries) {
                return true;
            }
            if state.ended || left.is_zero() {
                return false;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits until nothing more is logged, at most for `limit`.
    pub fn rest(&self, quiet: Duration, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let count = self.count();
            if !self.wait(quiet, |entries| entries.len() > count) {
                return;
            }
        }
    }

    /// Whether the process that writes has ended.
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// The entries from one on.
    pub fn from(&self, index: usize) -> Vec<Entry> {
        self.lock().entries.get(index..).unwrap_or_default().to_vec()
    }
}

/// `SECONDS.NANOSECONDS [LEVEL][LOGGER] TEXT`; the time may be missing.
fn parse(line: &str) -> Option<Entry> {
    let (time, rest) = line.split_once('[')?;
    let at_ns = match time.trim_end() {
        "" => None,
        time => {
            let (seconds, fraction) = time.split_once('.')?;
            let seconds: u64 = seconds.parse().ok()?;
            let fraction: u64 = fraction.parse().ok()?;
            seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
        }
    };
    let (level, rest) = rest.split_once("][")?;
    let (logger, text) = rest.split_once("] ")?;
    Some(Entry { at_ns, level: level.to_owned(), logger: logger.to_owned(), text: text.to_owned() })
}

/// The calls that a trace holds, as a record has them.
pub(super) fn calls(entries: &[Entry]) -> Vec<String> {
    // Name in the trace, the call in the record, and what it returned.
    let mut calls: Vec<(&str, String, Option<&str>)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let traced = entries.iter().filter(|entry| entry.logger == "wasm" && entry.level == "trace");
    for Entry { text, .. } in traced {
        let Some((mark, call)) = text.split_once("] ") else { continue };
        match mark {
            "[host->vm" | "[vm->host" => {
                let Some((name, arguments)) = call.split_once('(') else { continue };
                let shown = if mark == "[vm->host" {
                    let (module, name) = name.split_once('.').unwrap_or(("env", name));
                    call_name(Some(module), name)
                } else {
                    format!("{}({}", call_name(None, name), arguments.replace(' ', ""))
                };
                open.push(calls.len());
                calls.push((name, shown, None));
            }
            "[host<-vm" | "[vm<-host" => {
                let Some((name, result)) = call.split_once(" return: ") else { continue };
                // What is above it has not come back.
                while let Some(index) = open.pop() {
                    if calls[index].0 == name {
                        calls[index].2 = Some(result);
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    let shown = |(_, call, result): (&str, String, Option<&str>)| match result {
        Some("void") => call,
        Some(result) => format!("{call}={result}"),
        None => format!("{call}=!"),
    };
    calls.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::{Entry, Log, calls};

    fn read(text: &str) -> Vec<Entry> {
        let log = Log::default();
        log.read(text.as_bytes(), "#");
        log.from(0)
    }

    #[test]
    fn what_does_not_begin_an_entry_belongs_to_the_one_before() {
        let entries =
            read("#[info][wasm] wasm log a b: one\n[error][wasm] two\n#[error][wasm] x\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].of_module(), Some("one\n[error][wasm] two"));
        assert_eq!(entries[1].of_module(), None);
    }

    #[test]
    fn times_are_nanoseconds() {
        let entries =
            read("#1700000000.000000042 [info][main] a\n#[info][access] b\n#x [info][main] c\n");
        let times: Vec<_> = entries.iter().map(|entry| entry.at_ns).collect();
        // What is no time makes no entry.
        assert_eq!(times, [Some(1_700_000_000_000_000_042), None]);
    }

    #[test]
    fn calls_nest_and_may_not_return() {
        let entries = read(
            "#[trace][wasm] [host->vm] proxy_on_configure(1, 0)\n\
             #[trace][wasm] [vm->host] env.proxy_log(2, 8, 1)\n\
             #[trace][wasm] [vm<-host] env.proxy_log return: 0\n\
             #[trace][wasm] [host->vm] proxy_on_tick(1)\n\
             #[trace][wasm] [vm->host] wasi_snapshot_preview1.proc_exit(1)\n\
             #[trace][wasm] [host->vm] proxy_on_log(2)\n\
             #[trace][wasm] [host<-vm] proxy_on_log return: void\n",
        );
        assert_eq!(
            calls(&entries),
            ["on_configure(1,0)=!", "<log=0", "on_tick(1)=!", "<wasi.proc_exit=!", "on_log(2)"]
        );
    }
}
