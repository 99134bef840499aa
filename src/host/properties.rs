//! Properties: `proxy_get_property` and `proxy_set_property` on a plain HTTP exchange
//! or TCP connection (Envoy `source/extensions/common/wasm/context.cc` and `filters/common/expr/context.cc`).

use crate::abi::Status;

use super::{
    context::{Flow, Kind, Object, SetProperty, StreamState},
    header_map::HeaderMap,
    memory::{Guest, give, read},
    pairs,
    state::{HostResult, HostState, HostTrap},
};

/// A value on the way down a path, as far as an exchange has such values.
enum Value {
    Text(Vec<u8>),
    Int(i64),
    UInt(u64),
    Bool(bool),
    /// Nanoseconds, a duration or a point in time.
    Nanos(i64),
    /// There, but nothing that can be serialised.
    Null,
    /// Headers as a map: values of one name are joined with commas.
    Headers(HeaderMap),
    /// A map without entries.
    EmptyMap,
    /// A message without content, with these fields.
    EmptyMessage(&'static [(&'static str, Field)]),
    /// A group such as `request`, whose keys Envoy cannot list.
    Group(Group),
}

/// What a field of an empty message is.
#[derive(Clone, Copy)]
enum Field {
    Text(&'static str),
    Message,
    Locality,
    Map,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Request,
    Response,
    Connection,
    Upstream,
    Source,
    Destination,
    Xds,
    FilterState,
}

const METADATA: &[(&str, Field)] =
    &[("filter_metadata", Field::Map), ("typed_filter_metadata", Field::Map)];

const LOCALITY: &[(&str, Field)] =
    &[("region", Field::Text("")), ("zone", Field::Text("")), ("sub_zone", Field::Text(""))];

const NODE: &[(&str, Field)] = &[
    ("id", Field::Text("")),
    ("cluster", Field::Text("")),
    ("metadata", Field::Map),
    ("dynamic_parameters", Field::Map),
    ("locality", Field::Locality),
    ("user_agent_name", Field::Text("envoy")),
    ("user_agent_version", Field::Text("")),
    ("user_agent_build_version", Field::Message),
    ("extensions", Field::Map),
    ("client_features", Field::Map),
    ("listening_addresses", Field::Map),
];

/// Where the exchange takes place, as properties tell it.
const DOWNSTREAM_REMOTE: (&str, i64) = ("127.0.0.1:40000", 40000);
const DOWNSTREAM_LOCAL: (&str, i64) = ("127.0.0.1:10000", 10000);
const UPSTREAM_REMOTE: (&str, i64) = ("127.0.0.1:8080", 8080);
const UPSTREAM_LOCAL: &str = "127.0.0.1:40001";
const CONNECTION_ID: u64 = 1;
/// From the first byte sent to the upstream to the last one received.
const BACKEND_LATENCY_NS: i64 = 1_000_000;
/// How long a connection to the upstream took to be ready.
const POOL_READY_NS: i64 = 100_000;

/// `proxy_get_property`: parts of the path are separated by NUL.
pub fn proxy_get_property(
    guest: &mut Guest<'_>,
    path_ptr: u32,
    path_size: u32,
    value_ptr_ptr: u32,
    value_size_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let path = read(guest, path_ptr, path_size)?;
    let value = property(guest.data_mut(), &path)?;
    give(guest, &value, value_ptr_ptr, value_size_ptr)
}

/// `proxy_set_property`: state of the stream, under the path as it is.
pub fn proxy_set_property(
    guest: &mut Guest<'_>,
    path_ptr: u32,
    path_size: u32,
    value_ptr: u32,
    value_size: u32,
) -> HostResult {
    guest.data().context_id()?;
    let path = read(guest, path_ptr, path_size)?;
    let value = read(guest, value_ptr, value_size)?;
    let state = guest.data_mut();
    state.charge(path.len() + value.len())?;
    let root = state.root_id()?;
    let declared = state.contexts.get(&root).and_then(|root| root.prototypes.get(&path));
    let prototype = declared.copied().unwrap_or_default();
    let stream = state.stream()?.ok_or(Status::NotFound)?;
    match stream.filter_state.get_mut(&path) {
        Some(known) if known.prototype.read_only => return Err(Status::BadArgument.into()),
        Some(known) => known.value = value,
        None => {
            stream.filter_state.insert(path, SetProperty { value, prototype });
        }
    }
    Ok(())
}

fn property(state: &mut HostState, path: &[u8]) -> HostResult<Vec<u8>> {
    if path.is_empty() {
        return Err(Status::SerializationFailure.into());
    }
    // A NUL at the end separates nothing, but one alone has an empty part before it.
    let mut parts = path.strip_suffix(b"\0").unwrap_or(path).split(|byte| *byte == 0);
    let first = parts.next().unwrap_or_default();
    let mut value = top_level(state, first)?;
    for part in parts {
        value = step(state, &value, part)?.ok_or(Status::NotFound)?;
    }
    serialise(&value)
}

fn top_level(state: &mut HostState, name: &[u8]) -> HostResult<Value> {
    let stream = state.stream()?;
    let has_stream = stream.is_some();
    let upstream_selected = stream.is_some_and(|stream| stream.upstream_selected);
    let group = match name {
        b"request" => Some(Group::Request),
        b"response" => Some(Group::Response),
        b"connection" => Some(Group::Connection),
        b"upstream" => Some(Group::Upstream),
        b"source" => Some(Group::Source),
        b"destination" => Some(Group::Destination),
        b"filter_state" => Some(Group::FilterState),
        b"upstream_filter_state" if upstream_selected => Some(Group::FilterState),
        // The only group that root contexts have too.
        b"xds" => return Ok(Value::Group(Group::Xds)),
        _ => None,
    };
    let plugin_text = |text: &str| Value::Text(text.as_bytes().to_vec());
    match (group, name) {
        (Some(group), _) if has_stream => return Ok(Value::Group(group)),
        (None, b"metadata") if has_stream => return Ok(Value::EmptyMessage(METADATA)),
        (None, b"connection_id") if has_stream => return Ok(Value::UInt(CONNECTION_ID)),
        (None, b"plugin_root_id") => {
            state.read_root_id = true;
            return Ok(plugin_text(&state.plugin.root_id));
        }
        (None, b"plugin_vm_id") => return Ok(plugin_text(&state.plugin.vm_id)),
        // The VM's context has no plugin, and so no name.
        (None, b"plugin_name") if state.context_id()? != 0 => {
            return Ok(plugin_text(&state.plugin.name));
        }
        _ => {}
    }
    match state.stream()?.and_then(|stream| stream.filter_state.get(name)) {
        Some(set) => Ok(Value::Text(set.value.clone())),
        None => Err(Status::NotFound.into()),
    }
}

fn step(state: &mut HostState, value: &Value, part: &[u8]) -> HostResult<Option<Value>> {
    Ok(match value {
        Value::Group(group) if is_younger(*group, part, state.release.minor) => None,
        Value::Group(Group::FilterState) => match state.stream()? {
            Some(stream) => filter_state(stream, part)?,
            None => None,
        },
        Value::Group(group) => group_field(*group, state.stream()?.as_deref(), part),
        Value::Headers(map) => map.joined(part).map(Value::Text),
        Value::EmptyMessage(fields) => {
            fields.iter().find(|(name, _)| name.as_bytes() == part).map(|(_, field)| match field {
                Field::Text(text) => Value::Text(text.as_bytes().to_vec()),
                Field::Message => Value::EmptyMessage(&[]),
                Field::Locality => Value::EmptyMessage(LOCALITY),
                Field::Map => Value::EmptyMap,
            })
        }
        _ => None,
    })
}

/// Fields that older releases do not have, and the minor number of the first that does. Probed.
const SINCE: &[(Group, &[u8], u8)] = &[
    (Group::Connection, b"peer_certificate_valid", 38),
    (Group::Request, b"headers_bytes", 37),
    (Group::Response, b"headers_bytes", 37),
];

fn is_younger(group: Group, part: &[u8], minor: u8) -> bool {
    SINCE.iter().any(|(of, name, since)| *of == group && *name == part && minor < *since)
}

fn group_field(group: Group, stream: Option<&StreamState>, part: &[u8]) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.as_bytes().to_vec()));
    if group == Group::Xds && part == b"node" {
        return Some(Value::EmptyMessage(NODE));
    }
    let stream = stream?;
    match group {
        Group::Request => request_field(stream, part),
        Group::Response => response_field(stream, part),
        Group::Connection => match part {
            b"id" => Some(Value::UInt(CONNECTION_ID)),
            b"mtls" | b"peer_certificate_valid" => Some(Value::Bool(false)),
            b"requested_server_name" => text(""),
            _ => None,
        },
        Group::Source => address_field(DOWNSTREAM_REMOTE, part),
        Group::Destination => address_field(DOWNSTREAM_LOCAL, part),
        Group::Upstream if stream.upstream_selected => match part {
            b"local_address" => text(UPSTREAM_LOCAL),
            b"locality" => Some(Value::EmptyMessage(LOCALITY)),
            b"cx_pool_ready_duration" => Some(Value::Nanos(POOL_READY_NS)),
            b"transport_failure_reason" => text(""),
            b"request_attempt_count" => Some(Value::UInt(1)),
            b"num_endpoints" => Some(Value::UInt(1)),
            _ => address_field(UPSTREAM_REMOTE, part),
        },
        Group::Upstream => match part {
            b"request_attempt_count" => Some(Value::UInt(0)),
            // What is known of the upstream begins with the connection, but the cluster does not.
            b"transport_failure_reason" if stream.is_tcp => text(""),
            b"num_endpoints" if !stream.is_tcp => Some(Value::UInt(1)),
            _ => None,
        },
        // A connection has no route, and a cluster only once it has an upstream.
        Group::Xds if stream.is_tcp && is_of_route(part, stream.upstream_selected) => None,
        Group::Xds => match part {
            b"cluster_name" => text("upstream"),
            b"route_name" | b"filter_chain_name" => text(""),
            b"virtual_host_name" => text("upstream"),
            b"listener_direction" => Some(Value::Int(0)),
            b"cluster_metadata"
            | b"route_metadata"
            | b"virtual_host_metadata"
            | b"listener_metadata" => Some(Value::EmptyMessage(METADATA)),
            b"upstream_host_metadata" | b"upstream_host_locality_metadata"
                if stream.upstream_selected =>
            {
                Some(Value::Null)
            }
            _ => None,
        },
        Group::FilterState => None,
    }
}

fn is_of_route(part: &[u8], upstream_selected: bool) -> bool {
    match part {
        b"route_name" | b"route_metadata" | b"virtual_host_name" | b"virtual_host_metadata" => true,
        b"cluster_name" | b"cluster_metadata" => !upstream_selected,
        _ => false,
    }
}

/// What `filter_state` has under a key: an object of Envoy's as it serialises, or what the module
/// set, under `wasm.` and its path.
fn filter_state(stream: &StreamState, key: &[u8]) -> HostResult<Option<Value>> {
    if let Some(object) = stream.objects.get(key) {
        return Ok(match object {
            Object::Text(text) => Some(Value::Text(text.clone())),
            Object::Address => Some(Value::EmptyMap),
            Object::Opaque => None,
        });
    }
    let set = key.strip_prefix(b"wasm.").and_then(|path| stream.filter_state.get(path));
    Ok(match set {
        None => None,
        Some(set) => Some(match set.prototype.kind {
            Kind::Plain => Value::Text(set.value.clone()),
            // Its type is none that Envoy knows, so that it is no message.
            Kind::Protobuf => Value::Null,
            Kind::FlatBuffers => {
                return Err(HostTrap::CrashesEnvoy(
                    "a property declared as FlatBuffers was read through `filter_state`: Envoy \
                     reads a table by the declared schema, and dies where either is malformed"
                        .to_owned(),
                )
                .into());
            }
        }),
    })
}

fn address_field((address, port): (&str, i64), part: &[u8]) -> Option<Value> {
    match part {
        b"address" => Some(Value::Text(address.as_bytes().to_vec())),
        b"port" => Some(Value::Int(port)),
        _ => None,
    }
}

fn header_map(headers: Option<&HeaderMap>) -> Value {
    match headers {
        Some(map) if !map.is_empty() => Value::Headers(map.clone()),
        _ => Value::EmptyMap,
    }
}

fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn byte_size(headers: Option<&HeaderMap>) -> i64 {
    count(headers.map_or(0, HeaderMap::byte_size) as u64)
}

fn request_field(stream: &StreamState, part: &[u8]) -> Option<Value> {
    let received = count(stream.request_bytes);
    let headers = stream.readable_headers(Flow::Request);
    let header = |name: &[u8]| {
        headers.and_then(|map| map.get(name)).map(|value| Value::Text(value.to_vec()))
    };
    let path = headers.and_then(|map| map.get(b":path"));
    match part {
        b"path" => header(b":path"),
        b"url_path" => path.map(|path| {
            Value::Text(path.split(|b| *b == b'?').next().unwrap_or_default().to_vec())
        }),
        b"query" => path.map(|path| {
            let query = path.splitn(2, |b| *b == b'?').nth(1).unwrap_or_default();
            Value::Text(query.split(|b| *b == b'#').next().unwrap_or_default().to_vec())
        }),
        b"host" => header(b":authority"),
        b"scheme" => header(b":scheme"),
        b"method" => header(b":method"),
        b"referer" => header(b"referer"),
        b"useragent" => header(b"user-agent"),
        b"id" => header(b"x-request-id"),
        b"headers" => Some(header_map(headers)),
        b"headers_bytes" => Some(Value::Int(byte_size(headers))),
        b"time" => Some(Value::Nanos(stream.start_ns)),
        b"protocol" if stream.is_tcp => None,
        b"protocol" => {
            let protocol = if stream.is_http2 { "HTTP/2" } else { "HTTP/1.1" };
            Some(Value::Text(protocol.into()))
        }
        b"size" => match headers.filter(|map| map.get(b"content-length").is_some()) {
            Some(map) => map.number(b"content-length").map(Value::Int),
            None => Some(Value::Int(received)),
        },
        b"total_size" => Some(Value::Int(received.saturating_add(byte_size(headers)))),
        b"duration" => stream.duration_ns.map(Value::Nanos),
        _ => None,
    }
}

fn response_field(stream: &StreamState, part: &[u8]) -> Option<Value> {
    let (sent, code) = (count(stream.response_bytes), stream.response_code);
    let headers = stream.readable_headers(Flow::Response);
    let trailers = stream.readable_trailers(Flow::Response);
    match part {
        b"code" => code.map(|code| Value::Int(code.into())),
        b"code_details" => {
            stream.code_details.as_ref().map(|details| Value::Text(details.clone().into_bytes()))
        }
        b"flags" => Some(Value::Int(0)),
        b"backend_latency" if stream.upstream_done => Some(Value::Nanos(BACKEND_LATENCY_NS)),
        b"grpc_status" => {
            let status = |map: Option<&HeaderMap>| map?.number(b"grpc-status");
            status(trailers)
                .or_else(|| status(headers))
                .or_else(|| code.map(grpc_status_of_http))
                .map(Value::Int)
        }
        b"headers" => Some(header_map(headers)),
        b"trailers" => Some(header_map(trailers)),
        b"headers_bytes" => Some(Value::Int(byte_size(headers))),
        b"size" => Some(Value::Int(sent)),
        b"total_size" => Some(Value::Int(
            sent.saturating_add(byte_size(headers)).saturating_add(byte_size(trailers)),
        )),
        _ => None,
    }
}

/// The mapping of the gRPC specification, which Envoy applies to responses without a grpc-status.
fn grpc_status_of_http(code: u32) -> i64 {
    match code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

fn serialise(value: &Value) -> HostResult<Vec<u8>> {
    Ok(match value {
        Value::Text(text) => text.clone(),
        Value::Int(number) | Value::Nanos(number) => number.to_le_bytes().to_vec(),
        Value::UInt(number) => number.to_le_bytes().to_vec(),
        Value::Bool(yes) => vec![u8::from(*yes)],
        Value::Headers(map) => {
            let mut joined = Vec::<(Vec<u8>, Vec<u8>)>::new();
            for (name, _) in map.iter() {
                if joined.iter().all(|(known, _)| known != name) {
                    joined.push((name.to_vec(), map.joined(name).unwrap_or_default()));
                }
            }
            pairs::encode(joined.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
        }
        Value::EmptyMap => vec![0; 4],
        Value::EmptyMessage(_) => Vec::new(),
        Value::Group(_) | Value::Null => return Err(Status::SerializationFailure.into()),
    })
}
