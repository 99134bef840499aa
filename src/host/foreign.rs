//! `proxy_call_foreign_function` (Envoy `source/extensions/common/wasm/foreign.cc`).

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};

use crate::abi::Status;

use super::{
    context::{Kind, Object, Prototype},
    memory::{Guest, allocate, read, write, write_u32},
    signature::{sign, verify_signature},
    state::{Exit, HostResult, HostState, HostTrap},
    wire::{self, Value},
};

/// What a function leaves: bytes for the module, or nothing.
pub(super) type Produced = HostResult<Option<Vec<u8>>>;

/// A function of Envoy's.
struct Function {
    name: &'static str,
    /// The first minor release that has it.
    since: u8,
    /// `None` where there is no model of it.
    run: Option<fn(&mut HostState, &[u8]) -> Produced>,
}

const fn function(
    name: &'static str,
    since: u8,
    run: Option<fn(&mut HostState, &[u8]) -> Produced>,
) -> Function {
    Function { name, since, run }
}

/// All of them. Official builds of Envoy have CEL, and so `expr_*`.
static FUNCTIONS: &[Function] = &[
    function("compress", 0, Some(compress)),
    function("uncompress", 0, Some(uncompress)),
    function("declare_property", 0, Some(declare_property)),
    function("set_envoy_filter_state", 28, Some(set_envoy_filter_state)),
    function("clear_route_cache", 33, Some(|_, _| Ok(None))),
    function("verify_signature", 30, Some(verify_signature)),
    function("sign", 37, Some(sign)),
    function("expr_create", 0, None),
    function("expr_evaluate", 0, None),
    function("expr_delete", 0, None),
];

/// The most that `uncompress` gives. Envoy has no limit; a module may ask for any ratio.
const MAX_OUTPUT: u64 = 64 << 20;

/// `proxy_call_foreign_function`: of an unknown function the result cells stay as they are; of a
/// known one they are written even where it fails. A null address cell asks for no bytes.
pub fn proxy_call_foreign_function(
    guest: &mut Guest<'_>,
    name_ptr: u32,
    name_size: u32,
    arguments_ptr: u32,
    arguments_size: u32,
    results_ptr: u32,
    results_size_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let name = read(guest, name_ptr, name_size)?;
    let arguments = read(guest, arguments_ptr, arguments_size)?;
    let state = guest.data_mut();
    let known = FUNCTIONS
        .iter()
        .find(|function| function.name.as_bytes() == name && function.since <= state.release.minor);
    let Some(function) = known else { return Err(Status::NotFound.into()) };
    let Some(run) = function.run else {
        state.foreign_not_modelled.insert(function.name);
        return Err(Status::NotFound.into());
    };
    let (bytes, result) = match run(state, &arguments) {
        Ok(bytes) => (bytes, Ok(())),
        Err(trap @ Exit::Trap(_)) => return Err(trap),
        Err(code) => (None, Err(code)),
    };
    let len = bytes.as_ref().map_or(0, Vec::len);
    let len = u32::try_from(len).map_err(|_| Status::InvalidMemoryAccess)?;
    if results_ptr != 0 {
        let mut address = 0;
        if let Some(bytes) = bytes {
            // Envoy copies to what it was given, be it null.
            address = match allocate(guest, len)? {
                Some(address) => address,
                None if len == 0 => 0,
                None => return Err(no_room(function.name).into()),
            };
            write(guest, address, &bytes)?;
        }
        write_u32(guest, results_ptr, address)?;
    }
    if results_size_ptr != 0 {
        write_u32(guest, results_size_ptr, len)?;
    }
    result
}

fn no_room(name: &str) -> HostTrap {
    HostTrap::CrashesEnvoy(format!(
        "the module's allocator gave no memory for the result of the foreign function `{name}`: \
         Envoy writes to address 0 and dies of a segmentation fault"
    ))
}

/// A zlib stream at zlib's default level. Its bytes may differ from those of Envoy's zlib.
fn compress(_: &mut HostState, arguments: &[u8]) -> Produced {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(arguments).map_err(|_| Status::SerializationFailure)?;
    Ok(Some(encoder.finish().map_err(|_| Status::SerializationFailure)?))
}

/// The content of a zlib stream; what follows the stream is ignored.
fn uncompress(_: &mut HostState, arguments: &[u8]) -> Produced {
    let mut bytes = Vec::new();
    ZlibDecoder::new(arguments)
        .take(MAX_OUTPUT + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| Status::SerializationFailure)?;
    // The decoder takes no input at all for an empty stream.
    if arguments.is_empty() {
        return Err(Status::SerializationFailure.into());
    }
    if bytes.len() as u64 > MAX_OUTPUT {
        return Err(HostTrap::Limit("`uncompress` would give more than 64 MiB".to_owned()).into());
    }
    Ok(Some(bytes))
}

/// Declares how `proxy_set_property` keeps a path. It is stored on the current context, whatever
/// the effective one, and read from the root.
fn declare_property(state: &mut HostState, arguments: &[u8]) -> Produced {
    let (mut name, mut prototype, mut valid) = (&[][..], Prototype::default(), true);
    wire::fields(arguments, |number, value| match (number, value) {
        (1, Value::Bytes(bytes)) => {
            valid &= wire::is_text(value);
            name = bytes;
        }
        (2, Value::Varint(flag)) => prototype.read_only = flag != 0,
        // An enumeration is 32 bits wide.
        (3, Value::Varint(kind)) => {
            prototype.kind = match kind as u32 {
                2 => Kind::FlatBuffers,
                3 => Kind::Protobuf,
                _ => Kind::Plain,
            };
        }
        _ => {}
    })
    .filter(|()| valid)
    .ok_or(Status::BadArgument)?;
    state.charge(name.len())?;
    let id = state.current.unwrap_or_default();
    let context = state.contexts.get_mut(&id).ok_or(Status::BadArgument)?;
    if context.prototypes.contains_key(name) {
        return Err(Status::BadArgument.into());
    }
    context.prototypes.insert(name.to_vec(), prototype);
    Ok(None)
}

/// What an object of the filter state accepts and how it reads.
#[derive(Clone, Copy)]
enum ObjectKind {
    /// Any text, read as it is.
    Text,
    /// Any text, which cannot be read back.
    Opaque,
    /// An IP address, read with port 0.
    Ip,
    /// An IP address with a port, read as a map without entries.
    Address,
    /// `true`; any other text is `false`.
    Flag,
    /// `true` or `false`.
    Bool,
    /// A number up to this one.
    Number(u64),
}

/// Keys with an `ObjectFactory` in Envoy, and the first minor release that has it so; the younger
/// row of a key first. Seen in Envoy 1.36.4, 1.37.0, 1.39.3 and 1.40.0.
static OBJECTS: &[(&str, u8, ObjectKind)] = &[
    ("envoy.string", 0, ObjectKind::Text),
    ("envoy.hashable_string", 38, ObjectKind::Text),
    ("envoy.network.ip", 0, ObjectKind::Ip),
    ("envoy.network.upstream_server_name", 0, ObjectKind::Text),
    ("envoy.network.application_protocols", 0, ObjectKind::Opaque),
    ("envoy.network.upstream_subject_alt_names", 38, ObjectKind::Text),
    ("envoy.network.upstream_subject_alt_names", 0, ObjectKind::Opaque),
    ("envoy.tcp_proxy.cluster", 0, ObjectKind::Text),
    ("envoy.tcp_proxy.disable_tunneling", 0, ObjectKind::Flag),
    ("envoy.tcp_proxy.per_connection_idle_timeout_ms", 0, ObjectKind::Number(u64::MAX)),
    ("envoy.network.transport_socket.original_dst_address", 0, ObjectKind::Address),
    ("envoy.filters.listener.original_dst.local_ip", 0, ObjectKind::Address),
    ("envoy.filters.listener.original_dst.remote_ip", 0, ObjectKind::Address),
    ("envoy.upstream.dynamic_host", 0, ObjectKind::Text),
    ("envoy.upstream.dynamic_port", 0, ObjectKind::Number(u32::MAX as u64)),
    ("envoy.ratelimit.hits_addend", 0, ObjectKind::Number(u32::MAX as u64)),
    ("envoy.bool", 40, ObjectKind::Bool),
];

impl ObjectKind {
    /// The object of a text, if it takes it.
    fn object(self, text: &[u8]) -> Option<Object> {
        let parsed = || std::str::from_utf8(text).ok();
        Some(match self {
            Self::Text => Object::Text(text.to_vec()),
            Self::Opaque => Object::Opaque,
            Self::Ip => match parsed()?.parse().ok()? {
                IpAddr::V4(ip) => Object::Text(format!("{ip}:0").into_bytes()),
                IpAddr::V6(ip) => Object::Text(format!("[{ip}]:0").into_bytes()),
            },
            Self::Address => parsed()?.parse::<SocketAddr>().map(|_| Object::Address).ok()?,
            Self::Flag => Object::Text((text == b"true").to_string().into_bytes()),
            Self::Bool if text == b"true" || text == b"false" => Object::Text(text.to_vec()),
            Self::Bool => return None,
            Self::Number(most) => {
                let number =
                    parsed()?.trim().parse::<u64>().ok().filter(|number| *number <= most)?;
                Object::Text(number.to_string().into_bytes())
            }
        })
    }
}

/// Puts an object of Envoy's own into the filter state of the stream. Key and value are looked at
/// before the stream.
fn set_envoy_filter_state(state: &mut HostState, arguments: &[u8]) -> Produced {
    let (mut path, mut text, mut valid) = (&[][..], &[][..], true);
    wire::fields(arguments, |number, value| {
        if let (1 | 2, Value::Bytes(bytes)) = (number, value) {
            valid &= wire::is_text(value);
            *if number == 1 { &mut path } else { &mut text } = bytes;
        }
    })
    .filter(|()| valid)
    .ok_or(Status::BadArgument)?;
    let (.., kind) = OBJECTS
        .iter()
        .find(|(key, since, _)| key.as_bytes() == path && *since <= state.release.minor)
        .ok_or(Status::NotFound)?;
    let object = kind.object(text).ok_or(Status::BadArgument)?;
    state.charge(path.len() + text.len())?;
    let id = match state.current {
        Some(current) if !state.release.foreign_functions_follow_effective_context => current,
        _ => state.context_id()?,
    };
    let stream = state.contexts.get_mut(&id).and_then(|context| context.stream.as_deref_mut());
    stream.ok_or(Status::NotFound)?.objects.insert(path.to_vec(), object);
    Ok(None)
}
