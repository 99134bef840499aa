//! What the library and its dependencies have to say of their own, on standard error.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Starts diagnostics where they are asked for: `-vv`, or targets and levels in FILTERGATE_LOG or
/// RUST_LOG, such as `filtergate=debug,oci_client=trace`.
pub fn start(verbose: u8) {
    let variable = ["FILTERGATE_LOG", "RUST_LOG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty());
    let targets = match (variable, verbose) {
        (Some(text), _) => match text.parse::<Targets>() {
            Ok(targets) => targets,
            Err(error) => {
                super::output::print_error(&format!(
                    "warning: FILTERGATE_LOG or RUST_LOG: {error}\n"
                ));
                return;
            }
        },
        (None, 0) => return,
        // Which credentials are used, and what is tried again.
        (None, 1) => Targets::new().with_target("filtergate::image", LevelFilter::INFO),
        (None, 2) => Targets::new().with_target("filtergate", LevelFilter::DEBUG),
        (None, _) => Targets::new().with_default(LevelFilter::TRACE),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time();
    // Only a second start could fail.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}
