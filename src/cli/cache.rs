//! `filtergate cache`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::{
    report::cache,
    store::{Prune, Store},
};

use super::{CliError, exit::Exit, fetch, output, run::Format, values};

/// List, prune or verify what is kept of images and compiled modules
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Cache {
    #[command(subcommand)]
    command: Command,

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
enum Command {
    /// Show everything that is kept: size, last use, references seen
    List,
    /// Remove all, or what the options say, and what killed runs left
    Prune {
        /// Only what was not used for so long: 45m, 12h, 30d
        #[arg(long, value_name = "AGE", value_parser = values::age)]
        older_than: Option<Duration>,

        /// Only until no more than this is left, oldest first
        #[arg(long, value_name = "SIZE", value_parser = values::size)]
        max_size: Option<u64>,
    },
    /// Compare all with its digests, and remove what differs
    Verify,
}

const AFTER_HELP: &str = "\
Manifests and blobs of images from registries are kept by digest, and modules
in compiled form, so that a second check of an image asks its registry for
nothing but what a tag stands for, of one that is named by digest for nothing
at all, and compiles nothing. At most 4 GiB are kept, what was used last.

The folder is FILTERGATE_CACHE, else $XDG_CACHE_HOME/filtergate, else
~/.cache/filtergate. Only its user may be able to write to it, since compiled
code from it is run: do not restore it from where others can write. With
--no-cache or FILTERGATE_NO_CACHE=1 other commands do without.

Examples:
  filtergate cache list
  filtergate cache prune --older-than 30d --max-size 1GiB
  filtergate cache prune
  filtergate cache verify --format json

Exit codes: 0 done, 1 verify found damage, 2 wrong usage, 3 no store";

impl Cache {
    /// Does what was asked for, and prints what came of it.
    pub fn execute(&self) -> Result<Exit, CliError> {
        let store: Store = fetch::open_store()?;
        let (text, exit) = match &self.command {
            Command::List => {
                let entries = store.entries()?;
                let text = match self.format {
                    Format::Human => cache::list(store.folder(), &entries),
                    Format::Json => cache::list_json(store.folder(), &entries),
                };
                (text, Exit::Pass)
            }
            Command::Prune { older_than, max_size } => {
                let prune = Prune { older_than: *older_than, max_bytes: *max_size };
                let pruned = store.prune(&prune)?;
                let text = match self.format {
                    Format::Human => cache::pruned(&pruned),
                    Format::Json => cache::pruned_json(&pruned),
                };
                (text, Exit::Pass)
            }
            Command::Verify => {
                let verified = store.verify()?;
                let text = match self.format {
                    Format::Human => cache::verified(&verified),
                    Format::Json => cache::verified_json(&verified),
                };
                let exit = if verified.damaged.is_empty() { Exit::Pass } else { Exit::Fail };
                (text, exit)
            }
        };
        output::print(&text)?;
        Ok(exit)
    }
}
