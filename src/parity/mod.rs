//! filtergate next to a real Envoy: the same module and traffic in both, and what differs.
//!
//! Both sides come to a [`Record`]: [`ours`] makes it of a verdict, [`theirs`] of a running Envoy's
//! log and answers. [`compare`] shows where two records differ.

pub mod compare;
mod envoy;
mod http1;
mod http2;
mod load_time;
mod log;
mod ours;
mod record;
mod server;
mod tcp;
mod theirs;
mod upstream;

use std::{io, path::PathBuf, time::Duration};

pub use self::{
    envoy::{Envoy, Exchanged, Setup},
    http1::{Message, Pairs, find},
    load_time::load_times,
    log::{Entry, Level},
    ours::{baseline_here, options, our_request, ours},
    record::{
        Baseline, ConnectionRecord, Record, RequestRecord, Status, connections, line, requests,
    },
    tcp::Connected,
    theirs::{baseline, release, their_request, theirs},
};

/// Why there is no record of a real Envoy.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The path names nothing that runs.
    #[error("cannot run `{}`: {source}", binary.display())]
    Binary {
        /// The path.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It runs and is no Envoy.
    #[error("`{}` does not say that it is an Envoy", binary.display())]
    NotEnvoy {
        /// The path.
        binary: PathBuf,
    },
    /// Envoy refused its configuration for a reason that is not the module's.
    #[error("Envoy does not start: {reason}")]
    NoStart {
        /// The last that it logged.
        reason: String,
    },
    /// The machine does not play along.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The longest that Envoy may take to be ready, or to end.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The longest that an answer may take; a filter that pauses a stream takes all of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The longest that the log may take to come to rest.
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// A log that says nothing for so long is at rest.
const QUIET: Duration = Duration::from_millis(150);
