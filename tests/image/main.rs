//! Where modules come from, on the library's API.

mod archive;
mod bounds;
mod credentials;
#[cfg(unix)]
mod environment;
mod hostile;
mod layout;
mod progress;
mod publish;
mod reference;
mod registry;
mod runtime_config;
#[allow(dead_code, reason = "the suite of faults uses more of it")]
mod server;
mod signature;
mod store;
mod support;
mod url;
mod vectors;
