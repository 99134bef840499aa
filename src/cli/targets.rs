//! `filtergate targets`.

use clap::{Args, Subcommand};

use crate::{
    report::{
        json::{self, Layout},
        targets,
    },
    target::Target,
};

use super::{CliError, exit::Exit, output, run::Format};

/// List the proxies that can be checked for, or show one of them
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Targets {
    #[command(subcommand)]
    show: Option<Show>,

    /// Output: human or json
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "human",
        hide_possible_values = true,
        global = true
    )]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Show {
    /// Show functions, limits, proposals and changes of a target
    Show {
        /// A target: envoy:1.36.4, istio:1.28, envoy-gateway:1.6
        #[arg(value_name = "NAME")]
        target: Target,
    },
}

const AFTER_HELP: &str = "\
Examples:
  filtergate targets
  filtergate targets --format json
  filtergate targets show istio:1.28";

impl Targets {
    /// Prints what was asked for.
    pub fn execute(&self) -> Result<Exit, CliError> {
        let text = match (&self.show, self.format) {
            (None, Format::Human) => targets::table(&Target::all().collect::<Vec<_>>()),
            (None, Format::Json) => Target::all()
                .map(|target| json::to_string(&targets::data(&target), Layout::Line))
                .collect(),
            (Some(Show::Show { target }), Format::Human) => targets::show(target),
            (Some(Show::Show { target }), Format::Json) => {
                json::to_string(&targets::data(target), Layout::Pretty)
            }
        };
        output::print(&text)?;
        Ok(Exit::Pass)
    }
}
