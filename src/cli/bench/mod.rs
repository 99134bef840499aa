//! `filtergate bench`.

mod candidate;

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use tokio::runtime::Runtime;

use crate::{
    CheckOptions,
    bench::{
        self, BenchReport, Busyness, Fingerprint, Plan, Traffic,
        baseline::{self, BaselineError},
        budget::Budget,
        gate::{self, Thresholds},
        report::{Measured, SCHEMA},
    },
    host::Environment,
    image::Digest,
    parity::{self, ParityError},
    report::{bench as show, escape::escape, html, json::Layout},
};

use super::{
    CliError,
    exit::Exit,
    fetch, output,
    run::{self, FilterChoice, Format, LoadArgs, ShowArgs},
};

use candidate::Candidate;

/// Measure what images cost: load by phase, traffic, memory; and compare
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Bench {
    /// An image as for `check`; the first is the baseline
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Loads and batches to measure
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// Loads before them that are not
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup: u32,

    /// Keep the measurement in a file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Compare with what --save kept: the newest
    #[arg(long = "baseline", value_name = "FILE|DIR")]
    baselines: Vec<PathBuf>,

    /// Counter growth that fails, %
    #[arg(long, value_name = "PCT", default_value_t = 2.0, value_parser = percent)]
    threshold_exact: f64,

    /// CPU time growth that fails, %
    #[arg(long, value_name = "PCT", default_value_t = 10.0, value_parser = percent)]
    threshold_time: f64,

    /// Show differences and fail on none
    #[arg(long)]
    no_gate: bool,

    /// Most it may cost: compile=200ms,code=1MiB
    #[arg(long = "budget", value_name = "NAME=LIMIT", value_delimiter = ',')]
    budgets: Vec<Budget>,

    /// Workers whose memory is measured
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,

    /// Show how the cost grows with code, bodies …
    #[arg(long)]
    scale: bool,

    /// Load it in this Envoy, too
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,

    /// Write a page with pictures
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Send these exchanges instead, as JSON
    #[arg(long, value_name = "TEXT|@FILE")]
    exchanges: Option<String>,

    /// Load only: no exchanges or connections
    #[arg(long)]
    no_exchanges: bool,

    /// A headers callback may stop the headers alone
    #[arg(long = "headers-stop-iteration")]
    allow_on_headers_stop_iteration: bool,

    /// Clusters and names around the filter, as JSON
    #[arg(long, value_name = "TEXT|@FILE")]
    environment: Option<String>,

    /// Filter for: http or network
    #[arg(long, value_name = "KIND", default_value = "http", hide_possible_values = true)]
    filter: FilterChoice,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    show: ShowArgs,
}

const AFTER_HELP: &str = concat!(
    fetch::images_help!(),
    "
Examples:
  filtergate bench filter.wasm
  filtergate bench filter.wasm --compiler winch,cranelift --workers 4
  filtergate bench filter.wasm --save main.json
  filtergate bench filter.wasm --baseline main.json
  filtergate bench ghcr.io/acme/filter:1.1 ghcr.io/acme/filter:1.2
  filtergate bench filter.wasm --budget compile=200ms,fuel-per-exchange=1M
  filtergate bench filter.wasm --scale --envoy ./envoy --html bench.html
  filtergate bench filter.wasm --baseline saved/ --html history.html

Loads are measured cold (compiled) and from a store that has the module, one
of the run's own. -v and --format json have a row for each callback.
Fuel counts instructions, and is the same from run to run; only fuel of the
same compiler can be compared. Times are CPU time where something is gated.
Hardware instructions are shown where the kernel counts them, never gated.
--budget knows the phases (fetch, verify, parse, compile, link, instantiate,
start, vm_start, configure), total, cpu-per-exchange, memory, size, code,
compiled-code, functions, fuel-start, fuel-vm_start, fuel-configure, and
fuel-, host-calls-, bytes- and allocations-per-exchange.

Exit codes: 0 nothing is worse, 1 a regression, a budget overdrawn, or an
image that does not load, 2 wrong usage, 3 undecided"
);

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "write a number")?;
    if (0.0..=1e6).contains(&number) { Ok(number) } else { Err("write a number from 0".to_owned()) }
}

impl Bench {
    /// Checks that the images load, measures them in turns, and compares.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        // Before the threads whose instructions are to be counted.
        bench::count_instructions();
        let sources = self.load.fetch.sources(&self.images)?;
        let mut options = self.load.options_for_each_compiler()?;
        fetch::one_registry(&options.fetch, &sources)?;
        // Bytes are fetched, and what is compiled goes to a store of the run's own.
        options.fetch.store = None;
        options.filter = self.filter.into();
        options.controls = false;
        options.plugin.allow_on_headers_stop_iteration = self.allow_on_headers_stop_iteration;
        if let Some(text) = &self.exchanges {
            options.exchanges = run::exchanges(text)?;
        }
        if let Some(text) = &self.environment {
            options.environment = run::json_argument::<Environment>("--environment", text)?;
        }
        let traffic = if self.no_exchanges {
            Traffic::none()
        } else {
            Traffic::of(options.filter, &options.exchanges, &options.connections)
        };
        options.exchanges.clear();
        options.connections.clear();
        let history = self.history()?;
        if let Some(envoy) = &self.envoy {
            // Not found out after minutes.
            parity::release(envoy).map_err(no_envoy)?;
        }
        let runtime = fetch::runtime(&sources)?;
        let mut candidates = Vec::new();
        for (reference, source) in self.images.iter().zip(sources) {
            match Candidate::fetch(reference, source, &options, &runtime) {
                Ok(candidate) => candidates.push(candidate),
                Err(exit) => return Ok(exit),
            }
        }
        let plan =
            Plan { runs: self.runs, warmup: self.warmup, traffic, workers: self.workers.into() };
        let (measured, busyness) = self.measure(&candidates, &options, &plan, &runtime)?;
        let conditions = conditions(&options, &plan);
        let mut reports: Vec<_> = candidates
            .iter()
            .zip(measured)
            .map(|(candidate, measured)| {
                self.report(candidate, &options, measured, busyness.clone(), &conditions)
            })
            .collect();
        for (candidate, report) in candidates.iter().zip(&mut reports) {
            if self.scale {
                report.scale = candidate.scale(&options, &runtime)?;
            }
            if let Some(envoy) = &self.envoy {
                report.in_envoy = Some(candidate.in_envoy(envoy, &options, self.runs)?);
            }
        }
        let exit = self.present(&reports, &history)?;
        if let (Some(path), [report]) = (&self.save, reports.as_slice()) {
            baseline::save(report, path).map_err(not_there)?;
        }
        runtime.shutdown_background();
        Ok(exit)
    }

    /// What was saved before, the oldest first.
    fn history(&self) -> Result<Vec<(String, BenchReport)>, CliError> {
        if self.images.len() > 1 && !self.baselines.is_empty() {
            return Err(CliError::Usage("--baseline: give one image".to_owned()));
        }
        if self.images.len() > 1 && self.save.is_some() {
            return Err(CliError::Usage("--save: give one image".to_owned()));
        }
        let mut all = Vec::new();
        for path in &self.baselines {
            let name = path.display().to_string();
            for report in baseline::read(path).map_err(not_there)? {
                all.push((name.clone(), report));
            }
        }
        all.sort_by_key(|(_, report)| report.created);
        Ok(all)
    }

    /// Measures every candidate under every compiler, all of them in turns; what was measured, by
    /// candidate.
    fn measure(
        &self,
        candidates: &[Candidate],
        options: &CheckOptions,
        plan: &Plan,
        runtime: &Runtime,
    ) -> Result<(Vec<Vec<Measured>>, Busyness), CliError> {
        let compilers = self.load.compilers();
        let mut subjects = Vec::new();
        for candidate in candidates {
            for compiler in &compilers {
                subjects.push(candidate.subject(options, *compiler, runtime));
            }
        }
        let (measured, busyness) = bench::measure(&mut subjects, plan).map_err(|error| {
            CliError::NotMeasured(format!(
                "the image loaded at first and then not any more: {error}"
            ))
        })?;
        let mut measured = measured.into_iter();
        let by_candidate = candidates
            .iter()
            .map(|_| {
                let mut all: Vec<Measured> = Vec::new();
                for measured in measured.by_ref().take(compilers.len()) {
                    // What Winch does not take may have gone to the same compiler.
                    if all.iter().all(|other| other.compiler != measured.compiler) {
                        all.push(measured);
                    }
                }
                all
            })
            .collect();
        Ok((by_candidate, busyness))
    }

    fn report(
        &self,
        candidate: &Candidate,
        options: &CheckOptions,
        measured: Vec<Measured>,
        busyness: Busyness,
        conditions: &str,
    ) -> BenchReport {
        let mut warnings = bench::warnings(&measured, &busyness);
        warnings.extend(candidate.warnings.iter().cloned());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        BenchReport {
            schema: SCHEMA,
            created: since.map_or(0, |since| since.as_secs()),
            reference: candidate.reference.clone(),
            target: options.target.name().to_owned(),
            envoy: options.target.envoy_name(),
            fingerprint: Fingerprint::new(candidate.digest(), conditions.to_owned()),
            module: candidate.module.clone(),
            measured,
            scale: Vec::new(),
            in_envoy: None,
            instructions_not_counted: bench::count_instructions().map(|why| why.to_string()),
            busyness,
            warnings,
        }
    }

    /// Compares each report with what it is to be compared with, and prints it.
    fn present(
        &self,
        reports: &[BenchReport],
        history: &[(String, BenchReport)],
    ) -> Result<Exit, CliError> {
        let mut exit = Exit::Pass;
        let mut pages = Vec::new();
        for (index, report) in reports.iter().enumerate() {
            let other = match (index, history.last(), reports.first()) {
                (0, Some((name, report)), _) => Some((name.as_str(), report)),
                (0, None, _) | (_, _, None) => None,
                (_, _, Some(first)) => Some((first.reference.as_str(), first)),
            };
            let comparisons = match other {
                None => Vec::new(),
                Some((name, other)) => gate::compare(name, other, report, self.thresholds())
                    .map_err(|error| CliError::Usage(error.to_string()))?,
            };
            let budgets = self.budgets.iter().flat_map(|budget| {
                report.measured.iter().map(|measured| budget.spent(report, measured))
            });
            let shown =
                show::Bench { budgets: budgets.collect(), report: report.clone(), comparisons };
            if shown.fails() && !self.no_gate {
                exit = exit.worst(Exit::Fail);
            }
            let is_gated = !shown.comparisons.is_empty() || !shown.budgets.is_empty();
            let gap = if index > 0 && self.show.format == Format::Human { "\n" } else { "" };
            let text = match self.show.format {
                Format::Human => {
                    let callbacks = self.show.verbose > 0;
                    show::render_human(&shown, is_gated && !self.no_gate, callbacks)
                }
                Format::Json => {
                    let layout = if reports.len() == 1 { Layout::Pretty } else { Layout::Line };
                    show::render_json(shown.clone(), layout)
                }
            };
            output::print(&format!("{gap}{text}"))?;
            pages.push(shown);
        }
        if let Some(path) = &self.html {
            let history: Vec<_> = history.iter().map(|(_, report)| report.clone()).collect();
            std::fs::write(path, html::render(&pages, &history)).map_err(|error| {
                let path = escape(&path.display().to_string()).into_owned();
                CliError::Usage(format!("--html: cannot write `{path}`: {error}; name a file in a folder that can be written"))
            })?;
        }
        Ok(exit)
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds { exact: self.threshold_exact / 100.0, time: self.threshold_time / 100.0 }
    }
}

/// A digest of what a measurement depends on besides image, engine and machine.
fn conditions(options: &CheckOptions, plan: &Plan) -> String {
    let text = format!(
        "{:?}",
        (options.target.name(), &options.plugin, &options.environment, &plan.traffic)
    );
    Digest::sha256(text.as_bytes()).hex()[..16].to_owned()
}

fn not_there(error: BaselineError) -> CliError {
    CliError::Usage(escape(&error.to_string()).into_owned())
}

fn no_envoy(error: ParityError) -> CliError {
    let error = escape(&error.to_string()).into_owned();
    CliError::NotMeasured(format!("--envoy: {error}; give the path of an Envoy's binary"))
}
