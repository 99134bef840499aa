//! What Envoy reads from a module's bytes before its engine sees them.
//!
//! Follows proxy-wasm-cpp-host `src/bytecode_util.cc`: the ABI marker, the `name` section and the
//! removal of precompiled sections each walk the sections by hand, with a variable-length integer
//! that stops below 2^30. Where this walk fails, Envoy says `Failed to parse corrupted Wasm module`
//! and nothing else is looked at.

use crate::abi::AbiVersion;

/// Envoy's own reading of the bytes ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at offset {offset:#x}")]
pub struct Corrupt {
    /// What could not be read.
    pub what: &'static str,
    /// Where in the file.
    pub offset: usize,
}

const HEADER: usize = 8;
const CUSTOM: u8 = 0;
const EXPORT: u8 = 7;

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8], at: usize, end: usize) -> Self {
        Self { bytes, at, end }
    }

    fn corrupt<T>(&self, what: &'static str) -> Result<T, Corrupt> {
        Err(Corrupt { what, offset: self.at })
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Corrupt> {
        match self.bytes.get(self.at) {
            Some(byte) if self.at < self.end => {
                self.at += 1;
                Ok(*byte)
            }
            _ => self.corrupt(what),
        }
    }

    /// `parseVarint`: at most five bytes, the fifth at most 3.
    fn varint(&mut self, what: &'static str) -> Result<usize, Corrupt> {
        let mut total: u32 = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte(what)?;
            let value = u32::from(byte & 0x7f);
            if shift == 28 && value > 3 {
                return self.corrupt(what);
            }
            total = total.wrapping_add(value << shift);
            if byte & 0x80 == 0 {
                return Ok(total as usize);
            }
            shift += 7;
            if shift > 28 {
                return self.corrupt(what);
            }
        }
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Corrupt> {
        match self.at.checked_add(len) {
            Some(end) if end <= self.end => {
                let taken = &self.bytes[self.at..end];
                self.at = end;
                Ok(taken)
            }
            _ => self.corrupt(what),
        }
    }
}

/// One section as the walk sees it: its id and where its content lies.
struct Section {
    id: u8,
    start: usize,
    end: usize,
}

fn check_header(bytes: &[u8]) -> Result<(), Corrupt> {
    // A file shorter than the header passes here and ends without a marker, as in Envoy.
    if bytes.len() >= HEADER && bytes[..4] != *b"\0asm" {
        return Err(Corrupt { what: "no wasm magic number", offset: 0 });
    }
    Ok(())
}

fn next_section(cursor: &mut Cursor<'_>) -> Result<Option<Section>, Corrupt> {
    if cursor.at >= cursor.end {
        return Ok(None);
    }
    let id = cursor.byte("section id")?;
    let len = cursor.varint("section length")?;
    let start = cursor.at;
    cursor.take(len, "a section longer than the file")?;
    Ok(Some(Section { id, start, end: cursor.at }))
}

/// The ABI marker: the first function export whose name is a known marker, in export order
/// (`BytecodeUtil::getAbiVersion`). The walk ends with the export section, so that damage after
/// it does not show here.
fn marker(bytes: &[u8]) -> Result<Option<AbiVersion>, Corrupt> {
    check_header(bytes)?;
    let mut cursor = Cursor::new(bytes, HEADER, bytes.len());
    while let Some(section) = next_section(&mut cursor)? {
        if section.id != EXPORT {
            continue;
        }
        let mut exports = Cursor::new(bytes, section.start, section.end);
        let count = exports.varint("number of exports")?;
        if exports.at + count > section.end {
            return exports.corrupt("more exports than the export section can hold");
        }
        for _ in 0..count {
            let len = exports.varint("length of an export's name")?;
            let name = exports.take(len, "an export's name")?;
            // From here on Envoy checks against the end of the file, not of the section.
            exports.end = bytes.len();
            let is_function = exports.byte("an export's kind")? == 0;
            if is_function
                && let Some(version) =
                    std::str::from_utf8(name).ok().and_then(AbiVersion::from_marker)
            {
                return Ok(Some(version));
            }
            exports.varint("an export's index")?;
            exports.end = section.end;
        }
        return Ok(None);
    }
    Ok(None)
}

/// Walks the `name` section as `BytecodeUtil::getFunctionNameIndex` does: a malformed one is fatal.
/// Answers whether the module has function names, which decides whether Envoy prints a backtrace.
fn has_function_names(bytes: &[u8]) -> Result<bool, Corrupt> {
    let mut cursor = Cursor::new(bytes, HEADER, bytes.len());
    while let Some(section) = next_section(&mut cursor)? {
        if section.id != CUSTOM {
            continue;
        }
        let mut custom = Cursor::new(bytes, section.start, section.end);
        let len = custom.varint("length of a custom section's name")?;
        if custom.take(len, "a custom section's name")? != b"name" {
            continue;
        }
        return function_names(custom);
    }
    Ok(false)
}

fn function_names(mut names: Cursor<'_>) -> Result<bool, Corrupt> {
    let mut any = false;
    while names.at < names.end {
        let id = names.byte("a name subsection's id")?;
        let size = names.varint("a name subsection's size")?;
        let start = names.at;
        names.take(size, "a name subsection longer than its section")?;
        if id != 1 {
            continue;
        }
        names.at = start;
        let count = names.varint("number of function names")?;
        if names.at + count > names.end {
            return names.corrupt("more function names than the name section can hold");
        }
        for _ in 0..count {
            names.varint("a named function's index")?;
            let len = names.varint("length of a function's name")?;
            names.take(len, "a function's name")?;
            any = true;
        }
        if names.at != start + size {
            return names.corrupt("function names do not fill their subsection");
        }
    }
    Ok(any)
}

/// The walk that removes precompiled sections (`BytecodeUtil::getStrippedSource`) reads the name of
/// every custom section to the end of the file.
fn strippable(bytes: &[u8]) -> Result<(), Corrupt> {
    let mut cursor = Cursor::new(bytes, HEADER, bytes.len());
    while let Some(section) = next_section(&mut cursor)? {
        if section.id == CUSTOM {
            let mut custom = Cursor::new(bytes, section.start, bytes.len());
            let len = custom.varint("length of a custom section's name")?;
            custom.take(len, "a custom section's name")?;
        }
    }
    Ok(())
}

/// What Envoy knows of a module before it compiles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvoyScan {
    /// The ABI version by the marker; `None` ends the load.
    pub abi: Option<AbiVersion>,
    /// Whether traps will be logged with a backtrace.
    pub has_function_names: bool,
}

/// Reads `bytes` as Envoy does, in its order: marker, then names, then precompiled sections. A
/// module without a marker is read no further.
///
/// # Errors
///
/// Where Envoy would log `Failed to parse corrupted Wasm module`.
pub fn envoy_scan(bytes: &[u8]) -> Result<EnvoyScan, Corrupt> {
    let abi = marker(bytes)?;
    if abi.is_none() {
        return Ok(EnvoyScan { abi, has_function_names: false });
    }
    let has_function_names = has_function_names(bytes)?;
    strippable(bytes)?;
    Ok(EnvoyScan { abi, has_function_names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(wat: &str) -> Vec<u8> {
        wat::parse_str(wat).expect("a test module that assembles")
    }

    #[test]
    fn the_first_marker_in_export_order_wins() {
        let bytes = module(
            r#"(module (func $f) (export "proxy_abi_version_0_2_0" (func $f))
               (export "proxy_abi_version_0_2_1" (func $f)))"#,
        );
        assert_eq!(envoy_scan(&bytes).unwrap().abi, Some(AbiVersion::V0_2_0));
    }

    #[test]
    fn a_marker_that_is_no_function_does_not_count() {
        let bytes = module(
            r#"(module (global $g i32 (i32.const 0)) (func $f)
               (export "proxy_abi_version_0_2_0" (global $g))
               (export "proxy_abi_version_0_1_0" (func $f)))"#,
        );
        assert_eq!(envoy_scan(&bytes).unwrap().abi, Some(AbiVersion::V0_1_0));
    }

    #[test]
    fn damage_after_the_export_section_is_seen_only_with_a_marker() {
        let mut with = module(r#"(module (func (export "proxy_abi_version_0_2_1")))"#);
        with.extend([0, 0xff]);
        assert!(envoy_scan(&with).is_err());
        let mut without = module(r#"(module (func (export "f")))"#);
        without.extend([0, 0xff]);
        assert_eq!(envoy_scan(&without).unwrap().abi, None);
    }

    #[test]
    fn short_and_foreign_files() {
        assert_eq!(envoy_scan(b"\0as").unwrap().abi, None);
        assert!(envoy_scan(b"(module)").is_err());
    }

    #[test]
    fn a_malformed_name_section_is_fatal() {
        let mut bytes = module(r#"(module (func (export "proxy_abi_version_0_2_1")))"#);
        // Function names: one announced, none there.
        bytes.extend([0, 8, 4, b'n', b'a', b'm', b'e', 1, 1, 1]);
        assert!(envoy_scan(&bytes).is_err());
    }
}
