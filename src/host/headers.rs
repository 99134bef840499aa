//! Header maps: which one a module can reach when, and what it may do with it
//! (Envoy `source/extensions/common/wasm/context.cc`, `getMap`, `getConstMap`).

use crate::abi::{AbiVersion, Status};

use super::{
    context::{BodySource, Direction, Flow, StreamState},
    header_map::HeaderMap,
    memory::{Guest, give, read, write_u32},
    pairs,
    pending::Arrival,
    state::{HostResult, HostState},
};

/// A header map type of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MapType {
    Headers(Flow),
    Trailers(Flow),
    GrpcInitialMetadata,
    GrpcTrailingMetadata,
    CallHeaders,
    CallTrailers,
}

impl MapType {
    /// A type above 7 is refused before anything else.
    fn from_abi(value: u32) -> HostResult<Self> {
        Ok(match value {
            0 => Self::Headers(Flow::Request),
            1 => Self::Trailers(Flow::Request),
            2 => Self::Headers(Flow::Response),
            3 => Self::Trailers(Flow::Response),
            4 => Self::GrpcInitialMetadata,
            5 => Self::GrpcTrailingMetadata,
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return Err(Status::BadArgument.into()),
        })
    }
}

/// A map of a call, in the callback that brings it. Contexts of streams reach them, too.
fn of_a_call(state: &HostState, map: MapType) -> Option<&HeaderMap> {
    match (map, state.pending.delivered.as_ref()?) {
        (MapType::GrpcInitialMetadata, Arrival::GrpcInitialMetadata(headers))
        | (MapType::GrpcTrailingMetadata, Arrival::GrpcTrailingMetadata(headers))
        | (MapType::CallHeaders, Arrival::HttpResponse(headers, ..)) => Some(headers),
        (MapType::CallTrailers, Arrival::HttpResponse(_, _, trailers)) => trailers.as_ref(),
        _ => None,
    }
}

/// The map for reading, if it is available now.
fn readable(stream: &StreamState, map: MapType) -> Option<&HeaderMap> {
    match map {
        MapType::Headers(flow) => stream.readable_headers(flow),
        MapType::Trailers(flow) => stream.readable_trailers(flow),
        _ => None,
    }
}

/// The map for changing, if it is available now.
fn writable(stream: &mut StreamState, map: MapType) -> Option<&mut HeaderMap> {
    match map {
        MapType::Headers(flow) => {
            let direction = stream.direction_mut(flow);
            direction.headers_visible.then_some(direction.headers.as_mut()).flatten()
        }
        MapType::Trailers(flow) => {
            let end_of_stream = stream.end_of_stream;
            trailers_mut(stream.direction_mut(flow), end_of_stream)
        }
        _ => None,
    }
}

/// Trailers are made on demand while there is a body to be read and the end of a message was the last
/// that came: in the last body callback, and as long as it holds the body back.
fn trailers_mut(direction: &mut Direction, end_of_stream: bool) -> Option<&mut HeaderMap> {
    let has_body = direction.body.source != BodySource::None;
    if end_of_stream && has_body && direction.trailers.is_none() {
        direction.trailers = Some(HeaderMap::new());
        direction.trailers_visible = true;
    }
    direction.trailers_visible.then_some(direction.trailers.as_mut()).flatten()
}

fn change(
    state: &mut HostState,
    map: MapType,
    added: usize,
    how: impl FnOnce(&mut HeaderMap),
) -> HostResult {
    state.charge_stream(added)?;
    let stream = state.stream()?.ok_or(Status::BadArgument)?;
    how(writable(stream, map).ok_or(Status::BadArgument)?);
    Ok(())
}

/// Reads a key and a value and puts them into a map.
fn put(
    guest: &mut Guest<'_>,
    map: u32,
    key: (u32, u32),
    value: (u32, u32),
    how: fn(&mut HeaderMap, &[u8], &[u8]),
) -> HostResult {
    let map = MapType::from_abi(map)?;
    guest.data().context_id()?;
    let key = read(guest, key.0, key.1)?;
    let value = read(guest, value.0, value.1)?;
    change(guest.data_mut(), map, key.len() + value.len(), |headers| how(headers, &key, &value))
}

/// `proxy_add_header_map_value`.
pub fn proxy_add_header_map_value(
    guest: &mut Guest<'_>,
    map: u32,
    key_ptr: u32,
    key_size: u32,
    value_ptr: u32,
    value_size: u32,
) -> HostResult {
    put(guest, map, (key_ptr, key_size), (value_ptr, value_size), HeaderMap::add)
}

/// `proxy_replace_header_map_value`: adds the header where it is absent.
pub fn proxy_replace_header_map_value(
    guest: &mut Guest<'_>,
    map: u32,
    key_ptr: u32,
    key_size: u32,
    value_ptr: u32,
    value_size: u32,
) -> HostResult {
    put(guest, map, (key_ptr, key_size), (value_ptr, value_size), HeaderMap::replace)
}

/// `proxy_remove_header_map_value`: Ok for an absent key.
pub fn proxy_remove_header_map_value(
    guest: &mut Guest<'_>,
    map: u32,
    key_ptr: u32,
    key_size: u32,
) -> HostResult {
    let map = MapType::from_abi(map)?;
    guest.data().context_id()?;
    let key = read(guest, key_ptr, key_size)?;
    change(guest.data_mut(), map, 0, |headers| headers.remove(&key))
}

/// `proxy_get_header_map_value`: the first value. An absent key is NotFound, and Ok with no bytes
/// for ABI 0.1.0.
pub fn proxy_get_header_map_value(
    guest: &mut Guest<'_>,
    map: u32,
    key_ptr: u32,
    key_size: u32,
    value_ptr_ptr: u32,
    value_size_ptr: u32,
) -> HostResult {
    let map = MapType::from_abi(map)?;
    guest.data().context_id()?;
    let key = read(guest, key_ptr, key_size)?;
    let old_abi = guest.data().abi == AbiVersion::V0_1_0;
    let value = match of_a_call(guest.data(), map) {
        Some(headers) => headers.get(&key).map(<[u8]>::to_vec),
        None => {
            let stream = guest.data_mut().stream()?.ok_or(Status::BadArgument)?;
            match readable(stream, map) {
                Some(headers) => headers.get(&key).map(<[u8]>::to_vec),
                None if stream.access_log => None,
                None => return Err(Status::BadArgument.into()),
            }
        }
    };
    match value {
        Some(value) => give(guest, &value, value_ptr_ptr, value_size_ptr),
        None if old_abi => give(guest, b"", value_ptr_ptr, value_size_ptr),
        None => Err(Status::NotFound.into()),
    }
}

/// `proxy_get_header_map_pairs`: no bytes at all for an empty or unavailable map.
pub fn proxy_get_header_map_pairs(
    guest: &mut Guest<'_>,
    map: u32,
    ptr_ptr: u32,
    size_ptr: u32,
) -> HostResult {
    let map = MapType::from_abi(map)?;
    let call = of_a_call(guest.data(), map).map(|headers| pairs::encode(headers.iter()));
    let stream = guest.data_mut().stream()?;
    let encoded = match stream.as_deref().and_then(|stream| readable(stream, map)) {
        _ if call.is_some() => call.unwrap_or_default(),
        Some(headers) if !headers.is_empty() => pairs::encode(headers.iter()),
        _ => Vec::new(),
    };
    give(guest, &encoded, ptr_ptr, size_ptr)
}

/// `proxy_set_header_map_pairs`: everything is replaced, pseudo headers too, so that a malformed
/// list empties the map.
pub fn proxy_set_header_map_pairs(
    guest: &mut Guest<'_>,
    map: u32,
    ptr: u32,
    size: u32,
) -> HostResult {
    let map = MapType::from_abi(map)?;
    guest.data().context_id()?;
    let bytes = read(guest, ptr, size)?;
    let entries = pairs::decode(&bytes);
    change(guest.data_mut(), map, bytes.len(), |headers| {
        headers.clear();
        for (name, value) in &entries {
            headers.add(name, value);
        }
    })
}

/// `proxy_get_header_map_size`: bytes, not entries. It takes the map as one that changes it does, and
/// so makes trailers in the last body callback, and finds nothing in the access log.
pub fn proxy_get_header_map_size(guest: &mut Guest<'_>, map: u32, size_ptr: u32) -> HostResult {
    let map = MapType::from_abi(map)?;
    let stream = guest.data_mut().stream()?.ok_or(Status::BadArgument)?;
    let size = writable(stream, map).ok_or(Status::BadArgument)?.byte_size();
    write_u32(guest, size_ptr, u32::try_from(size).unwrap_or(u32::MAX))
}
