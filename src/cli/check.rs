//! `filtergate check`.

use std::time::Duration;

use clap::Args;

use crate::{
    CheckOptions,
    host::Environment,
    image::Source,
    report::{
        human::{self, Detail},
        json::{self, Layout},
        matrix, trace,
    },
    verdict::Outcome,
};

use super::{
    CliError,
    exit::Exit,
    fetch, output, progress,
    run::{self, FilterChoice, Format, LoadArgs, ShowArgs, TraceFormat, TrafficArgs},
    values,
};

/// Check that images load and behave: pass or fail, with every reason
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// A registry reference, oci:DIRECTORY[:TAG], or a .wasm file
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    traffic: TrafficArgs,

    /// Workers that share the traffic
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,

    /// Clusters and names around the filter, as JSON
    #[arg(long, value_name = "TEXT|@FILE")]
    environment: Option<String>,

    /// Filter for: http or network
    #[arg(long, value_name = "KIND", default_value = "http", hide_possible_values = true)]
    filter: FilterChoice,

    /// Begin no root_id after this
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::duration)]
    budget: Duration,

    /// Do not try an unknown and the empty root_id
    #[arg(long)]
    no_controls: bool,

    /// Load only: no exchanges or connections
    #[arg(long)]
    no_exchanges: bool,

    /// Print every call: text or json
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text", hide_possible_values = true)]
    trace: Option<TraceFormat>,

    #[command(flatten)]
    show: ShowArgs,

    /// Print nothing but the verdict's line
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

const AFTER_HELP: &str = "\
Examples:
  filtergate check target/wasm32-wasip1/release/my_filter.wasm
  filtergate check ghcr.io/acme/filter:1.2 --target envoy:1.31
  filtergate check filter.wasm --target istio:1.24,istio:1.29,envoy:1.40
  filtergate check oci:examples/images/add-header --format json
  filtergate check filter.wasm --root-id auth --config @auth.json
  filtergate check filter.wasm --filter network

Exit codes: 0 pass, 1 fail, 2 wrong usage, 3 undecided, 4 nothing tested";

impl Check {
    /// Checks the images one after another and prints each verdict as soon as it is there.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let options = self.options()?;
        // A reference that cannot be used is found before anything is fetched.
        let sources: Vec<Source> =
            self.images.iter().map(|image| fetch::source(image)).collect::<Result<_, _>>()?;
        let runtime = fetch::runtime(&sources)?;
        let progress = progress::progress(!self.quiet);
        // Objects and text do not go together on one output.
        let all_json = self.show.format == Format::Json || self.trace == Some(TraceFormat::Json);
        let (format, trace_format) = if all_json {
            (Format::Json, self.trace.map(|_| TraceFormat::Json))
        } else {
            (Format::Human, self.trace)
        };
        let colour = self.show.color.for_stdout();
        let mut exit = Exit::Pass;
        let mut outcomes = Vec::with_capacity(sources.len());
        for (index, (source, reference)) in sources.iter().zip(&self.images).enumerate() {
            let checked = crate::check_targets(source, reference, &options, &*progress);
            let verdicts = runtime.block_on(checked);
            exit = verdicts.iter().fold(exit, |exit, verdict| exit.worst(Exit::of(verdict)));
            outcomes.push(Outcome::worst(verdicts.iter().map(|verdict| verdict.outcome)));
            if let (Some(format), [verdict]) = (trace_format, verdicts.as_slice()) {
                output::print(&match format {
                    TraceFormat::Text => trace::render_text(verdict),
                    TraceFormat::Json => trace::render_json(verdict),
                })?;
            }
            let one_object = sources.len() == 1 && options.len() == 1 && self.trace.is_none();
            let layout = if one_object { Layout::Pretty } else { Layout::Line };
            let text = match (format, verdicts.as_slice()) {
                (Format::Json, verdicts) => {
                    verdicts.iter().map(|verdict| json::render(verdict, layout)).collect()
                }
                (Format::Human, [verdict]) => human::render(verdict, self.detail(), colour),
                (Format::Human, verdicts) => matrix::render(verdicts, self.detail(), colour),
            };
            let gap = format == Format::Human && index > 0 && !self.quiet;
            output::print(&if gap { format!("\n{text}") } else { text })?;
        }
        if sources.len() > 1 && format == Format::Human && !self.quiet {
            output::print(&format!("\n{}", human::tally(&outcomes)))?;
        }
        runtime.shutdown_background();
        Ok(exit)
    }

    /// The options for each target.
    fn options(&self) -> Result<Vec<CheckOptions>, CliError> {
        let mut all = self.load.options_for_each_target()?;
        if all.len() > 1 && self.trace.is_some() {
            return Err(CliError::Usage("--trace: give one target".to_owned()));
        }
        let environment = self
            .environment
            .as_deref()
            .map(|text| run::json_argument("--environment", text))
            .transpose()?;
        for options in &mut all {
            options.filter = self.filter.into();
            self.traffic.apply(options)?;
            options.budget = self.budget;
            options.workers = self.workers.into();
            if let Some(environment) = &environment {
                options.environment = Environment::clone(environment);
            }
            options.controls = !self.no_controls;
            options.vm.trace = self.trace.is_some();
            if self.no_exchanges {
                options.exchanges.clear();
                options.connections.clear();
            }
        }
        Ok(all)
    }

    fn detail(&self) -> Detail {
        match (self.quiet, self.show.verbose) {
            (true, _) => Detail::VerdictOnly,
            (false, 0) => Detail::Normal,
            (false, _) => Detail::Everything,
        }
    }
}
