//! `filtergate copy`.

use clap::Args;

use crate::image::{self, Destination, Image, ImageError, Package, Progress, Published, PushShape};

use super::{
    CliError,
    exit::Exit,
    fetch::{self, FetchArgs},
    progress,
    publish::{self, Outcome, ShapeChoice},
    run::ShowArgs,
    values,
};

/// Copy an image byte for byte, or to another shape
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Copy {
    /// The image, see below
    #[arg(value_name = "IMAGE")]
    source: String,

    /// Where to write it, see below
    #[arg(value_name = "DESTINATION")]
    destination: String,

    /// Build it anew: spec, compat or cncf
    #[arg(long, value_name = "SHAPE", hide_possible_values = true)]
    shape: Option<ShapeChoice>,

    /// Annotation of the new manifest
    #[arg(
        long = "annotation",
        value_name = "KEY=VALUE",
        value_parser = values::variable,
        requires = "shape"
    )]
    annotations: Vec<(String, String)>,

    #[command(flatten)]
    fetch: FetchArgs,

    #[command(flatten)]
    show: ShowArgs,
}

const AFTER_HELP: &str = concat!(
    "\
Without --shape manifests and blobs are copied byte for byte, an image index
with all that it lists, and the digest stays the same. With --shape the image
is built anew from its module, runtime config and org.opencontainers.image.*
annotations, and the digest is another. Nothing is checked. A signature is an
image of its own: copy its tag (sha256-HEX.sig) too. Standard output has the
copy's name with its digest.

A login (--username) is for the DESTINATION if that is in a registry, else for
the IMAGE's; for another registry, `docker login` to it before.

",
    fetch::images_help!(),
    "
DESTINATION is one of
  HOST/NAME[:TAG]                     a registry
  oci:DIRECTORY[:TAG]                 an OCI layout, made or extended
  oci-archive:FILE[:TAG]              a tar file of one
  docker-archive:FILE[:NAME]          for `docker load`; needs --shape compat

Examples:
  filtergate copy ghcr.io/acme/filter:1.2 oci:mirror:1.2
  filtergate copy oci:mirror:1.2 registry.example.com/acme/filter:1.2
  filtergate copy ghcr.io/acme/old:1.2 ghcr.io/acme/new:1.2 --shape spec

Exit codes: 0 written, 1 the image is broken or not signed, 2 wrong usage,
            3 could not be had or written"
);

impl Copy {
    /// Copies the image.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let source = self.fetch.source(&self.source)?;
        let options = self.fetch.options()?;
        let destination = publish::destination(&self.destination)?;
        let from = publish::source_options(&options, &source, &destination);
        let shape = match self.shape {
            Some(_) => Some(publish::shape(self.shape, &destination)?),
            None => None,
        };
        let runtime = publish::runtime()?;
        let progress = progress::progress(true);
        let result = runtime.block_on(async {
            match shape {
                None => {
                    let name = &self.source;
                    image::copy(&source, name, &from, &destination, &options, &*progress).await
                }
                Some(shape) => {
                    let image = image::fetch(&source, &self.source, &from, &*progress).await?;
                    self.rebuild(&image, &destination, shape, &options, &*progress).await
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
        image: &Image,
        destination: &Destination,
        shape: PushShape,
        options: &image::FetchOptions,
        progress: &dyn Progress,
    ) -> Result<Published, ImageError> {
        publish::warn_of(shape);
        let config = publish::runtime_config(image, &[], &[]);
        let mut annotations = publish::annotations(image);
        annotations.extend(self.annotations.iter().cloned());
        let package =
            Package { wasm: &image.wasm, runtime_config: &config, annotations: &annotations };
        image::push(&package, shape, destination, options, progress).await
    }
}
