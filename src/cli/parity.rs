//! `filtergate parity`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{
    CheckOptions,
    exercise::Exchange,
    image::{self, Image},
    parity::{
        self, Baseline, ParityError, Record, Setup,
        compare::{self, Change, Part},
    },
    report::{escape, trace},
};

use super::{
    CliError,
    exit::Exit,
    fetch, output, progress,
    run::{FilterChoice, Format, LoadArgs, ShowArgs, TraceFormat, TrafficArgs},
};

/// Run filters here and in a real Envoy, and show what differs
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Parity {
    /// A registry reference, a .wasm file, or another (see below)
    #[arg(value_name = "IMAGE", required_unless_present = "baseline")]
    images: Vec<String>,

    /// The Envoy to run
    #[arg(long, value_name = "PATH", required_unless_present_any = ["record", "baseline"])]
    envoy: Option<PathBuf>,

    /// Print what happened, one line of JSON each, from Envoy if there is one, else from here
    #[arg(long)]
    record: bool,

    /// Print every call here, too: text or json
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text", hide_possible_values = true, conflicts_with = "record")]
    trace: Option<TraceFormat>,

    /// Print what happens to the requests without a filter
    #[arg(long)]
    baseline: bool,

    /// Filter for: http or network
    #[arg(long, value_name = "KIND", default_value = "http", hide_possible_values = true)]
    filter: FilterChoice,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    traffic: TrafficArgs,

    #[command(flatten)]
    show: ShowArgs,
}

const AFTER_HELP: &str = concat!(
    super::fetch::images_help!(),
    "
Examples:
  filtergate parity filter.wasm --envoy /usr/local/bin/envoy
  filtergate parity filter.wasm --envoy ./envoy --root-id auth --config @auth.json
  filtergate parity --record *.wasm > here.jsonl
  filtergate parity --record --envoy ./envoy *.wasm > envoy.jsonl

Exit codes: 0 equal, 1 different, 2 wrong usage, 3 could not be compared"
);

impl Parity {
    /// Runs the images one after another and prints each result as soon as it is there.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let root_id = match self.load.plugin.root_ids.as_slice() {
            [] => "",
            [one] => one,
            _ => return Err(CliError::Usage("--root-id: give one".to_owned())),
        };
        let sources = self.load.fetch.sources(&self.images)?;
        let mut options = parity::options(self.load.options()?, root_id);
        options.filter = self.filter.into();
        self.traffic.apply(&mut options)?;
        let over_http2 = options.exchanges.iter().filter(|exchange| exchange.is_http2()).count();
        if over_http2 != 0 && over_http2 != options.exchanges.len() {
            return Err(CliError::Usage(
                "--exchanges: some have metadata and so are over HTTP/2, and some are over HTTP/1.1: one Envoy has one kind of upstream, run them apart".to_owned(),
            ));
        }
        fetch::one_registry(&options.fetch, &sources)?;
        let here = parity::baseline_here(&options);
        let there = match &self.envoy {
            None => None,
            Some(envoy) => Some(
                parity::baseline(envoy, options.filter, &options.exchanges)
                    .map_err(not_compared)?,
            ),
        };
        if let Some(there) = &there {
            warn_of_another_release(&options, there);
        }
        let baseline = there.as_ref().unwrap_or(&here);
        if self.baseline {
            output::print(&format!("{}\n", parity::line(baseline)))?;
        }
        let runtime = fetch::runtime(&sources)?;
        let progress = progress::progress(true);
        let mut exit = Exit::Pass;
        for (source, reference) in sources.iter().zip(&self.images) {
            let fetched = image::fetch(source, reference, &options.fetch, &*progress);
            let one = match runtime.block_on(fetched) {
                Ok(image) => self.one(&image, &options, baseline),
                Err(error) => Err(CliError::NotMeasured(format!("{reference}: {error}"))),
            };
            // The others may still be compared.
            let one = one.or_else(|error| match error {
                CliError::NotMeasured(why) => {
                    output::print_error(&format!("error: {}\n", escape::escape(&why)));
                    Ok(Exit::Undecided)
                }
                other => Err(other),
            });
            exit = exit.worst(one?);
        }
        runtime.shutdown_background();
        Ok(exit)
    }

    fn one(
        &self,
        image: &Image,
        options: &CheckOptions,
        baseline: &Baseline,
    ) -> Result<Exit, CliError> {
        let here = || {
            let verdict = crate::judge(image, options);
            match self.trace {
                Some(TraceFormat::Text) => output::print(&trace::render_text(&verdict))?,
                Some(TraceFormat::Json) => output::print(&trace::render_json(&verdict))?,
                None => {}
            }
            Ok::<_, CliError>(parity::ours(&verdict))
        };
        let there = |envoy: &PathBuf| {
            let root_id = options.root_ids.first().map_or("", String::as_str);
            let setup = Setup {
                filter: options.filter,
                module: Some(image.wasm.clone()),
                plugin: options.plugin.with_root_id(root_id),
                buffer_limit_bytes: options.environment.buffer_limit_bytes,
                failure_policy: options.failure_policy,
                trace: true,
                http2: options.exchanges.iter().any(Exchange::is_http2),
            };
            let mut record =
                parity::theirs(envoy, &setup, &options.exchanges).map_err(not_compared)?;
            record.sha256.clone_from(&image.wasm_sha256);
            record.path.clone_from(&image.reference);
            Ok::<_, CliError>(record)
        };
        match &self.envoy {
            Some(envoy) if !self.record => self.show(&here()?, &there(envoy)?, baseline),
            Some(envoy) => print_record(there(envoy)?, baseline),
            None => print_record(here()?, baseline),
        }
    }

    fn show(&self, here: &Record, envoy: &Record, baseline: &Baseline) -> Result<Exit, CliError> {
        let parts = compare::parts(here, envoy);
        let differ: Vec<_> = parts.iter().filter(|part| !part.is_equal()).collect();
        let equal = parts.len() - differ.len();
        let text = match self.show.format {
            Format::Json => {
                let value = json!({
                    "schema": 1, "reference": here.path, "envoy": baseline.envoy,
                    "equal": equal, "differences": differ,
                });
                format!("{value}\n")
            }
            Format::Human => {
                let verdict = if differ.is_empty() { "EQUAL" } else { "DIFFERENT" };
                let mut text = format!(
                    "{verdict}  {}\n  {equal} of {} parts are as in Envoy {}\n",
                    escape::escape(&here.path),
                    parts.len(),
                    baseline.envoy
                );
                if !differ.is_empty() {
                    text.push_str("  - only here, + only in Envoy\n");
                }
                differ.iter().for_each(|part| show_part(part, &mut text));
                text
            }
        };
        output::print(&text)?;
        let undecided = here.loads.is_none();
        Ok(match (undecided, differ.is_empty()) {
            (true, _) => Exit::Undecided,
            (false, true) => Exit::Pass,
            (false, false) => Exit::Fail,
        })
    }
}

fn show_part(part: &Part, text: &mut String) {
    text.push_str(&format!("\n  {}\n", escape::escape(&part.name)));
    for change in compare::diff(part) {
        let (mark, line) = match change {
            Change::Both(line) => (' ', line),
            Change::Here(line) => ('-', line),
            Change::Envoy(line) => ('+', line),
        };
        text.push_str(&format!("    {mark} {}\n", escape::escape(line)));
    }
}

fn print_record(mut record: Record, baseline: &Baseline) -> Result<Exit, CliError> {
    record.relate(&baseline.baseline);
    output::print(&format!("{}\n", parity::line(&record)))?;
    Ok(if record.loads.is_none() { Exit::Undecided } else { Exit::Pass })
}

fn not_compared(error: ParityError) -> CliError {
    CliError::NotMeasured(error.to_string())
}

fn warn_of_another_release(options: &CheckOptions, there: &Baseline) {
    let minor = options.target.envoy_minor();
    if !there.envoy.starts_with(&format!("1.{minor}.")) {
        output::print_error(&format!(
            "warning: this is Envoy {}, and what is checked for is {}: see --target\n",
            escape::escape(&there.envoy),
            options.target
        ));
    }
}
