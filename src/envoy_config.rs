//! The configuration with which an Envoy runs a module: one filter for each root_id, and a whole
//! bootstrap around them.

use std::net::SocketAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Url;
use serde_json::{Value, json};

use crate::{
    exercise::{FailurePolicy, Filter},
    host::Plugin,
};

/// Where Envoy gets the module from.
#[derive(Debug, Clone)]
pub enum Code<'a> {
    /// A file on its machine.
    File(&'a str),
    /// A server that it reaches by a cluster. It takes nothing with another SHA-256.
    Remote {
        /// The URL.
        url: &'a Url,
        /// The SHA-256 in lowercase hex.
        sha256: &'a str,
        /// The cluster's name.
        cluster: &'a str,
    },
}

impl Code<'_> {
    fn data_source(&self) -> Value {
        match self {
            Self::File(path) => json!({ "local": { "filename": path } }),
            Self::Remote { url, sha256, cluster } => json!({ "remote": {
                "http_uri": { "uri": url.as_str(), "cluster": cluster, "timeout": "60s" },
                "sha256": sha256,
            } }),
        }
    }
}

/// A plugin and what Envoy makes of it, in the words of Envoy's `PluginConfig` and `VmConfig`.
#[derive(Debug, Clone, Default)]
pub struct PluginConfig {
    /// Where the module runs.
    pub filter: Filter,
    /// The plugin.
    pub plugin: Plugin,
    /// What becomes of requests whose VM failed.
    pub failure_policy: FailurePolicy,
}

impl PluginConfig {
    /// The plugin as a filter of a listener or of an HTTP connection manager, called `filter_name`.
    pub fn filter(&self, filter_name: &str, code: &Code<'_>) -> Value {
        let Plugin { name, root_id, vm_id, .. } = &self.plugin;
        let mut vm = json!({ "runtime": "envoy.wasm.runtime.v8", "code": code.data_source() });
        if !vm_id.is_empty() {
            vm["vm_id"] = json!(vm_id);
        }
        if !self.plugin.vm_configuration.is_empty() {
            vm["configuration"] = any(&self.plugin.vm_configuration);
        }
        if !self.plugin.environment_variables.is_empty() {
            vm["environment_variables"] =
                json!({ "key_values": self.plugin.environment_variables });
        }
        let mut plugin = json!({ "name": name, "root_id": root_id, "vm_config": vm });
        if !self.plugin.configuration.is_empty() {
            plugin["configuration"] = any(&self.plugin.configuration);
        }
        if self.plugin.allow_on_headers_stop_iteration {
            plugin["allow_on_headers_stop_iteration"] = json!(true);
        }
        if self.failure_policy != FailurePolicy::default() {
            plugin["failure_policy"] = json!(self.failure_policy.envoy_name());
        }
        if !self.plugin.allowed_capabilities.is_empty() {
            let allowed: serde_json::Map<_, _> = self
                .plugin
                .allowed_capabilities
                .iter()
                .map(|name| (name.clone(), json!({})))
                .collect();
            plugin["capability_restriction_config"] = json!({ "allowed_capabilities": allowed });
        }
        let kind = format!("filters.{}.wasm.v3.Wasm", self.filter.as_str());
        json!({ "name": filter_name, "typed_config": {
            "@type": extension(&kind), "config": plugin,
        } })
    }
}

/// A configuration as the message that Envoy unpacks to just these bytes.
fn any(bytes: &[u8]) -> Value {
    let (kind, value) = match std::str::from_utf8(bytes) {
        Ok(text) => ("StringValue", text.to_owned()),
        // Text would have to be UTF-8.
        Err(_) => ("BytesValue", BASE64_STANDARD.encode(bytes)),
    };
    json!({ "@type": format!("type.googleapis.com/google.protobuf.{kind}"), "value": value })
}

/// The type of a configuration in Envoy's own extensions.
pub(crate) fn extension(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

/// An address to listen on or connect to.
pub(crate) fn address(address: SocketAddr) -> Value {
    socket_address(&address.ip().to_string(), address.port())
}

fn socket_address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

/// The last filter for HTTP.
pub(crate) fn router() -> Value {
    json!({ "name": "router", "typed_config": {
        "@type": extension("filters.http.router.v3.Router"),
    } })
}

/// The last filter for TCP.
pub(crate) fn tcp_proxy(cluster: &str) -> Value {
    json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": extension("filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "ingress",
        "cluster": cluster,
    } })
}

/// The endpoints of a cluster with one.
pub(crate) fn load_assignment(cluster: &str, address: &Value) -> Value {
    json!({ "cluster_name": cluster, "endpoints": [{
        "lb_endpoints": [{ "endpoint": { "address": address } }],
    }] })
}

/// A whole configuration around filters of one kind: they listen at 127.0.0.1:10000. HTTP requests
/// are answered by Envoy itself, TCP connections lead to 127.0.0.1:10001.
pub fn bootstrap(filter: Filter, mut filters: Vec<Value>, code: &Code<'_>) -> Value {
    const HOST: &str = "127.0.0.1";
    const UPSTREAM: &str = "upstream";
    let mut clusters = Vec::new();
    let filters = match filter {
        Filter::Http => {
            filters.push(router());
            let manager = json!({
                "@type": extension(
                    "filters.network.http_connection_manager.v3.HttpConnectionManager",
                ),
                "stat_prefix": "ingress",
                "http_filters": filters,
                "route_config": { "virtual_hosts": [{
                    "name": "any",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "prefix": "/" },
                        "direct_response": {
                            "status": 200,
                            "body": { "inline_string": "answered by Envoy\n" },
                        },
                    }],
                }] },
            });
            vec![json!({
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager,
            })]
        }
        Filter::Network => {
            filters.push(tcp_proxy(UPSTREAM));
            clusters.push(json!({
                "name": UPSTREAM,
                "connect_timeout": "5s",
                "load_assignment": load_assignment(UPSTREAM, &socket_address(HOST, 10_001)),
            }));
            filters
        }
    };
    if let Code::Remote { url, cluster, .. } = code {
        clusters.push(cluster_of(url, cluster));
    }
    json!({ "static_resources": {
        "listeners": [{
            "name": "ingress",
            "address": socket_address(HOST, 10_000),
            "filter_chains": [{ "filters": filters }],
        }],
        "clusters": clusters,
    } })
}

/// The cluster with the server of a module. Its certificate is not compared with a CA: what it sends
/// is compared with a digest.
fn cluster_of(url: &Url, name: &str) -> Value {
    let host = url.host_str().unwrap_or_default();
    // Envoy writes IPv6 addresses without brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let mut cluster = json!({
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": load_assignment(name, &socket_address(bare, port)),
    });
    if url.scheme() == "https" {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": extension("transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": host,
            },
        });
    }
    cluster
}
