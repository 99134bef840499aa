//! Logging: `proxy_log`, `proxy_get_log_level`, and the lines that a module leaves.

use crate::abi::Status;

use super::{
    memory::{Guest, view, write_u32},
    state::{HostResult, HostState},
};

/// A level of the ABI.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the ABI's own")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl LogLevel {
    fn from_abi(level: u32) -> Option<Self> {
        Some(match level {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return None,
        })
    }

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// A line that a module logged. Its text is the module's: escape it before showing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The level that the module gave.
    pub level: LogLevel,
    /// The text, with anything that is no UTF-8 replaced.
    pub message: String,
}

/// Lines of one run, up to a limit.
#[derive(Debug, Default)]
pub struct LogSink {
    lines: Vec<LogLine>,
    bytes: usize,
    dropped: u64,
}

/// Most lines kept of one run.
const MAX_LINES: usize = 4096;
/// Most bytes kept of one run.
const MAX_BYTES: usize = 1 << 20;
/// Most bytes kept of one line.
const MAX_LINE: usize = 16 << 10;

impl LogSink {
    /// Keeps a line, or counts it where there is no more room.
    pub fn push(&mut self, level: LogLevel, message: &[u8]) {
        if self.lines.len() >= MAX_LINES || self.bytes >= MAX_BYTES {
            self.dropped += 1;
            return;
        }
        let kept = &message[..message.len().min(MAX_LINE)];
        let mut text = String::from_utf8_lossy(kept).into_owned();
        if kept.len() < message.len() {
            text.push_str(&format!("… ({} bytes in all)", message.len()));
        }
        self.bytes += text.len();
        self.lines.push(LogLine { level, message: text });
    }

    /// Takes the lines so far and leaves the counts, so that the limits hold for the whole run.
    pub fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines)
    }

    /// Lines that were not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// `proxy_log`: a level above 5 is refused before the memory is looked at.
pub fn proxy_log(guest: &mut Guest<'_>, level: u32, ptr: u32, size: u32) -> HostResult {
    let level = LogLevel::from_abi(level).ok_or(Status::BadArgument)?;
    guest.data().context_id()?;
    let (message, state) = view(guest, ptr, size)?;
    state.log(level, message);
    Ok(())
}

/// `proxy_get_log_level` (0.2.1): the level of Envoy's `wasm` logger.
pub fn proxy_get_log_level(guest: &mut Guest<'_>, level_ptr: u32) -> HostResult {
    guest.data().context_id()?;
    let level = guest.data().process.environment.log_level;
    write_u32(guest, level_ptr, level as u32)
}

impl HostState {
    /// Logs a line for the module.
    pub fn log(&mut self, level: LogLevel, message: &[u8]) {
        self.logs.push(level, message);
    }
}
