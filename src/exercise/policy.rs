//! What becomes of requests whose VM failed.

use serde::{Deserialize, Serialize};

/// `failure_policy` of the plugin's configuration (Envoy
/// `api/envoy/extensions/wasm/v3/wasm.proto`). The stream on which a VM fails is answered with 503
/// under each of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Later streams are answered with 503, too. Envoy's default.
    #[default]
    Closed,
    /// Later streams pass the filter by (`fail_open` of older configurations).
    Open,
    /// The next stream gets a new VM, where the last one was started more than about a second before
    /// (1.33 and later).
    Reload,
}

impl FailurePolicy {
    /// The name in Envoy's API.
    pub fn envoy_name(self) -> &'static str {
        match self {
            Self::Closed => "FAIL_CLOSED",
            Self::Open => "FAIL_OPEN",
            Self::Reload => "FAIL_RELOAD",
        }
    }
}

/// The longest that Envoy waits before it reloads a VM, by its default backoff of one second and at
/// most half as much again; nanoseconds.
pub const RELOAD_AFTER_NS: u64 = 1_500_000_000;
