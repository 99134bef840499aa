//! The guest's memory, and allocation in it.

use std::ops::Range;

use wasmtime::{Caller, Memory, SharedMemory};

use crate::abi::Status;

use super::{
    reentry::call_back,
    state::{Exit, HostResult, HostState, HostTrap, Phase},
};

/// The memory that the host uses: the last exported one, else the last imported one
/// (proxy-wasm-cpp-host `src/v8/v8.cc`, `link`).
#[derive(Clone)]
pub enum GuestMemory {
    /// An ordinary memory.
    Plain(Memory),
    /// A shared memory.
    Shared(SharedMemory),
}

/// A caller whose store holds a [`HostState`].
pub type Guest<'a> = Caller<'a, HostState>;

fn no_memory() -> Exit {
    HostTrap::CrashesEnvoy(
        "a host function needs the module's memory, but the module neither exports nor imports one \
         (or is still being instantiated): Envoy dies of a segmentation fault"
            .to_owned(),
    )
    .into()
}

/// The bytes of a shared memory.
///
/// No other thread runs a guest on this memory: each store's shared memories are its own, and
/// filtergate starts no guest threads.
#[allow(unsafe_code, reason = "wasmtime offers shared memory only as cells")]
fn shared_bytes(memory: &SharedMemory) -> &'static mut [u8] {
    let cells = memory.data();
    // SAFETY: the memory lives as long as the store, whose host functions are the only users of
    // this slice, one at a time, and never while guest code runs.
    unsafe { std::slice::from_raw_parts_mut(cells.as_ptr().cast::<u8>().cast_mut(), cells.len()) }
}

/// The memory's bytes and the host's state, both to change.
pub fn split<'a>(guest: &'a mut Guest<'_>) -> HostResult<(&'a mut [u8], &'a mut HostState)> {
    if guest.data().phase == Phase::Instantiate {
        return Err(no_memory());
    }
    match guest.data().memory.clone() {
        Some(GuestMemory::Plain(memory)) => Ok(memory.data_and_store_mut(guest)),
        Some(GuestMemory::Shared(memory)) => Ok((shared_bytes(&memory), guest.data_mut())),
        None => Err(no_memory()),
    }
}

/// The range `ptr..ptr + len`. One that ends beyond the largest 32-bit address is refused before
/// anything is known of the memory (`V8::getMemory`).
fn range(ptr: u32, len: u32) -> Option<Range<usize>> {
    Some(ptr as usize..ptr.checked_add(len)? as usize)
}

/// The bytes of a range, if it lies in the memory.
pub fn slice(memory: &[u8], ptr: u32, len: u32) -> Option<&[u8]> {
    memory.get(range(ptr, len)?)
}

/// The bytes of a range, and the host's state to change.
pub fn view<'a>(
    guest: &'a mut Guest<'_>,
    ptr: u32,
    len: u32,
) -> HostResult<(&'a [u8], &'a mut HostState)> {
    let range = range(ptr, len).ok_or(Status::InvalidMemoryAccess)?;
    let (memory, state) = split(guest)?;
    let bytes = memory.get(range).ok_or(Status::InvalidMemoryAccess)?;
    state.boundary.bytes_to_host += u64::from(len);
    Ok((bytes, state))
}

/// Copies a range out of the memory.
pub fn read(guest: &mut Guest<'_>, ptr: u32, len: u32) -> HostResult<Vec<u8>> {
    Ok(view(guest, ptr, len)?.0.to_vec())
}

/// Writes bytes, failing with `InvalidMemoryAccess`.
pub fn write(guest: &mut Guest<'_>, ptr: u32, bytes: &[u8]) -> HostResult {
    let len = u32::try_from(bytes.len()).map_err(|_| Exit::from(Status::InvalidMemoryAccess))?;
    let range = range(ptr, len).ok_or(Status::InvalidMemoryAccess)?;
    let (memory, state) = split(guest)?;
    memory.get_mut(range).ok_or(Status::InvalidMemoryAccess)?.copy_from_slice(bytes);
    state.boundary.bytes_to_guest += u64::from(len);
    Ok(())
}

/// Writes a 32-bit word.
pub fn write_u32(guest: &mut Guest<'_>, ptr: u32, value: u32) -> HostResult {
    write(guest, ptr, &value.to_le_bytes())
}

/// Writes a 64-bit word.
pub fn write_u64(guest: &mut Guest<'_>, ptr: u32, value: u64) -> HostResult {
    write(guest, ptr, &value.to_le_bytes())
}

/// Asks the guest for memory (`WasmBase::allocMemory`): its allocator runs on the VM's context under
/// the allocation allow-list. `None` where it gives 0, an address outside the memory, or traps.
pub fn allocate(guest: &mut Guest<'_>, len: u32) -> HostResult<Option<u32>> {
    let Some(allocator) = guest.data().allocator.clone() else { return Ok(None) };
    let state = guest.data_mut();
    let name = state.allocator_name;
    state.phase = Phase::Malloc;
    state.boundary.allocations += 1;
    state.boundary.allocated_bytes += u64::from(len);
    let address = call_back(guest, name, &allocator, 0, len);
    // Envoy lifts every restriction after an allocation, whatever stood before it.
    guest.data_mut().phase = Phase::Free;
    let Some(address) = address?.filter(|address| *address != 0) else { return Ok(None) };
    let Some(range) = range(address, len) else { return Ok(None) };
    let (memory, _) = split(guest)?;
    Ok(memory.get(range).map(|_| address))
}

/// Hands bytes to the guest in memory of its own, and writes where they are and how many
/// (`copyToPointerSize`). Without bytes nothing is allocated.
pub fn give(guest: &mut Guest<'_>, bytes: &[u8], ptr_ptr: u32, size_ptr: u32) -> HostResult {
    let len = u32::try_from(bytes.len()).map_err(|_| Exit::from(Status::InvalidMemoryAccess))?;
    let mut address = 0;
    if len > 0 {
        address = allocate(guest, len)?.ok_or(Status::InvalidMemoryAccess)?;
        write(guest, address, bytes)?;
    }
    write_u32(guest, ptr_ptr, address)?;
    write_u32(guest, size_ptr, len)
}
