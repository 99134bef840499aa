//! Rules, findings, and what they add up to.

mod declared_abi;
mod filter_kind;
mod finding;
mod link_checks;
mod proposals;
mod rule;
mod static_checks;
#[allow(clippy::module_inception, reason = "the verdict is what the folder is about")]
mod verdict;

pub use declared_abi::check_declared_abi;
pub use filter_kind::check_filter_kind;
pub use finding::{Finding, Outcome};
pub use proposals::check_proposals;
pub use rule::{Rule, Severity};
pub use static_checks::{StaticReport, check_statically, invalid_body};
pub use verdict::{ImageFacts, ModuleFacts, Verdict};
