//! `filtergate copy`.

use std::collections::BTreeMap;

use clap::Args;

use crate::image::{
    self, Destination, ImageError, Package, Progress, Published, PushShape, Source,
};

use super::{
    CliError,
    exit::Exit,
    fetch::{self, FetchArgs},
    progress,
    publish::{self, Outcome, ShapeChoice},
    run::ShowArgs,
};

/// Copy an image byte for byte, or to another shape
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Copy {
    /// The image, as `filtergate check` takes it
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Where to write it, see below
    #[arg(value_name = "DESTINATION")]
    destination: String,

    /// Build it anew: spec, compat or cncf
    #[arg(long, value_name = "SHAPE", hide_possible_values = true)]
    shape: Option<ShapeChoice>,

    #[command(flatten)]
    fetch: FetchArgs,

    #[command(flatten)]
    show: ShowArgs,
}

const AFTER_HELP: &str = "\
Without --shape manifests and blobs are copied byte for byte, an image index
with all that it lists, and the digest stays the same. With --shape the image
is built anew from its module and runtime config, and the digest is another.
Nothing is checked. A signature is an image of its own: copy its tag
(sha256-HEX.sig) too. Standard output has the copy's name with its digest.

Destinations:
  HOST/NAME[:TAG]                     a registry
  oci:DIRECTORY[:TAG]                 an OCI layout, made or extended
  oci-archive:FILE[:TAG]              a tar file of one
  docker-archive:FILE[:NAME]          for `docker load`; needs --shape compat

Examples:
  filtergate copy ghcr.io/acme/filter:1.2 oci:mirror:1.2
  filtergate copy oci:mirror:1.2 registry.example.com/acme/filter:1.2
  filtergate copy ghcr.io/acme/old:1.2 ghcr.io/acme/new:1.2 --shape spec

Exit codes: 0 written, 1 the image is broken or not signed, 2 wrong usage,
            3 could not be had or written";

impl Copy {
    /// Copies the image.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let options = self.fetch.options()?;
        let source = fetch::source(&self.source)?;
        let destination = publish::destination(&self.destination)?;
        let shape = match self.shape {
            Some(_) => Some(publish::shape(self.shape, &destination)?),
            None => None,
        };
        let runtime = publish::runtime()?;
        let progress = progress::progress(true);
        let result = runtime.block_on(async {
            match shape {
                None => {
                    image::copy(&source, &self.source, &destination, &options, &*progress).await
                }
                Some(shape) => {
                    self.rebuild(&source, &destination, shape, &options, &*progress).await
                }
            }
        });
        let outcome = Outcome {
            reference: &self.destination,
            shape,
            result: Some(result),
            check: Vec::new(),
        };
        outcome.print(self.show.format)?;
        runtime.shutdown_background();
        Ok(outcome.exit())
    }

    async fn rebuild(
        &self,
        source: &Source,
        destination: &Destination,
        shape: PushShape,
        options: &image::FetchOptions,
        progress: &dyn Progress,
    ) -> Result<Published, ImageError> {
        let image = image::fetch(source, &self.source, options, progress).await?;
        publish::warn_of(shape);
        let config = publish::runtime_config(&image, &[], &[]);
        let package =
            Package { wasm: &image.wasm, runtime_config: &config, annotations: &BTreeMap::new() };
        image::push(&package, shape, destination, options, progress).await
    }
}
