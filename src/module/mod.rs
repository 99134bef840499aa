//! The static view of a module: what can be known without running it.

mod envoy_scan;
mod facts;
mod features;
mod origin;
mod proposals;

pub use envoy_scan::{Corrupt, EnvoyScan, envoy_scan};
pub use facts::{Export, ExternKind, Facts, Import, MemoryFacts, ParseError, TableFacts, parse};
pub use features::{Engine, Invalid, engine_features, validate};
pub use origin::{Origin, import_advice, origin};
pub use proposals::{PROPOSALS, Proposal, needed_proposals};
