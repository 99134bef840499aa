//! The machine that measures: what it is, and how busy it was.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a measurement depends on besides the image. Times of two machines, and counters of two engines,
/// are not the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The version of filtergate.
    pub filtergate: String,
    /// The engine and its version.
    pub engine: String,
    /// The machine.
    pub machine: Machine,
    /// The digest of the image's manifest; `None` for a file.
    pub image: Option<String>,
    /// A digest of the target, the configurations and the traffic.
    pub conditions: String,
}

/// A machine, as far as it matters to times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux`.
    pub os: String,
    /// `x86_64`.
    pub arch: String,
    /// The model of the processor, as far as the system tells it.
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Fingerprint {
    /// This filtergate on this machine.
    pub fn new(image: Option<String>, conditions: String) -> Self {
        Self {
            filtergate: env!("CARGO_PKG_VERSION").to_owned(),
            engine: format!("wasmtime {}", wasmtime_environ::VERSION),
            machine: Machine::this(),
            image,
            conditions,
        }
    }
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How busy the machine was during a measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Busyness {
    /// The load average of a minute, at the end; `None` where the system does not tell.
    pub load_average: Option<f64>,
    /// The part of the time in which the cores did something else than idle, for whomever.
    pub busy: Option<f64>,
    /// The part of it that a hypervisor gave to others.
    pub stolen: Option<f64>,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Watches the machine from now on.
pub struct Watch {
    begun: Instant,
    ticks: Option<Ticks>,
}

/// The first line of `/proc/stat`.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Watch {
    /// Begins.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), ticks: Ticks::read() }
    }

    /// What it was like.
    pub fn end(&self) -> Busyness {
        let since = self.ticks.zip(Ticks::read()).map(|(before, now)| Ticks {
            all: now.all.saturating_sub(before.all),
            idle: now.idle.saturating_sub(before.idle),
            stolen: now.stolen.saturating_sub(before.stolen),
        });
        let part = |part: fn(Ticks) -> u64| {
            since.filter(|ticks| ticks.all > 0).map(|ticks| part(ticks) as f64 / ticks.all as f64)
        };
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        Busyness {
            load_average: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            busy: part(|ticks| ticks.all.saturating_sub(ticks.idle)),
            stolen: part(|ticks| ticks.stolen),
            seconds: self.begun.elapsed().as_secs_f64(),
        }
    }
}

impl Ticks {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [_, _, _, idle, waiting, _, _, stolen, ..] = ticks.as_slice() else { return None };
        // Guests are in the time of users already.
        Some(Self { all: ticks.iter().take(8).sum(), idle: idle + waiting, stolen: *stolen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_kernel() {
        let ticks = Ticks::parse("cpu  10 0 5 100 20 1 2 7 0 0\ncpu0 1\n").unwrap();
        assert_eq!((ticks.all, ticks.idle, ticks.stolen), (145, 120, 7));
        assert!(Ticks::parse("cpu  10 0\n").is_none());
        assert!(Ticks::parse("").is_none());
    }
}
