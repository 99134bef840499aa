//! A named proxy release: which functions it links, what its engine takes, what it limits.

use std::{fmt, str::FromStr};

use crate::abi::{AbiVersion, FuncType, HOST_FUNCTIONS, HostFunction, find_host_function};

/// The oldest Envoy release that can be named: the first on V8 10, which reports only the first
/// missing import, and the oldest whose import set is in the tables without a gap.
pub const OLDEST_ENVOY_MINOR: u8 = 22;
/// The newest Envoy release that the tables describe.
pub const NEWEST_ENVOY_MINOR: u8 = 40;

/// A proxy release to be compatible with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    minor: u8,
}

/// A target's name that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not of the form `envoy:1.MINOR`.
    #[error("`{0}` is not a target: write envoy:1.N, for example envoy:1.40")]
    Syntax(String),
    /// A release outside the tables.
    #[error(
        "no tables for `{0}`: targets go from envoy:1.{OLDEST_ENVOY_MINOR} to envoy:1.{NEWEST_ENVOY_MINOR}"
    )]
    Unknown(String),
}

impl Default for Target {
    fn default() -> Self {
        Self { minor: NEWEST_ENVOY_MINOR }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "envoy:1.{}", self.minor)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let syntax = || TargetError::Syntax(text.to_owned());
        let version = text.strip_prefix("envoy:").ok_or_else(syntax)?;
        let mut parts = version.trim_start_matches('v').split('.');
        if parts.next() != Some("1") {
            return Err(syntax());
        }
        let minor: u8 = parts.next().and_then(|m| m.parse().ok()).ok_or_else(syntax)?;
        // A patch release links what its minor release links.
        if parts.next().is_some_and(|patch| patch.parse::<u16>().is_err()) || parts.next().is_some()
        {
            return Err(syntax());
        }
        if !(OLDEST_ENVOY_MINOR..=NEWEST_ENVOY_MINOR).contains(&minor) {
            return Err(TargetError::Unknown(text.to_owned()));
        }
        Ok(Self { minor })
    }
}

/// What a target says of one imported function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportAnswer {
    /// Linked, with this index in [`HOST_FUNCTIONS`].
    Linked(usize),
    /// The name is linked with another type.
    OtherType(FuncType),
    /// Not linked. Where the name is known, the row says for which ABI or release it is.
    Missing(Option<&'static HostFunction>),
}

impl Target {
    /// The minor number of the Envoy release.
    pub fn envoy_minor(&self) -> u8 {
        self.minor
    }

    /// What this release links for `module.name` when a module of ABI `abi` asks for it with
    /// type `ty`.
    pub fn import(&self, abi: AbiVersion, module: &str, name: &str, ty: &FuncType) -> ImportAnswer {
        match find_host_function(module, name) {
            Some((index, function)) if self.links(function, abi) => {
                let host_type = function.func_type();
                if host_type == *ty {
                    ImportAnswer::Linked(index)
                } else {
                    ImportAnswer::OtherType(host_type)
                }
            }
            Some((_, function)) => ImportAnswer::Missing(Some(function)),
            None => ImportAnswer::Missing(None),
        }
    }

    /// Whether this release links `function` for modules of ABI `abi`.
    pub fn links(&self, function: &HostFunction, abi: AbiVersion) -> bool {
        function.since <= self.minor && function.abis.contains(abi)
    }

    /// Whether this release looks up the export `callback` (only `__main_void` is younger than
    /// the table).
    pub fn looks_up(&self, callback: &str) -> bool {
        callback != "__main_void" || self.minor >= 39
    }

    /// The functions, as a bit set over [`HOST_FUNCTIONS`], that a module may call while it starts.
    pub fn start_allow_list(&self) -> u128 {
        self.allow_list(|function| function.in_start)
    }

    /// The same for an allocation that the host asked for.
    pub fn malloc_allow_list(&self) -> u128 {
        self.allow_list(|function| function.in_malloc)
    }

    fn allow_list(&self, since: impl Fn(&HostFunction) -> u8) -> u128 {
        // Before 1.24 V8 enforced no list.
        if self.minor < 24 {
            return u128::MAX;
        }
        HOST_FUNCTIONS
            .iter()
            .enumerate()
            .filter(|(_, function)| since(function) <= self.minor)
            .fold(0, |set, (index, _)| set | 1 << index)
    }

    /// Whether `poll_oneoff` succeeds (Envoy 1.39 and later; 52 ENOSYS before).
    pub fn poll_oneoff_succeeds(&self) -> bool {
        self.minor >= 39
    }

    /// The most bytes that a module's memory may have: 16,384 pages (the V8 flag
    /// `--wasm-max-mem-pages`), 65,536 before Envoy 1.23.
    pub fn max_memory_bytes(&self) -> u64 {
        if self.minor >= 23 { 1 << 30 } else { 1 << 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!("envoy:1.40".parse::<Target>().unwrap().to_string(), "envoy:1.40");
        assert_eq!("envoy:1.36.4".parse::<Target>().unwrap().to_string(), "envoy:1.36");
        for bad in ["", "envoy", "envoy:", "envoy:2.0", "envoy:1.x", "envoy:1.40.x", "nginx:1.40"] {
            assert!(matches!(bad.parse::<Target>(), Err(TargetError::Syntax(_))), "{bad}");
        }
        for bad in ["envoy:1.21", "envoy:1.41"] {
            assert!(matches!(bad.parse::<Target>(), Err(TargetError::Unknown(_))), "{bad}");
        }
    }

    #[test]
    fn the_table_fits_the_bit_sets() {
        assert!(HOST_FUNCTIONS.len() <= 128, "an allow-list holds 128 functions");
    }
}
