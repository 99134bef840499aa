//! Shared data and shared queues (proxy-wasm-cpp-host `src/shared_data.cc`, `src/shared_queue.cc`).

use crate::abi::Status;

use super::{
    memory::{Guest, give, read, write_u32},
    process::{Queue, QueueReady, SharedValue},
    state::HostResult,
};

/// `proxy_get_shared_data`: the value and its compare-and-swap number.
pub fn proxy_get_shared_data(
    guest: &mut Guest<'_>,
    key_ptr: u32,
    key_size: u32,
    value_ptr_ptr: u32,
    value_size_ptr: u32,
    cas_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let key = read(guest, key_ptr, key_size)?;
    let state = guest.data();
    let found = state.process.lock().shared_data.get(&(state.plugin.vm_id.clone(), key)).cloned();
    let SharedValue { value, cas } = found.ok_or(Status::NotFound)?;
    give(guest, &value, value_ptr_ptr, value_size_ptr)?;
    write_u32(guest, cas_ptr, cas)
}

/// `proxy_set_shared_data`: 0 sets in any case; another number must be the stored one, unless the
/// key is new.
pub fn proxy_set_shared_data(
    guest: &mut Guest<'_>,
    key_ptr: u32,
    key_size: u32,
    value_ptr: u32,
    value_size: u32,
    cas: u32,
) -> HostResult {
    guest.data().context_id()?;
    let key = read(guest, key_ptr, key_size)?;
    let value = read(guest, value_ptr, value_size)?;
    let state = guest.data_mut();
    state.charge(key.len() + value.len())?;
    let mut tables = state.process.lock();
    let key = (state.plugin.vm_id.clone(), key);
    if let Some(stored) = tables.shared_data.get(&key)
        && cas != 0
        && cas != stored.cas
    {
        return Err(Status::CasMismatch.into());
    }
    // Numbers are never 0, not even after they wrapped.
    tables.last_cas = tables.last_cas.checked_add(1).unwrap_or(1);
    let cas = tables.last_cas;
    tables.shared_data.insert(key, SharedValue { value, cas });
    Ok(())
}

/// `proxy_register_shared_queue`: the same name gives the same token, and whoever registers it last
/// hears of its items.
pub fn proxy_register_shared_queue(
    guest: &mut Guest<'_>,
    name_ptr: u32,
    name_size: u32,
    token_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let name = read(guest, name_ptr, name_size)?;
    let state = guest.data_mut();
    state.charge(name.len() + size_of::<Queue>())?;
    let owner = (state.instance, state.root_id()?);
    let token = {
        let mut tables = state.process.lock();
        let next = u32::try_from(tables.queues.len()).unwrap_or(u32::MAX).saturating_add(1);
        let token = *tables.queue_tokens.entry((state.plugin.vm_id.clone(), name)).or_insert(next);
        if token == next {
            tables.queues.push(Queue::default());
        }
        if let Some(queue) = queue(&mut tables.queues, token) {
            queue.owner = owner;
        }
        token
    };
    write_u32(guest, token_ptr, token)
}

/// `proxy_resolve_shared_queue`: an empty VM id means the module's own.
pub fn proxy_resolve_shared_queue(
    guest: &mut Guest<'_>,
    vm_id_ptr: u32,
    vm_id_size: u32,
    name_ptr: u32,
    name_size: u32,
    token_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let vm_id = read(guest, vm_id_ptr, vm_id_size)?;
    let name = read(guest, name_ptr, name_size)?;
    let state = guest.data();
    let vm_id = if vm_id.is_empty() {
        state.plugin.vm_id.clone()
    } else {
        String::from_utf8_lossy(&vm_id).into_owned()
    };
    let token = state.process.lock().queue_tokens.get(&(vm_id, name)).copied();
    write_u32(guest, token_ptr, token.ok_or(Status::NotFound)?)
}

/// `proxy_dequeue_shared_queue`: NotFound for an unknown token, Empty without an item.
pub fn proxy_dequeue_shared_queue(
    guest: &mut Guest<'_>,
    token: u32,
    data_ptr_ptr: u32,
    data_size_ptr: u32,
) -> HostResult {
    guest.data().context_id()?;
    let data = {
        let mut tables = guest.data().process.lock();
        let queue = queue(&mut tables.queues, token).ok_or(Status::NotFound)?;
        queue.items.pop_front().ok_or(Status::Empty)?
    };
    give(guest, &data, data_ptr_ptr, data_size_ptr)
}

/// `proxy_enqueue_shared_queue`: NotFound for an unknown token.
pub fn proxy_enqueue_shared_queue(
    guest: &mut Guest<'_>,
    token: u32,
    data_ptr: u32,
    data_size: u32,
) -> HostResult {
    guest.data().context_id()?;
    let data = read(guest, data_ptr, data_size)?;
    let state = guest.data_mut();
    state.charge(data.len() + size_of::<Vec<u8>>())?;
    let mut tables = state.process.lock();
    let queue = queue(&mut tables.queues, token).ok_or(Status::NotFound)?;
    queue.items.push_back(data);
    let (instance, root) = queue.owner;
    let order = state.process.next_order();
    tables.posts.push_back(QueueReady { instance, root, token, order });
    Ok(())
}

fn queue(queues: &mut [Queue], token: u32) -> Option<&mut Queue> {
    queues.get_mut(usize::try_from(token).ok()?.checked_sub(1)?)
}
