//! Standard output: the result and nothing else.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;

use super::CliError;

/// When to colour: automatically is on a terminal, unless NO_COLOR is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// Whether standard output is to be coloured.
    pub fn for_stdout(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                !no_color && !dumb && io::stdout().is_terminal()
            }
        }
    }
}

/// Prints and flushes. A reader that has gone away has seen what it wanted: the exit code still says
/// the verdict.
///
/// # Errors
///
/// Where the output cannot be written for another reason.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Io { what: "cannot write the result", source })
        }
        _ => Ok(()),
    }
}

/// Prints to standard error. Where nobody listens, the exit code has to do.
pub fn print_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
