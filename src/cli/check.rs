//! `filtergate check`.

use std::num::NonZeroUsize;

use clap::Args;
use tokio::runtime::Runtime;

use crate::{
    CheckOptions, Judge,
    image::{self, FetchOptions, Image, ImageError, Progress, Source},
    report::{
        human::{self, Detail},
        json::{self, Layout},
        matrix, trace,
    },
    verdict::{Outcome, Verdict},
};

use super::{
    CliError, batch,
    conditions::Conditions,
    exit::Exit,
    fetch, output, progress,
    run::{Format, ShowArgs, TraceFormat},
};

/// Check that images load and behave: pass or fail, with every reason
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// A registry reference, a .wasm file, or another (see below)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    #[command(flatten)]
    conditions: Conditions,

    /// Images at once [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    jobs: Option<NonZeroUsize>,

    /// Print every call: text or json
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text", hide_possible_values = true)]
    trace: Option<TraceFormat>,

    #[command(flatten)]
    show: ShowArgs,

    /// Print nothing but the verdict's line
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

const AFTER_HELP: &str = concat!(
    fetch::images_help!(),
    "
Examples:
  filtergate check target/wasm32-wasip1/release/my_filter.wasm
  filtergate check ghcr.io/acme/filter:1.2 --target envoy:1.31
  filtergate check filter.wasm --target istio:1.24,istio:1.29,envoy:1.40
  filtergate check oci:examples/images/add-header --format json
  filtergate check filter.wasm --root-id auth --config @auth.json
  filtergate check filter.wasm --filter network

Exit codes: 0 pass, 1 fail, 2 wrong usage, 3 undecided, 4 nothing tested"
);

impl Check {
    /// Checks the images, and prints each verdict as soon as it and those before it are there.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        // A reference that cannot be used is found before anything is fetched.
        let sources = self.conditions.load.fetch.sources(&self.images)?;
        let mut options = self.options()?;
        let count = self.images.len();
        let jobs = self.jobs.unwrap_or_else(|| batch::default_jobs(count));
        for options in &mut options {
            options.vm.parallel = jobs.get() == 1 || count == 1;
        }
        // They differ in their targets alone.
        let fetch = options.first().map(|first| first.fetch.clone()).unwrap_or_default();
        fetch::one_registry(&fetch, &sources)?;
        let store = fetch.store.clone();
        // Objects and text do not go together on one output.
        let all_json = self.show.format == Format::Json || self.trace == Some(TraceFormat::Json);
        let (format, trace_format) = if all_json {
            (Format::Json, self.trace.map(|_| TraceFormat::Json))
        } else {
            (Format::Human, self.trace)
        };
        let batch = Batch {
            layout: if sources.len() == 1 && options.len() == 1 && self.trace.is_none() {
                Layout::Pretty
            } else {
                Layout::Line
            },
            runtime: fetch::shared_runtime(&sources)?,
            images: sources.into_iter().zip(self.images.iter().cloned()).collect(),
            options,
            fetch,
            progress: progress::progress(!self.quiet),
            format,
            trace_format,
            detail: self.detail(),
            colour: self.show.color.for_stdout(),
        };
        let mut exit = Exit::Pass;
        let mut outcomes = Vec::with_capacity(count);
        let work = move |index: usize| batch.check(index);
        batch::in_order(count, jobs, work, |index, checked: Result<Checked, CliError>| {
            let checked = checked?;
            exit = exit.worst(checked.exit);
            outcomes.push(checked.outcome);
            let gap = format == Format::Human && index > 0 && !self.quiet;
            output::print(&checked.trace)?;
            output::print(&if gap { format!("\n{}", checked.text) } else { checked.text })
        })?;
        if count > 1 && format == Format::Human && !self.quiet {
            output::print(&format!("\n{}", human::tally(&outcomes)))?;
        }
        // The jobs may be at their clearing up still, and the process ends without waiting for that.
        if let Some(store) = store {
            store.finish();
        }
        Ok(exit)
    }

    /// The options for each target.
    fn options(&self) -> Result<Vec<CheckOptions>, CliError> {
        let mut all = self.conditions.options()?;
        if all.len() > 1 && self.trace.is_some() {
            return Err(CliError::Usage("--trace: give one target".to_owned()));
        }
        for options in &mut all {
            options.vm.trace = self.trace.is_some();
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

/// What is to be checked, and how it is shown.
struct Batch {
    images: Vec<(Source, String)>,
    options: Vec<CheckOptions>,
    fetch: FetchOptions,
    /// For images that come over the network, where there are several.
    runtime: Option<Runtime>,
    progress: Box<dyn Progress>,
    format: Format,
    trace_format: Option<TraceFormat>,
    layout: Layout,
    detail: Detail,
    colour: bool,
}

/// What is left of an image that was checked: text, so that no module is kept.
struct Checked {
    exit: Exit,
    outcome: Outcome,
    trace: String,
    text: String,
}

impl Batch {
    /// What is printed of an image, and what there is to clear up then.
    fn check(&self, index: usize) -> (Result<Checked, CliError>, Option<Judge<Image>>) {
        let (source, reference) = &self.images[index];
        match self.fetched(source, reference) {
            Ok(Ok(image)) => {
                let mut judge = Judge::new(image);
                let judged = self.options.iter().map(|options| judge.judge(options));
                (Ok(self.shown(&judged.collect::<Vec<_>>())), Some(judge))
            }
            Ok(Err(error)) => {
                let of = |options: &CheckOptions| {
                    Verdict::of_image_error(reference, &options.target, &error)
                };
                (Ok(self.shown(&self.options.iter().map(of).collect::<Vec<_>>())), None)
            }
            Err(error) => (Err(error), None),
        }
    }

    fn fetched(
        &self,
        source: &Source,
        reference: &str,
    ) -> Result<Result<Image, ImageError>, CliError> {
        let fetched = image::fetch(source, reference, &self.fetch, &*self.progress);
        if let Some(runtime) = self.runtime.as_ref().filter(|_| source.needs_network()) {
            return Ok(runtime.block_on(fetched));
        }
        let runtime = fetch::runtime(std::slice::from_ref(source))?;
        let image = runtime.block_on(fetched);
        runtime.shutdown_background();
        Ok(image)
    }

    fn shown(&self, verdicts: &[Verdict]) -> Checked {
        let trace = match (self.trace_format, verdicts) {
            (Some(TraceFormat::Text), [verdict]) => trace::render_text(verdict),
            (Some(TraceFormat::Json), [verdict]) => trace::render_json(verdict),
            _ => String::new(),
        };
        let text = match (self.format, verdicts) {
            (Format::Json, verdicts) => {
                verdicts.iter().map(|verdict| json::render(verdict, self.layout)).collect()
            }
            (Format::Human, [verdict]) => human::render(verdict, self.detail, self.colour),
            (Format::Human, verdicts) => matrix::render(verdicts, self.detail, self.colour),
        };
        Checked {
            exit: verdicts.iter().fold(Exit::Pass, |exit, verdict| exit.worst(Exit::of(verdict))),
            outcome: Outcome::worst(verdicts.iter().map(|verdict| verdict.outcome)),
            trace,
            text,
        }
    }
}
