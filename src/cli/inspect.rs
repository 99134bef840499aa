//! `filtergate inspect`.

use clap::Args;

use crate::{
    image::{self, Inspection},
    report::{
        human::Detail,
        inspect::{self, ModuleKind},
        json::Layout,
    },
};

use super::{
    CliError,
    exit::Exit,
    fetch::{self, FetchArgs},
    output, progress,
    run::{Format, ShowArgs},
};

/// Show what is in images, and who can load them; nothing is run
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Inspect {
    /// A registry reference, a .wasm file, or another (see below)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    #[command(flatten)]
    fetch: FetchArgs,

    #[command(flatten)]
    show: ShowArgs,
}

const AFTER_HELP: &str = concat!(
    "\
Shows manifests, layers and annotations, the image's shape, where the module
and its runtime configuration are, and whether Istio, Envoy Gateway, Higress,
wkg and the specification v0.0.0 take it, with the text that they would log.

",
    fetch::images_help!(),
    "
Examples:
  filtergate inspect ghcr.io/acme/filter:1.2
  filtergate inspect oci:build/image --format json
  filtergate inspect ghcr.io/acme/filter:1.2 --platform linux/arm64

Exit codes: 0 a module is in it, 1 none is or the image is broken,
            2 wrong usage, 3 the image could not be had"
);

impl Inspect {
    /// Shows the images one after another.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(self.show.verbose);
        let sources = self.fetch.sources(&self.images)?;
        let options = self.fetch.options()?;
        fetch::one_registry(&options, &sources)?;
        let runtime = fetch::runtime(&sources)?;
        let progress = progress::progress(true);
        let layout = if sources.len() == 1 { Layout::Pretty } else { Layout::Line };
        let mut exit = Exit::Pass;
        for (index, (source, reference)) in sources.iter().zip(&self.images).enumerate() {
            let work = image::inspect(source, reference, &options, &*progress);
            let inspection = runtime.block_on(work);
            exit = exit.worst(exit_of(&inspection));
            let text = self.render(&inspection, layout);
            let gap = self.show.format == Format::Human && index > 0;
            output::print(&if gap { format!("\n{text}") } else { text })?;
        }
        runtime.shutdown_background();
        Ok(exit)
    }

    fn render(&self, inspection: &Inspection, layout: Layout) -> String {
        match self.show.format {
            Format::Json => inspect::render_json(inspection, layout),
            Format::Human => {
                let detail =
                    if self.show.verbose > 0 { Detail::Everything } else { Detail::Normal };
                inspect::render_human(inspection, detail, self.show.color.for_stdout())
            }
        }
    }
}

/// Whether the image could be had, and has a module in it.
fn exit_of(inspection: &Inspection) -> Exit {
    match &inspection.image {
        Ok(image) if ModuleKind::of(&image.wasm) == ModuleKind::Module => Exit::Pass,
        Ok(_) => Exit::Fail,
        Err(error) if error.is_verdict() => Exit::Fail,
        Err(_) => Exit::Undecided,
    }
}
