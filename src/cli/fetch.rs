//! How the commands fetch images: options, what an image argument names, and the runtime.

use std::{io, time::Duration};

use clap::Args;
use tokio::runtime::{Builder, Runtime};

use crate::image::{FetchOptions, Source};

use super::{CliError, values};

/// Options of every command that fetches images.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Plain HTTP; loopback hosts get it anyway
    #[arg(long)]
    pub plain_http: bool,

    /// Longest time for a whole pull
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration)]
    pub timeout: Duration,

    /// Largest module accepted
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = values::size)]
    pub max_module_size: u64,
}

impl FetchArgs {
    /// The options that these words are.
    pub fn options(&self) -> Result<FetchOptions, CliError> {
        Ok(FetchOptions {
            max_module_bytes: self.max_module_size,
            plain_http: self.plain_http,
            timeout: self.timeout,
            ..FetchOptions::default()
        })
    }
}

/// What an image argument names.
pub fn source(reference: &str) -> Result<Source, CliError> {
    Source::parse(reference).map_err(|error| {
        CliError::Usage(format!("{error}; an image is a registry reference (ghcr.io/acme/filter:1.2), oci:DIRECTORY[:TAG], or a path to a .wasm file"))
    })
}

/// A runtime that can fetch `sources`. Files need neither network nor timers.
pub fn runtime(sources: &[Source]) -> Result<Runtime, CliError> {
    let mut builder = Builder::new_current_thread();
    if sources.iter().any(|source| matches!(source, Source::Registry(_))) {
        builder.enable_all();
    }
    builder.build().map_err(|source: io::Error| CliError::Io {
        what: "cannot start the runtime for fetching images",
        source,
    })
}
