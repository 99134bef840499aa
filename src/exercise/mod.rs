//! Exercising a compiled module: the load sequence for each root_id, and exchanges.

mod around;
mod connection;
mod events;
mod exchange;
mod http;
mod incident;
mod load;
mod policy;
mod roots;
mod serving;
mod tcp;
mod upstream;

pub use connection::{
    Connection, ConnectionResult, Filter, Received, Step, TcpUpstream, smoke_connections,
};
pub use exchange::{
    AccessLog, ClientResponse, Exchange, ExchangeResult, Message, Metadata, Party, Request,
    Upstream, smoke_exchanges,
};
pub use http::{FRAME_GAP, run_exchange};
pub use incident::{Incident, LengthMismatch};
pub use load::{BaseRun, LoadRun, Loaded, load_base, load_plugin};
pub use policy::FailurePolicy;
pub use roots::{ExerciseOptions, Exercised, RootRun, TraceSection, TraceStage, exercise};
pub use tcp::run_connection;
pub(crate) use upstream::spaced_json;
