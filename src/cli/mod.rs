//! The command line: one file for each command. Words become validated values here, and verdicts
//! become exit codes; the work is done by the rest of the library.

mod batch;
mod bench;
mod cache;
mod check;
mod conditions;
mod copy;
mod diagnostics;
mod envoy_config;
pub mod exit;
mod explain;
mod fetch;
mod inspect;
mod output;
mod parity;
mod progress;
mod publish;
mod push;
mod run;
mod targets;
mod values;

use std::{ffi::OsString, io};

use clap::{Parser, Subcommand};

use crate::store::StoreError;

use exit::Exit;

/// Will this Wasm filter image load and behave in the Envoy I run?
#[derive(Debug, Parser)]
#[command(name = "filtergate", version, next_line_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Box<check::Check>),
    Inspect(Box<inspect::Inspect>),
    Push(Box<push::Push>),
    Copy(Box<copy::Copy>),
    Bench(Box<bench::Bench>),
    Parity(Box<parity::Parity>),
    EnvoyConfig(Box<envoy_config::EnvoyConfig>),
    Explain(explain::Explain),
    Targets(targets::Targets),
    Cache(cache::Cache),
}

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The words are no command line.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// A value that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// What was to be measured changed meanwhile.
    #[error("{0}")]
    NotMeasured(String),
    /// There is no store, and the command is about it.
    #[error("{0}")]
    Store(String),
    /// The machine does not play along.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::Store(format!("{error}; {}", error.help()))
    }
}

impl CliError {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Arguments(error) if error.exit_code() == 0 => Exit::Pass,
            Self::Arguments(_) | Self::Usage(_) => Exit::Usage,
            Self::NotMeasured(_) | Self::Store(_) | Self::Io { .. } => Exit::Undecided,
        }
    }
}

/// Runs the command that `arguments` are; the first one is the program's name.
///
/// # Errors
///
/// Where there is no result to exit with. Help and version are such errors of clap's.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<Exit, CliError> {
    match Cli::try_parse_from(arguments)?.command {
        Command::Check(check) => check.execute(),
        Command::Inspect(inspect) => inspect.execute(),
        Command::Push(push) => push.execute(),
        Command::Copy(copy) => copy.execute(),
        Command::Bench(bench) => bench.execute(),
        Command::Parity(parity) => parity.execute(),
        Command::EnvoyConfig(config) => config.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Targets(targets) => targets.execute(),
        Command::Cache(cache) => cache.execute(),
    }
}
