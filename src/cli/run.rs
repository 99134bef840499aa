//! What commands share: options that say how to check.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;

use crate::{
    CheckOptions,
    exercise::{Exchange, FailurePolicy, Filter},
    host::Plugin,
    target::Target,
    vm::{Compiler, VmOptions},
};

use super::{CliError, fetch::FetchArgs, output::ColorChoice, values};

/// Options of every command that is about a plugin.
#[derive(Debug, Args)]
pub struct PluginArgs {
    /// Load these root_ids, not the declared ones
    #[arg(long = "root-id", value_name = "ID")]
    pub root_ids: Vec<String>,

    /// Plugin configuration, inline or from a file
    #[arg(long, value_name = "TEXT|@FILE")]
    pub config: Option<String>,

    /// VM configuration, inline or from a file
    #[arg(long, value_name = "TEXT|@FILE")]
    pub vm_config: Option<String>,

    /// Environment variable of the VM
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = values::variable)]
    pub environment_variables: Vec<(String, String)>,

    /// Allow only these host functions and callbacks
    #[arg(long = "allow-capability", value_name = "NAME")]
    pub allowed_capabilities: Vec<String>,
}

impl PluginArgs {
    /// The options that these words are.
    pub fn options(&self) -> Result<CheckOptions, CliError> {
        let read = |flag: &str, text: &Option<String>| match text {
            None => Ok(Vec::new()),
            Some(text) => values::text_or_file(text)
                .map_err(|reason| CliError::Usage(format!("{flag}: {reason}"))),
        };
        Ok(CheckOptions {
            root_ids: self.root_ids.clone(),
            plugin: Plugin {
                configuration: read("--config", &self.config)?,
                vm_configuration: read("--vm-config", &self.vm_config)?,
                environment_variables: self.environment_variables.iter().cloned().collect(),
                allowed_capabilities: self.allowed_capabilities.clone(),
                ..CheckOptions::default().plugin
            },
            ..CheckOptions::default()
        })
    }
}

/// Options of every command that loads modules.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Proxy to check for
    #[arg(
        long = "target",
        value_name = "TARGET",
        default_value = "envoy:1.40",
        value_delimiter = ','
    )]
    pub targets: Vec<Target>,

    #[command(flatten)]
    pub plugin: PluginArgs,

    /// Most CPU time for one callback
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub callback_timeout: Duration,

    /// Compiler: winch or cranelift
    #[arg(
        long = "compiler",
        value_name = "NAME",
        default_value = "winch",
        hide_possible_values = true,
        value_delimiter = ','
    )]
    pub compilers: Vec<CompilerChoice>,

    #[command(flatten)]
    pub fetch: FetchArgs,
}

/// Options of the commands that send traffic through modules.
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// Send these exchanges instead, as JSON
    #[arg(long, value_name = "TEXT|@FILE")]
    pub exchanges: Option<String>,

    #[command(flatten)]
    pub behaviour: BehaviourArgs,
}

/// Options of a plugin that matter once there is traffic.
#[derive(Debug, Args)]
pub struct BehaviourArgs {
    /// After a trap: closed (default), open, reload
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "closed",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub failure_policy: PolicyChoice,

    /// A headers callback may stop the headers alone
    #[arg(long = "headers-stop-iteration")]
    pub allow_on_headers_stop_iteration: bool,
}

/// The policies that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyChoice {
    // 503 for every later request.
    Closed,
    // Later requests pass the filter by.
    Open,
    // The next request gets a new VM.
    Reload,
}

impl From<PolicyChoice> for FailurePolicy {
    fn from(choice: PolicyChoice) -> Self {
        match choice {
            PolicyChoice::Closed => Self::Closed,
            PolicyChoice::Open => Self::Open,
            PolicyChoice::Reload => Self::Reload,
        }
    }
}

impl TrafficArgs {
    /// Puts what these words say into the options.
    pub fn apply(&self, options: &mut CheckOptions) -> Result<(), CliError> {
        if let Some(text) = &self.exchanges {
            options.exchanges = exchanges(text)?;
        }
        self.behaviour.apply(options);
        Ok(())
    }
}

impl BehaviourArgs {
    /// Puts what these words say into the options.
    pub fn apply(&self, options: &mut CheckOptions) {
        options.plugin.allow_on_headers_stop_iteration = self.allow_on_headers_stop_iteration;
        options.failure_policy = self.failure_policy.into();
    }
}

/// What `--exchanges` is given: requests that can be sent as they are.
pub fn exchanges(text: &str) -> Result<Vec<Exchange>, CliError> {
    let exchanges: Vec<Exchange> = json_argument("--exchanges", text)?;
    match exchanges.iter().find_map(Exchange::fault) {
        Some(fault) => Err(CliError::Usage(format!("--exchanges: {fault}"))),
        None => Ok(exchanges),
    }
}

/// A value that is given as JSON, inline or from a file.
pub fn json_argument<T: DeserializeOwned>(flag: &str, text: &str) -> Result<T, CliError> {
    let usage = |reason: String| CliError::Usage(format!("{flag}: {reason}"));
    let text = values::text_or_file(text).map_err(usage)?;
    serde_json::from_slice(&text)
        .map_err(|error| usage(format!("{error}; the README has an example")))
}

/// How a trace is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    // A line for each call, before the report.
    Text,
    // A JSON object for each call, and the report as one more.
    Json,
}

/// The compilers that can be asked for. Doc comments on the values of options would end in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompilerChoice {
    // The baseline compiler, fast to compile.
    Winch,
    // The optimising compiler.
    Cranelift,
}

impl From<CompilerChoice> for Compiler {
    fn from(choice: CompilerChoice) -> Self {
        match choice {
            CompilerChoice::Winch => Self::Winch,
            CompilerChoice::Cranelift => Self::CraneliftSpeed,
        }
    }
}

/// Where modules can run, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilterChoice {
    // HTTP streams.
    Http,
    // TCP connections.
    Network,
}

impl From<FilterChoice> for Filter {
    fn from(choice: FilterChoice) -> Self {
        match choice {
            FilterChoice::Http => Self::Http,
            FilterChoice::Network => Self::Network,
        }
    }
}

/// Options of what is shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Output: human or json
    #[arg(long, value_name = "FORMAT", default_value = "human", hide_possible_values = true)]
    pub format: Format,

    /// Colour: auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: ColorChoice,

    /// Show everything; twice: diagnostics too
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    // Text for people.
    Human,
    // One object for each image.
    Json,
}

impl LoadArgs {
    /// The options that these words are, for each target; a target that is named twice is one.
    pub fn options_for_each_target(&self) -> Result<Vec<CheckOptions>, CliError> {
        self.one_compiler()?;
        let mut all: Vec<CheckOptions> = Vec::new();
        for target in &self.targets {
            if all.iter().any(|options| options.target == *target) {
                continue;
            }
            let options = match all.first() {
                Some(first) => CheckOptions { target: target.clone(), ..first.clone() },
                None => self.options_for(target)?,
            };
            all.push(options);
        }
        Ok(all)
    }

    /// The compilers, each once.
    pub fn compilers(&self) -> Vec<Compiler> {
        let mut compilers: Vec<Compiler> = Vec::new();
        for compiler in self.compilers.iter().copied().map(Compiler::from) {
            if !compilers.contains(&compiler) {
                compilers.push(compiler);
            }
        }
        compilers
    }

    fn one_compiler(&self) -> Result<(), CliError> {
        match self.compilers.len() {
            1 => Ok(()),
            _ => {
                Err(CliError::Usage("--compiler: give one; only `bench` takes several".to_owned()))
            }
        }
    }

    /// The options that these words are, for commands that take one target and one compiler.
    pub fn options(&self) -> Result<CheckOptions, CliError> {
        self.one_compiler()?;
        self.options_for_each_compiler()
    }

    /// The options that these words are, whatever the number of compilers.
    pub fn options_for_each_compiler(&self) -> Result<CheckOptions, CliError> {
        match self.targets.as_slice() {
            [target] => self.options_for(target),
            _ => Err(CliError::Usage("--target: give one; only `check` takes several".to_owned())),
        }
    }

    fn options_for(&self, target: &Target) -> Result<CheckOptions, CliError> {
        Ok(CheckOptions {
            target: target.clone(),
            fetch: self.fetch.options()?,
            vm: VmOptions {
                compiler: self.compilers.first().copied().map_or(Compiler::Winch, Compiler::from),
                callback_timeout: self.callback_timeout,
                ..VmOptions::default()
            },
            ..self.plugin.options()?
        })
    }
}
