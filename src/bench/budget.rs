//! Budgets: what a filter may cost at most, whatever it cost before.

use std::{str::FromStr, time::Duration};

use serde::Serialize;

use super::{
    phase::Phase,
    report::{BenchReport, ExchangeCost, Measured, Root, Times},
};

/// What can have a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Phase(Phase),
    Total,
    CpuPerExchange,
    Memory,
    ModuleSize,
    Code,
    CompiledCode,
    Functions,
    FuelOf(Phase),
    FuelPerExchange,
    HostCallsPerExchange,
    BytesPerExchange,
    AllocationsPerExchange,
}

/// The names, and what they are budgets of.
const ITEMS: &[(&str, Item)] = &[
    ("fetch", Item::Phase(Phase::Fetch)),
    ("verify", Item::Phase(Phase::Verify)),
    ("parse", Item::Phase(Phase::Parse)),
    ("compile", Item::Phase(Phase::Compile)),
    ("link", Item::Phase(Phase::Link)),
    ("instantiate", Item::Phase(Phase::Instantiate)),
    ("start", Item::Phase(Phase::Start)),
    ("vm_start", Item::Phase(Phase::VmStart)),
    ("configure", Item::Phase(Phase::Configure)),
    ("total", Item::Total),
    ("cpu-per-exchange", Item::CpuPerExchange),
    ("memory", Item::Memory),
    ("size", Item::ModuleSize),
    ("code", Item::Code),
    ("compiled-code", Item::CompiledCode),
    ("functions", Item::Functions),
    ("fuel-start", Item::FuelOf(Phase::Start)),
    ("fuel-vm_start", Item::FuelOf(Phase::VmStart)),
    ("fuel-configure", Item::FuelOf(Phase::Configure)),
    ("fuel-per-exchange", Item::FuelPerExchange),
    ("host-calls-per-exchange", Item::HostCallsPerExchange),
    ("bytes-per-exchange", Item::BytesPerExchange),
    ("allocations-per-exchange", Item::AllocationsPerExchange),
];

/// What a limit is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetUnit {
    /// Nanoseconds of CPU time.
    Ns,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
}

impl Item {
    fn unit(self) -> BudgetUnit {
        match self {
            Self::Phase(_) | Self::Total | Self::CpuPerExchange => BudgetUnit::Ns,
            Self::Memory
            | Self::ModuleSize
            | Self::Code
            | Self::CompiledCode
            | Self::BytesPerExchange => BudgetUnit::Bytes,
            _ => BudgetUnit::Count,
        }
    }
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    name: &'static str,
    item: Item,
    limit: u64,
}

/// Why a word is no budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBudget(String);

impl FromStr for Budget {
    type Err = BadBudget;

    fn from_str(text: &str) -> Result<Self, BadBudget> {
        let (name, limit) = text
            .split_once('=')
            .ok_or_else(|| BadBudget("write NAME=LIMIT, as in compile=200ms".to_owned()))?;
        let Some((name, item)) = ITEMS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<_> = ITEMS.iter().map(|(name, _)| *name).collect();
            return Err(BadBudget(format!(
                "no budget has this name; known are {}",
                names.join(", ")
            )));
        };
        let (limit, example) = match item.unit() {
            BudgetUnit::Ns => (time(limit), "a time, as in 200ms or 50us"),
            BudgetUnit::Bytes => (bytes(limit), "a size, as in 32MiB or 900KiB"),
            BudgetUnit::Count => (count(limit), "a number, as in 500, 20k or 1M"),
        };
        let limit = limit.ok_or_else(|| BadBudget(format!("the budget of {name} is {example}")))?;
        Ok(Self { name, item: *item, limit })
    }
}

/// A number and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let (number, unit) = number(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let value = number * factor;
    (value < u64::MAX as f64).then_some(value.round() as u64)
}

fn time(text: &str) -> Option<u64> {
    let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
    scaled(text, &units).filter(|ns| *ns <= Duration::from_secs(86_400).as_nanos() as u64)
}

fn bytes(text: &str) -> Option<u64> {
    let (kib, mib) = (1024.0, 1024.0 * 1024.0);
    scaled(text, &[("", 1.0), ("B", 1.0), ("KiB", kib), ("MiB", mib), ("GiB", mib * kib)])
}

fn count(text: &str) -> Option<u64> {
    scaled(text, &[("", 1.0), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)])
}

/// What a budget allowed and what there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// The name of the budget.
    pub budget: &'static str,
    /// Under which compiler.
    pub compiler: String,
    /// In what it is counted.
    pub unit: BudgetUnit,
    /// At most.
    pub limit: u64,
    /// What there was; the most of all roots and exchanges. `None` where it was not measured.
    pub spent: Option<u64>,
    /// Whether it is too much. Of a time, the lower end of the median's confidence interval has to be.
    pub over: bool,
}

impl Budget {
    /// What was spent of it.
    pub fn spent(&self, report: &BenchReport, measured: &Measured) -> Spent {
        let (spent, sure) = self.amounts(report, measured).unzip();
        Spent {
            budget: self.name,
            compiler: measured.compiler.clone(),
            unit: self.item.unit(),
            limit: self.limit,
            spent,
            over: sure.is_some_and(|sure| sure > self.limit),
        }
    }

    /// What there was, and what there was for sure.
    fn amounts(&self, report: &BenchReport, measured: &Measured) -> Option<(u64, u64)> {
        let exact = |value: u64| Some((value, value));
        let exchanges = || {
            let all = measured.roots.iter().flat_map(|root| &root.exchanges);
            all.filter(|exchange| exchange.failed.is_none())
        };
        let most = |value: fn(&ExchangeCost) -> u64| {
            exchanges().map(value).max().map(|value| (value, value))
        };
        let longest = |times: &mut dyn Iterator<Item = &Times>| {
            let summaries = times.filter_map(|times| times.summary);
            summaries.max_by_key(|s| s.median).map(|s| (s.median, s.low.min(s.median)))
        };
        let phases = &measured.load.phases;
        match self.item {
            Item::Phase(name) => {
                longest(&mut phases.iter().filter(|p| p.name == name).map(|p| &p.times.cpu_ns))
            }
            Item::Total => longest(&mut [&measured.load.total.cpu_ns].into_iter()),
            Item::CpuPerExchange => longest(&mut exchanges().map(|cost| &cost.times.cpu_ns)),
            Item::Memory => {
                let pages = measured.roots.iter().map(Root::peak_pages).max()?;
                exact(pages << 16)
            }
            Item::ModuleSize => exact(report.module.size),
            Item::Code => exact(report.module.code_bytes),
            Item::CompiledCode => exact(measured.compiled_bytes),
            Item::Functions => exact(report.module.functions),
            Item::FuelOf(name) => {
                let fuel = phases.iter().filter(|p| p.name == name).map(|p| p.counters.fuel);
                exact(fuel.max()??)
            }
            Item::FuelPerExchange => most(|cost| cost.counters.fuel.unwrap_or(0)),
            Item::HostCallsPerExchange => most(|cost| cost.counters.host_calls),
            Item::BytesPerExchange => {
                most(|cost| cost.counters.bytes_to_host + cost.counters.bytes_to_guest)
            }
            Item::AllocationsPerExchange => most(|cost| cost.counters.allocations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |text: &str| text.parse::<Budget>().map(|budget| (budget.name, budget.limit));
        assert_eq!(parse("compile=200ms"), Ok(("compile", 200_000_000)));
        assert_eq!(parse("memory=32MiB"), Ok(("memory", 32 << 20)));
        assert_eq!(parse("fuel-per-exchange=1M"), Ok(("fuel-per-exchange", 1_000_000)));
        assert_eq!(parse("configure=0.5ms"), Ok(("configure", 500_000)));
        for bad in ["", "compile", "compile=", "compile=5", "memory=32ms", "fuel-per-exchange=-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let unknown = parse("speed=1").unwrap_err().to_string();
        assert!(unknown.contains("known are fetch, verify"), "{unknown}");
    }
}
