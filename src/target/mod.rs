//! A named proxy release: which functions it links, what its engine takes, what it limits.

mod changes;
mod distributions;
mod releases;

use std::{fmt, str::FromStr};

use crate::{
    abi::{AbiVersion, FuncType, HOST_FUNCTIONS, HostFunction, find_host_function},
    module::Proposal,
};

pub use changes::{CHANGES, Change};
pub use distributions::{DISTRIBUTIONS, DistributionRelease};
pub use releases::{Evidence, RELEASES, Release};

/// A proxy release to be compatible with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    name: String,
    release: &'static Release,
    /// The patch release of Envoy, where it was named.
    patch: Option<u16>,
    distribution: Option<&'static DistributionRelease>,
}

/// A target's name that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not of the form `PROXY:MAJOR.MINOR`.
    #[error(
        "`{0}` is not a target: write envoy:1.N, istio:1.N or envoy-gateway:1.N, for example envoy:1.40"
    )]
    Syntax(String),
    /// A release outside the tables.
    #[error(
        "no tables for `{name}`: targets go from {oldest} to {newest}; `filtergate targets` lists them all"
    )]
    Unknown {
        /// The name as it was typed.
        name: String,
        /// The proxy's oldest release in the tables.
        oldest: String,
        /// Its newest one.
        newest: String,
    },
}

impl Default for Target {
    fn default() -> Self {
        Self::of_envoy(&RELEASES[RELEASES.len() - 1])
    }
}

impl fmt::Display for Target {
    /// `envoy:1.40`, `istio:1.24 (envoy:1.32)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.distribution {
            None => Ok(()),
            Some(_) => write!(f, " ({})", self.envoy_name()),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let syntax = || TargetError::Syntax(text.to_owned());
        let (proxy, version) = text.split_once(':').ok_or_else(syntax)?;
        let version = version.strip_prefix('v').unwrap_or(version);
        let mut numbers = version.split('.').map(str::parse::<u16>);
        let mut next = || numbers.next().transpose().map_err(|_| syntax());
        let (Some(major), Some(minor), patch) = (next()?, next()?, next()?) else {
            return Err(syntax());
        };
        if next()?.is_some() {
            return Err(syntax());
        }
        let all: Vec<_> = Self::all().filter(|target| target.proxy() == proxy).collect();
        let (Some(oldest), Some(newest)) = (all.first(), all.last()) else {
            return Err(syntax());
        };
        let name = format!("{proxy}:{major}.{minor}");
        let found = all.iter().find(|target| target.name == name).ok_or_else(|| {
            let (oldest, newest) = (oldest.name.clone(), newest.name.clone());
            TargetError::Unknown { name: text.to_owned(), oldest, newest }
        })?;
        let mut found = found.clone();
        if let Some(patch) = patch {
            found.name = format!("{name}.{patch}");
            // The patch releases of a distribution do not say which of Envoy's are in them.
            found.patch = found.distribution.is_none().then_some(patch);
        }
        Ok(found)
    }
}

impl Target {
    fn of_envoy(release: &'static Release) -> Self {
        let name = format!("envoy:1.{}", release.minor);
        Self { name, release, patch: None, distribution: None }
    }

    fn of_distribution(distribution: &'static DistributionRelease) -> Option<Self> {
        let release = RELEASES.iter().find(|r| r.minor == distribution.envoy_minor)?;
        let DistributionRelease { distribution: proxy, version: (major, minor), .. } = distribution;
        let name = format!("{proxy}:{major}.{minor}");
        Some(Self { name, release, patch: None, distribution: Some(distribution) })
    }

    /// Every target: Envoy's releases, then those of each distribution, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let envoys = RELEASES.iter().map(Self::of_envoy);
        envoys.chain(DISTRIBUTIONS.iter().filter_map(Self::of_distribution))
    }

    /// The name as it was typed: `istio:1.24`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn proxy(&self) -> &str {
        self.distribution.map_or("envoy", |distribution| distribution.distribution)
    }

    /// The name of the Envoy release: `envoy:1.32`.
    pub fn envoy_name(&self) -> String {
        format!("envoy:1.{}", self.release.minor)
    }

    /// The Envoy release's row in the tables.
    pub fn release(&self) -> &'static Release {
        self.release
    }

    /// The distribution's row in the tables; none for Envoy itself.
    pub fn distribution(&self) -> Option<&'static DistributionRelease> {
        self.distribution
    }

    /// The version of V8: of the patch release, or where none is named of the newest one.
    pub fn v8(&self) -> &'static str {
        match self.release.v8_of_patch {
            Some((since, v8)) if self.patch.is_none_or(|patch| patch >= since) => v8,
            _ => self.release.v8,
        }
    }

    /// Whether its V8 has a wasm proposal on. [`Release::evidence`] says how that is known.
    pub fn has_proposal(&self, proposal: &Proposal) -> bool {
        let mut numbers = self.v8().split('.').map_while(|number| number.parse().ok());
        let version: (u16, u16) =
            (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        proposal.v8_since.is_some_and(|since| since <= version)
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
        self.release.minor
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
        function.since <= self.release.minor && function.abis.contains(abi)
    }

    /// Whether this release looks up the export `callback` (only `__main_void` is younger than
    /// the table).
    pub fn looks_up(&self, callback: &str) -> bool {
        callback != "__main_void" || self.release.runs_main_void
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
        if !self.release.restricts_start {
            return u128::MAX;
        }
        HOST_FUNCTIONS
            .iter()
            .enumerate()
            .filter(|(_, function)| since(function) <= self.release.minor)
            .fold(0, |set, (index, _)| set | 1 << index)
    }

    /// The most bytes that a module's memory may have.
    pub fn max_memory_bytes(&self) -> u64 {
        u64::from(self.release.max_memory_pages) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, TargetError> {
        text.parse()
    }

    #[test]
    fn names() {
        for (typed, shown) in [
            ("envoy:1.40", "envoy:1.40"),
            ("envoy:v1.36.4", "envoy:1.36.4"),
            ("istio:1.24", "istio:1.24 (envoy:1.32)"),
            ("istio:1.24.3", "istio:1.24.3 (envoy:1.32)"),
            ("envoy-gateway:v1.0", "envoy-gateway:1.0 (envoy:1.29)"),
        ] {
            assert_eq!(parse(typed).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "envoy",
            "envoy:",
            "envoy:1",
            "envoy:1.x",
            "envoy:1.40.x",
            "envoy:1.40.0.0",
            "envoy:vv1.40",
            "nginx:1.40",
            "istio",
            "Istio:1.24",
            "istio:1.24 ",
        ] {
            assert!(matches!(parse(bad), Err(TargetError::Syntax(_))), "{bad}");
        }
        for bad in ["envoy:1.21", "envoy:1.41", "envoy:2.40", "istio:1.13", "envoy-gateway:2.0"] {
            assert!(matches!(parse(bad), Err(TargetError::Unknown { .. })), "{bad}");
        }
    }

    #[test]
    fn every_target_is_found_by_its_name() {
        for target in Target::all() {
            assert_eq!(parse(target.name()).unwrap(), target);
        }
        assert_eq!(Target::default().name(), "envoy:1.40");
        assert_eq!(Target::all().count(), RELEASES.len() + DISTRIBUTIONS.len());
    }

    #[test]
    fn releases_follow_each_other() {
        for pair in RELEASES.windows(2) {
            assert_eq!(pair[0].minor + 1, pair[1].minor);
            assert!(pair[1].date.is_none_or(|date| pair[0].date.unwrap() < date));
        }
    }

    #[test]
    fn a_patch_release_may_have_another_v8() {
        for (name, v8) in [
            ("envoy:1.33.5", "10.7.193.13"),
            ("envoy:1.33.6", "12.9.202.27"),
            ("envoy:1.33", "12.9.202.27"),
            ("istio:1.25.0", "12.9.202.27"),
            ("envoy:1.35", "13.8.258.26"),
        ] {
            assert_eq!(parse(name).unwrap().v8(), v8, "{name}");
        }
    }

    #[test]
    fn the_table_fits_the_bit_sets() {
        assert!(HOST_FUNCTIONS.len() <= 128, "an allow-list holds 128 functions");
    }
}
