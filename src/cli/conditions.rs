//! The conditions under which modules are checked, for every command that comes to a verdict.

use std::time::Duration;

use clap::Args;

use crate::{CheckOptions, host::Environment};

use super::{
    CliError,
    run::{self, FilterChoice, LoadArgs, TrafficArgs},
    values,
};

/// Options of every command that comes to a verdict.
#[derive(Debug, Args)]
pub struct Conditions {
    #[command(flatten)]
    pub load: LoadArgs,

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
}

impl Conditions {
    /// The options for each target.
    pub fn options(&self) -> Result<Vec<CheckOptions>, CliError> {
        let mut all = self.load.options_for_each_target()?;
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
            if self.no_exchanges {
                options.exchanges.clear();
                options.connections.clear();
            }
        }
        Ok(all)
    }
}
