//! An image that is to be measured.

use std::{path::Path, sync::Arc};

use tokio::runtime::Runtime;

use crate::{
    CheckOptions,
    bench::{
        self, LoadConditions, LoadFailed, Phase, PhaseClock, Subject,
        report::{InEnvoy, ModuleSize},
        scale::Axis,
    },
    cli::{CliError, exit::Exit, output, progress},
    exercise::Filter,
    image::{self, Image, NoProgress, Source},
    parity,
    report::human::{self, Detail},
    verdict::Verdict,
    vm::Compiler,
};

/// An Envoy takes long to start.
const MAX_ENVOY_RUNS: u32 = 5;

/// An image that is to be measured.
pub(super) struct Candidate {
    pub(super) reference: String,
    source: Source,
    image: Arc<Image>,
    root_ids: Vec<String>,
    pub(super) module: ModuleSize,
    pub(super) warnings: Vec<String>,
}

impl Candidate {
    /// Fetches an image and sees whether it loads. What does not load cannot be measured: its verdict
    /// is printed, and the exit code is the error.
    pub(super) fn fetch(
        reference: &str,
        source: Source,
        options: &CheckOptions,
        runtime: &Runtime,
    ) -> Result<Self, Exit> {
        let bars = progress::progress(true);
        let fetched = runtime.block_on(image::fetch(&source, reference, &options.fetch, &*bars));
        let image = match fetched {
            Ok(image) => image,
            Err(error) => {
                let verdict = Verdict::of_image_error(reference, &options.target, &error);
                return Err(refuse(&verdict));
            }
        };
        let verdict = crate::judge(&image, options);
        let (Some(true), Some(module)) = (verdict.loads, &verdict.module) else {
            return Err(refuse(&verdict));
        };
        let mut warnings = Vec::new();
        let mut root_ids = Vec::new();
        for root in &verdict.roots {
            if root.accepted {
                root_ids.push(root.root_id.clone());
            } else {
                let name = human::root_label(&root.root_id);
                warnings.push(format!("root {name} does not load and was not measured"));
            }
        }
        if root_ids.is_empty() {
            return Err(refuse(&verdict));
        }
        let module = ModuleSize {
            sha256: module.sha256.clone(),
            size: module.size,
            functions: module.functions.into(),
            code_bytes: module.code_bytes,
        };
        let reference = reference.to_owned();
        Ok(Self { reference, source, image: Arc::new(image), root_ids, module, warnings })
    }

    pub(super) fn digest(&self) -> Option<String> {
        self.image.manifest_digest.as_ref().map(ToString::to_string)
    }

    pub(super) fn scale(
        &self,
        options: &CheckOptions,
        runtime: &Runtime,
    ) -> Result<Vec<Axis>, CliError> {
        let subject = self.subject(options, options.vm.compiler, runtime);
        let is_http = options.filter == Filter::Http;
        bench::scale::scale(&self.image.wasm, &subject.conditions, is_http)
            .map_err(|error| CliError::NotMeasured(format!("--scale: {error}")))
    }

    /// The first root in a real Envoy.
    pub(super) fn in_envoy(
        &self,
        envoy: &Path,
        options: &CheckOptions,
        runs: u32,
    ) -> Result<InEnvoy, CliError> {
        let setup = parity::Setup {
            filter: options.filter,
            module: Some(self.image.wasm.clone()),
            plugin: options.plugin.with_root_id(&self.root_ids[0]),
            ..parity::Setup::default()
        };
        parity::load_times(envoy, &setup, runs.min(MAX_ENVOY_RUNS) as usize)
            .map_err(|error| CliError::NotMeasured(format!("--envoy: {error}")))
    }

    pub(super) fn subject<'a>(
        &'a self,
        options: &'a CheckOptions,
        compiler: Compiler,
        runtime: &'a Runtime,
    ) -> Subject<'a> {
        let plugins = self.root_ids.iter().map(|root_id| options.plugin.with_root_id(root_id));
        let mut vm = options.vm.clone();
        vm.compiler = compiler;
        let conditions = LoadConditions {
            target: options.target.clone(),
            vm,
            plugins: plugins.collect(),
            environment: options.environment.clone(),
        };
        // A registry is not asked over and over.
        let is_remote = !self.source.is_read_again();
        let bytes = move |clock: &mut PhaseClock| {
            if is_remote {
                return Ok(self.image.wasm.clone());
            }
            let again = image::fetch(&self.source, &self.reference, &options.fetch, &NoProgress);
            let image = runtime.block_on(again).map_err(|error| LoadFailed(error.to_string()))?;
            clock.add(Phase::Fetch, image.fetch);
            clock.add(Phase::Verify, image.verify);
            Ok(image.wasm)
        };
        let fetched_once = is_remote.then_some((self.image.fetch, self.image.verify));
        Subject { conditions, bytes: Box::new(bytes), fetched_once }
    }
}

/// There is nothing to measure: the verdict says why, on standard error, since it is not the
/// result that was asked for.
fn refuse(verdict: &Verdict) -> Exit {
    output::print_error(&human::render(verdict, Detail::Normal, false));
    output::print_error("error: only a module that loads can be measured; see the verdict above\n");
    match Exit::of(verdict) {
        Exit::Pass => Exit::NothingTested,
        exit => exit,
    }
}
