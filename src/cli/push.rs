//! `filtergate push`.

use std::collections::BTreeMap;

use clap::Args;

use crate::{
    CheckOptions, Judge,
    image::{self, Image, Package},
    report::{
        human::{self, Detail},
        json::{self, Layout},
    },
    verdict::{Outcome as VerdictOutcome, Rule, Severity, Verdict},
};

use super::{
    CliError,
    conditions::Conditions,
    exit::Exit,
    fetch, output, progress,
    publish::{self, Outcome, ShapeChoice},
    run::{Format, ShowArgs},
    values,
};

/// Check a module, and write it as an image
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
#[command(mut_arg("root_ids", |arg| arg.help("A root_id of the runtime config; repeatable")))]
pub struct Push {
    /// A module, or an image that has it, see below
    #[arg(value_name = "IMAGE")]
    module: String,

    /// Where to write it, see below
    #[arg(value_name = "DESTINATION")]
    destination: String,

    /// Layout: spec (default), compat or cncf
    #[arg(long, value_name = "SHAPE", hide_possible_values = true)]
    shape: Option<ShapeChoice>,

    /// Runtime config, as it is
    #[arg(long, value_name = "FILE")]
    runtime_config: Option<String>,

    /// ABI of the runtime config [default: marker]
    #[arg(long = "abi-version", value_name = "VERSION")]
    abi_versions: Vec<String>,

    /// Annotation of the manifest
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = values::variable)]
    annotations: Vec<(String, String)>,

    /// Write it unchecked
    #[arg(long)]
    no_check: bool,

    #[command(flatten, next_help_heading = "Options of the check, as in `filtergate check`")]
    conditions: Conditions,

    #[command(flatten)]
    show: ShowArgs,
}

const AFTER_HELP: &str = concat!(
    "\
The module is checked as `filtergate check` does; unless it passes, nothing is
written. Standard output has the image's name with its digest. The same input
always makes the same digest. A login (--username) is for the DESTINATION if
that is in a registry, else for the IMAGE's.

",
    fetch::images_help!(),
    "
DESTINATION is one of
  HOST/NAME[:TAG]                     a registry
  oci:DIRECTORY[:TAG]                 an OCI layout, made or extended
  oci-archive:FILE[:TAG]              a tar file of one
  docker-archive:FILE[:NAME]          for `docker load`, shape compat

Shapes:
  spec    WASM OCI image specification v0.0.0: a config and a content layer
  compat  an ordinary image with plugin.wasm, for registries that refuse spec
  cncf    the CNCF's Wasm artifact, for wkg; Istio and Envoy do not take it

Examples:
  filtergate push filter.wasm ghcr.io/acme/filter:1.2 --root-id auth
  filtergate push filter.wasm oci:build/image:1.2 --runtime-config config.json
  filtergate push filter.wasm docker.io/acme/filter:1.2 --shape compat

Exit codes: 0 written, 1 the check failed, 2 wrong usage,
            3 undecided or could not be written, 4 nothing was tested"
);

impl Push {
    /// Checks, builds, writes.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let source = self.conditions.load.fetch.source(&self.module)?;
        let options = self.conditions.options()?;
        let destination = publish::destination(&self.destination)?;
        let shape = publish::shape(self.shape, &destination)?;
        let given = self.given_config()?;
        let runtime = publish::runtime()?;
        let progress = progress::progress(true);
        let mut outcome = Outcome {
            reference: &self.destination,
            shape: Some(shape),
            result: None,
            check: Vec::new(),
        };
        let Some(first) = options.first() else {
            return Err(CliError::Usage("--target: give one".to_owned()));
        };
        let from = publish::source_options(&first.fetch, &source, &destination);
        let fetched = runtime.block_on(image::fetch(&source, &self.module, &from, &*progress));
        let mut image = match fetched {
            Ok(image) => image,
            Err(error) => {
                outcome.result = Some(Err(error));
                outcome.print(self.show.format)?;
                return Ok(outcome.exit());
            }
        };
        let config = given.unwrap_or_else(|| {
            let root_ids = &self.conditions.load.plugin.root_ids;
            publish::runtime_config(&image, &self.abi_versions, root_ids)
        });
        if !self.no_check {
            set_config(&mut image, &config)?;
            let verdicts = check(&image, &options);
            outcome.check = verdicts.iter().map(as_json).collect();
            let exit = verdicts.iter().fold(Exit::Pass, |exit, v| exit.worst(Exit::of(v)));
            if self.show.format == Format::Human {
                self.show_verdicts(&verdicts);
            }
            if exit != Exit::Pass {
                if self.show.format == Format::Human {
                    output::print_error(&format!("nothing was written to {}\n", self.destination));
                }
                outcome.print(self.show.format)?;
                return Ok(exit);
            }
        } else if !image.wasm.starts_with(CORE_MODULE) {
            return Err(CliError::Usage(format!(
                "`{}` is no WebAssembly module, and no consumer could load it",
                self.module
            )));
        }
        publish::warn_of(shape);
        let annotations: BTreeMap<_, _> = self.annotations.iter().cloned().collect();
        let package =
            Package { wasm: &image.wasm, runtime_config: &config, annotations: &annotations };
        let write = image::push(&package, shape, &destination, &first.fetch, &*progress);
        outcome.result = Some(runtime.block_on(write));
        outcome.print(self.show.format)?;
        runtime.shutdown_background();
        Ok(outcome.exit())
    }

    /// The runtime config of `--runtime-config`.
    fn given_config(&self) -> Result<Option<Vec<u8>>, CliError> {
        let Some(path) = &self.runtime_config else { return Ok(None) };
        if !(self.abi_versions.is_empty() && self.conditions.load.plugin.root_ids.is_empty()) {
            return Err(CliError::Usage(
                "--runtime-config: it has the ABI versions and root_ids; leave out --abi-version and --root-id".to_owned(),
            ));
        }
        let bytes = values::file(path)
            .map_err(|reason| CliError::Usage(format!("--runtime-config: {reason}")))?;
        publish::read_runtime_config(&bytes)?;
        Ok(Some(bytes))
    }

    /// A pass in a line each, with what is worth a look; anything else in full.
    fn show_verdicts(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let is_clean = verdict.outcome == VerdictOutcome::Pass
                && verdict.findings.iter().all(|finding| finding.severity == Severity::Note);
            let detail = match (self.show.verbose, is_clean) {
                (0, true) => Detail::VerdictOnly,
                (0, false) => Detail::Normal,
                _ => Detail::Everything,
            };
            output::print_error(&human::render(verdict, detail, false));
        }
    }
}

/// The magic number and version of a module; a component has another version.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Gives the image the runtime config that it will be written with, and forgets what was said of
/// the one and the shape that it came with.
fn set_config(image: &mut Image, config: &[u8]) -> Result<(), CliError> {
    let (config, notes) = publish::read_runtime_config(config)?;
    image.runtime_config = Some(config);
    image.notes.retain(|note| note.rule == Rule::ImageSignature);
    image.notes.extend(notes);
    Ok(())
}

fn check(image: &Image, options: &[CheckOptions]) -> Vec<Verdict> {
    let mut judge = Judge::new(image);
    // The root_ids are those that are declared.
    options.iter().map(|options| judge.judge(options)).collect()
}

fn as_json(verdict: &Verdict) -> serde_json::Value {
    serde_json::from_str(&json::render(verdict, Layout::Line)).unwrap_or_default()
}
