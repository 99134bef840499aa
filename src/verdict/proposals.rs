//! What a module needs of wasm proposals whose state in the target's V8 was not measured.

use crate::{
    module::needed_proposals,
    target::{Evidence, Target},
};

use super::{finding::Finding, rule::Rule};

/// Findings about a module that is valid for the newest V8, under a target whose own V8 was not at
/// hand: a note for what V8's own list says is on, a warning for what it says is off. WebAssembly 2.0
/// is on in every V8 of the tables and is not asked about.
pub fn check_proposals(bytes: &[u8], target: &Target) -> Vec<Finding> {
    if target.release().evidence != Evidence::NotMeasured {
        return Vec::new();
    }
    let v8 = target.v8();
    needed_proposals(bytes)
        .into_iter()
        .map(|proposal| {
            let name = proposal.name;
            if target.has_proposal(proposal) {
                return Finding::note(
                    Rule::ModuleFeature,
                    format!("the module needs the wasm proposal {name}, which V8 {v8} of {target} has on by V8's own list; this was not measured"),
                );
            }
            let since = match proposal.v8_since {
                Some((major, minor)) => format!("it is on since V8 {major}.{minor}"),
                None => "no V8 has it on".to_owned(),
            };
            Finding::warning(
                Rule::ModuleFeature,
                format!("the module needs the wasm proposal {name}, which V8 {v8} of {target} does not have on by V8's own list ({since}); this was not measured"),
            )
            .help("turn the proposal off in the compiler, or try the module in that Envoy: `filtergate parity --envoy PATH`")
        })
        .collect()
}
