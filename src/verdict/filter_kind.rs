//! Whether the module's callbacks are those of the filter that it is to be.

use crate::{exercise::Filter, module::Facts};

use super::{Finding, Rule};

/// The callbacks of HTTP streams begin with one of these.
const HTTP: &[&str] = &["proxy_on_request_", "proxy_on_response_"];

/// Those of TCP connections.
const NETWORK: &[&str] = &[
    "proxy_on_new_connection",
    "proxy_on_downstream_data",
    "proxy_on_downstream_connection_close",
    "proxy_on_upstream_data",
    "proxy_on_upstream_connection_close",
];

/// A note where the module has callbacks of the other kind of filter and none of this one: Envoy loads
/// it all the same, and then there is nothing to call. SDKs that export every callback tell nothing.
pub fn check_filter_kind(facts: &Facts, filter: Filter) -> Option<Finding> {
    let has = |names: &[&str]| {
        facts.exports.iter().any(|export| names.iter().any(|name| export.name.starts_with(name)))
    };
    let (own, other, word, kind) = match filter {
        Filter::Http => (HTTP, NETWORK, "TCP connections", Filter::Network),
        Filter::Network => (NETWORK, HTTP, "HTTP streams", Filter::Http),
    };
    (has(other) && !has(own)).then(|| {
        Finding::note(
            Rule::RunOtherFilter,
            format!(
                "the module has callbacks for {word} only: as a filter for {} Envoy lets everything through it untouched",
                match filter {
                    Filter::Http => "HTTP",
                    Filter::Network => "TCP",
                }
            ),
        )
        .help(format!("check it with --filter {}", kind.as_str()))
    })
}
