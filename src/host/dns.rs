//! `envoy_resolve_dns` (Envoy `source/extensions/common/wasm/wasm.cc`, `resolve_dns`).

use std::net::{Ipv6Addr, SocketAddr};

use super::{
    environment::Address,
    memory::{Guest, read, write_u32},
    pending::{Arrival, TokenClass},
    reentry::bring_at_once,
    state::HostResult,
};

/// `envoy_resolve_dns`: Ok and a token for any name. A bad token cell uses a token up, too. A name
/// that does not exist resolves to a list without addresses.
pub fn envoy_resolve_dns(
    guest: &mut Guest<'_>,
    name_ptr: u32,
    name_size: u32,
    token_ptr: u32,
) -> HostResult {
    let root = guest.data().root_id()?;
    let name = read(guest, name_ptr, name_size)?;
    let token = guest.data_mut().pending.next_token(TokenClass::Dns);
    write_u32(guest, token_ptr, token)?;
    let state = guest.data_mut();
    let name = String::from_utf8_lossy(&name);
    let given = state.process.environment.dns.get(&*name).cloned();
    let without_query = given.is_none().then(|| known(&name)).flatten();
    let at_once = without_query.is_some();
    let addresses = given.or(without_query).unwrap_or_default();
    let mut bytes = u32::try_from(addresses.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for address in &addresses {
        bytes.extend(address.ttl.to_le_bytes());
    }
    for address in &addresses {
        bytes.extend(address.address.as_bytes());
        bytes.push(0);
    }
    let arrival = Arrival::Resolved(bytes);
    if at_once {
        return bring_at_once(guest, root, token, arrival);
    }
    state.schedule(root, token, 0, arrival)?;
    Ok(())
}

/// What a name resolves to that Envoy's resolver knows without a query: it comes back before the call
/// returns. Of the two addresses of `localhost` Envoy prefers that of IPv6.
fn known(name: &str) -> Option<Vec<Address>> {
    let ip = if name == "localhost" { Ipv6Addr::LOCALHOST.into() } else { name.parse().ok()? };
    Some(vec![Address { address: SocketAddr::new(ip, 0).to_string(), ttl: 0 }])
}
