//! `filtergate bench`.

use clap::Args;

use crate::{
    bench::{self, LoadConditions, LoadFailed, Phase, PhaseClock},
    host::Plugin,
    image::{self, NoProgress},
    report::{
        human::{self, Detail},
        load_time::{self, LoadTime},
    },
    verdict::Verdict,
};

use super::{
    CliError,
    exit::Exit,
    fetch, output, progress,
    run::{Format, LoadArgs, ShowArgs},
};

/// Measure how long an image takes to load, phase by phase
#[derive(Debug, Args)]
#[command(after_help = fetch::images_help!())]
pub struct Bench {
    /// A registry reference, a .wasm file, or another (see below)
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Loads that are measured
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// Loads before them that are not
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup: u32,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    show: ShowArgs,
}

impl Bench {
    /// Checks that the image loads, then measures cold loads of its first root_id.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let mut options = self.load.options()?;
        options.exchanges.clear();
        options.controls = false;
        let source = fetch::source(&self.image)?;
        let runtime = fetch::runtime(std::slice::from_ref(&source))?;
        let bars = progress::progress(true);
        let fetched = runtime.block_on(image::fetch(&source, &self.image, &options.fetch, &*bars));
        let image = match fetched {
            Ok(image) => image,
            Err(error) => {
                let verdict = Verdict::of_image_error(&self.image, &options.target, &error);
                return self.refuse(&verdict);
            }
        };
        let root_id = crate::root_ids(&options, &image).into_iter().next().unwrap_or_default();
        // The verdict is about the root that is measured.
        options.root_ids = vec![root_id.clone()];
        let verdict = crate::judge(&image, &options);
        let (Some(true), Some(compiler), Some(module)) =
            (verdict.loads, verdict.compiler, &verdict.module)
        else {
            return self.refuse(&verdict);
        };

        let conditions = LoadConditions {
            target: options.target.clone(),
            vm: options.vm.clone(),
            plugin: Plugin {
                root_id: root_id.clone(),
                configuration: options.configuration.clone(),
                vm_configuration: options.vm_configuration.clone(),
                environment_variables: options.environment_variables.clone(),
                allowed_capabilities: options.allowed_capabilities.clone(),
                allow_on_headers_stop_iteration: false,
                ..Plugin::default()
            },
        };
        let fetched_once = !source.is_read_again();
        let bytes = |clock: &mut PhaseClock| {
            if fetched_once {
                return Ok(image.wasm.clone());
            }
            let again = image::fetch(&source, &self.image, &options.fetch, &NoProgress);
            let image = runtime.block_on(again).map_err(|error| LoadFailed(error.to_string()))?;
            clock.add(Phase::Fetch, image.fetch);
            clock.add(Phase::Verify, image.verify);
            Ok(image.wasm)
        };
        let mut samples = match bench::sample(self.runs, self.warmup, &conditions, bytes) {
            Ok(samples) => samples,
            Err(error) => {
                return Err(CliError::NotMeasured(format!(
                    "the image loaded at first and then not any more: {error}"
                )));
            }
        };
        if fetched_once {
            samples.push_apart(Phase::Fetch, image.fetch);
            samples.push_apart(Phase::Verify, image.verify);
        }
        let load = LoadTime {
            reference: &self.image,
            target: &options.target,
            sha256: &module.sha256,
            size: module.size,
            code_bytes: module.code_bytes,
            root_id: &root_id,
            compiler,
            warmup: self.warmup,
            fetched_once,
            samples: &samples,
        };
        output::print(&match self.show.format {
            Format::Human => load_time::render_human(&load),
            Format::Json => load_time::render_json(&load),
        })?;
        Ok(Exit::Pass)
    }

    /// There is nothing to measure: the verdict says why, on standard error, since it is not the
    /// result that was asked for.
    fn refuse(&self, verdict: &Verdict) -> Result<Exit, CliError> {
        output::print_error(&human::render(verdict, Detail::Normal, false));
        output::print_error(
            "error: only a module that loads can be measured; see the verdict above\n",
        );
        Ok(match Exit::of(verdict) {
            Exit::Pass => Exit::NothingTested,
            exit => exit,
        })
    }
}
