//! WASI preview 1 as Envoy answers it (proxy-wasm-cpp-host `src/exports.cc`): standard output and
//! error are the log, the clock and random bytes are real, and there is nothing else.

use std::time::Instant;

use crate::abi::Status;

use super::{
    logging::LogLevel,
    memory::{Guest, slice, split, write, write_u32, write_u64},
    state::{Exit, HostResult},
};

const BADF: u32 = 8;
const NOTDIR_AS_ENVOY_HAS_IT: u32 = 20;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Most bytes of one `random_get`.
const RANDOM_MAX: u32 = 64 << 10;

fn errno(code: u32) -> HostResult {
    Err(Exit::Code(code))
}

/// A memory error is errno 21 here.
fn fault(result: HostResult) -> HostResult {
    match result {
        Err(Exit::Code(code)) if code == Status::InvalidMemoryAccess as u32 => errno(FAULT),
        other => other,
    }
}

fn needs_stdio(fd: u32) -> HostResult {
    if fd == STDOUT || fd == STDERR { Ok(()) } else { errno(BADF) }
}

/// `fd_write`, and `fd_pwrite` whatever the offset: standard output logs at info, standard error at
/// error, one line for each call, less one newline at its end.
pub fn fd_write(
    guest: &mut Guest<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    written_ptr: u32,
) -> HostResult {
    let level = match fd {
        STDOUT => LogLevel::Info,
        STDERR => LogLevel::Error,
        _ => return errno(BADF),
    };
    guest.data().context_id()?;
    let (memory, state) = split(guest)?;
    let mut text = Vec::new();
    for index in 0..iovs_len {
        let at = u64::from(iovs) + u64::from(index) * 8;
        let entry = u32::try_from(at).ok().and_then(|at| slice(memory, at, 8));
        let Some(Ok(entry)) = entry.map(<[u8; 8]>::try_from) else { return errno(FAULT) };
        let [p0, p1, p2, p3, l0, l1, l2, l3] = entry;
        let (ptr, len) =
            (u32::from_le_bytes([p0, p1, p2, p3]), u32::from_le_bytes([l0, l1, l2, l3]));
        if len == 0 {
            continue;
        }
        let Some(bytes) = slice(memory, ptr, len) else { return errno(FAULT) };
        // Many vectors may name the same bytes; what is logged is cut anyway.
        state.charge(bytes.len())?;
        state.boundary.bytes_to_host += 8 + u64::from(len);
        text.extend_from_slice(bytes);
    }
    state.host_bytes -= text.len();
    let written = text.len();
    if written > 0 {
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        state.log(level, &text);
    }
    fault(write_u32(guest, written_ptr, u32::try_from(written).unwrap_or(u32::MAX)))
}

/// `fd_fdstat_get`: standard output and error may be written; a bad address goes unnoticed.
pub fn fd_fdstat_get(guest: &mut Guest<'_>, fd: u32, stat_ptr: u32) -> HostResult {
    needs_stdio(fd)?;
    const RIGHTS_FD_WRITE: u64 = 64;
    let mut stat = [0; 24];
    stat[8..16].copy_from_slice(&RIGHTS_FD_WRITE.to_le_bytes());
    guest.data().context_id()?;
    match write(guest, stat_ptr, &stat) {
        Err(Exit::Code(_)) => Ok(()),
        other => other,
    }
}

/// `fd_tell`: 0 for standard output and error.
pub fn fd_tell(guest: &mut Guest<'_>, fd: u32, offset_ptr: u32) -> HostResult {
    needs_stdio(fd)?;
    guest.data().context_id()?;
    fault(write_u64(guest, offset_ptr, 0))
}

/// `fd_renumber`: not for standard output and error, and there is nothing else.
pub fn fd_renumber(fd: u32, to: u32) -> HostResult {
    needs_stdio(fd)?;
    needs_stdio(to)?;
    errno(NOTSUP)
}

/// Writes that no bytes were moved, and answers `code`.
fn no_bytes(guest: &mut Guest<'_>, size_ptr: u32, code: u32) -> HostResult {
    guest.data().context_id()?;
    fault(write_u32(guest, size_ptr, 0))?;
    errno(code)
}

/// `fd_readdir`: no entry, and the errno that Envoy takes for "not a directory".
pub fn fd_readdir(guest: &mut Guest<'_>, size_ptr: u32) -> HostResult {
    no_bytes(guest, size_ptr, NOTDIR_AS_ENVOY_HAS_IT)
}

/// `path_readlink` and `sock_send`: no bytes, not supported.
pub fn no_bytes_not_supported(guest: &mut Guest<'_>, size_ptr: u32) -> HostResult {
    no_bytes(guest, size_ptr, NOTSUP)
}

/// `sock_accept`: eight zero bytes, not supported.
pub fn sock_accept(guest: &mut Guest<'_>, fd_ptr: u32) -> HostResult {
    guest.data().context_id()?;
    fault(write_u64(guest, fd_ptr, 0))?;
    errno(NOTSUP)
}

/// `sock_recv`: no bytes, no flags, not supported.
pub fn sock_recv(guest: &mut Guest<'_>, size_ptr: u32, flags_ptr: u32) -> HostResult {
    guest.data().context_id()?;
    fault(write_u32(guest, size_ptr, 0))?;
    fault(write(guest, flags_ptr, &[0, 0]))?;
    errno(NOTSUP)
}

/// The bytes of the environment that the VM's configuration gives, one variable after another.
fn environment(guest: &Guest<'_>) -> Vec<Vec<u8>> {
    let variables = guest.data().plugin.environment_variables.iter();
    variables.map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

/// `environ_get`: an address for each variable, and its text.
pub fn environ_get(guest: &mut Guest<'_>, mut cell: u32, mut buffer: u32) -> HostResult {
    guest.data().context_id()?;
    for text in environment(guest) {
        fault(write_u32(guest, cell, buffer))?;
        fault(write(guest, buffer, &text))?;
        // An address that wraps cannot have been written to.
        buffer = buffer.wrapping_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
        cell = cell.wrapping_add(4);
    }
    Ok(())
}

/// `environ_sizes_get`: how many variables, and the bytes of their texts.
pub fn environ_sizes_get(guest: &mut Guest<'_>, count_ptr: u32, size_ptr: u32) -> HostResult {
    guest.data().context_id()?;
    let variables = environment(guest);
    let size: usize = variables.iter().map(Vec::len).sum();
    fault(write_u32(guest, count_ptr, u32::try_from(variables.len()).unwrap_or(u32::MAX)))?;
    fault(write_u32(guest, size_ptr, u32::try_from(size).unwrap_or(u32::MAX)))
}

/// `args_sizes_get`: no arguments.
pub fn no_strings(guest: &mut Guest<'_>, count_ptr: u32, size_ptr: u32) -> HostResult {
    guest.data().context_id()?;
    fault(write_u32(guest, count_ptr, 0))?;
    fault(write_u32(guest, size_ptr, 0))
}

/// `clock_time_get`: the wall clock and a monotonic one; no other.
pub fn clock_time_get(guest: &mut Guest<'_>, id: u32, time_ptr: u32) -> HostResult {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let now = match id {
        0 => guest.data().process.now_ns(),
        // Any origin will do, as long as no reading is 0.
        1 => u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(1_000_000_000)
            .saturating_add(guest.data().process.elapsed_ns()),
        _ => return errno(NOTSUP),
    };
    guest.data().context_id()?;
    fault(write_u64(guest, time_ptr, now))
}

/// `clock_res_get`: one nanosecond for the same two clocks.
pub fn clock_res_get(guest: &mut Guest<'_>, id: u32, resolution_ptr: u32) -> HostResult {
    if id > 1 {
        return errno(NOTSUP);
    }
    guest.data().context_id()?;
    fault(write_u64(guest, resolution_ptr, 1))
}

/// `random_get`: at most 64 KiB at a time.
pub fn random_get(guest: &mut Guest<'_>, buf: u32, len: u32) -> HostResult {
    if len > RANDOM_MAX {
        return errno(INVAL);
    }
    if len == 0 {
        return Ok(());
    }
    guest.data().context_id()?;
    let mut random = vec![0; len as usize];
    if !guest.data().process.fill_random(&mut random) {
        return errno(INVAL);
    }
    fault(write(guest, buf, &random))
}

/// `poll_oneoff`: no events. Before Envoy 1.39 it was not implemented.
pub fn poll_oneoff(guest: &mut Guest<'_>, events_ptr: u32) -> HostResult {
    if !guest.data().release.poll_oneoff_succeeds {
        return errno(NOSYS);
    }
    guest.data().context_id()?;
    fault(write_u32(guest, events_ptr, 0))
}

/// 0 on any context: `fd_seek`, `fd_close`, and `proc_exit`, whose call Envoy notes
/// before it returns to the module.
pub fn ok_on_a_context(guest: &mut Guest<'_>) -> HostResult {
    guest.data().context_id()?;
    Ok(())
}

/// Functions that answer one thing whatever they are asked, and need neither context nor memory.
pub mod fixed {
    use super::{BADF, HostResult, NOENT, NOSYS, NOTSUP, errno, needs_stdio};

    /// 0.
    pub fn ok() -> HostResult {
        Ok(())
    }

    /// 8, bad file descriptor.
    pub fn badf() -> HostResult {
        errno(BADF)
    }

    /// 44, no such file.
    pub fn noent() -> HostResult {
        errno(NOENT)
    }

    /// 52, not implemented.
    pub fn nosys() -> HostResult {
        errno(NOSYS)
    }

    /// 58, not supported.
    pub fn notsup() -> HostResult {
        errno(NOTSUP)
    }

    /// 0 for standard output and error, else 8.
    pub fn stdio(fd: u32) -> HostResult {
        needs_stdio(fd)
    }
}
