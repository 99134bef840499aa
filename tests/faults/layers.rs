//! Layers that are made to harm their reader.

use std::io::Write as _;

use tar::{EntryType, Header};

/// A block of a tar archive.
const BLOCK: usize = 512;

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An entry's header, with a name that no library would write.
fn header(name: &str, size: u64, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// The header of a file, and nothing behind it.
pub fn entry(name: &str, size: u64) -> Vec<u8> {
    header(name, size, EntryType::Regular).as_bytes().to_vec()
}

/// An archive with one file.
pub fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = entry(name, content.len() as u64);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

/// An archive with `plugin.wasm` as a link, or whatever else has no bytes.
pub fn link(kind: EntryType, target: &str) -> Vec<u8> {
    let mut header = header("plugin.wasm", 0, kind);
    header.set_link_name_literal(target).unwrap();
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.resize(3 * BLOCK, 0);
    archive
}

/// A file of `size` zeros, and then a module: a thousandth of that in gzip.
pub fn gzip_bomb(name: &str, size: u64, module: &[u8]) -> Vec<u8> {
    const ZEROS: usize = 1 << 20;
    let mut bomb = gzip(&entry(name, size));
    // Members in a row are one file.
    let zeros = gzip(&[0; ZEROS]);
    for _ in 0..size / ZEROS as u64 {
        bomb.extend_from_slice(&zeros);
    }
    bomb.extend_from_slice(&gzip(&file("plugin.wasm", module)));
    bomb
}

/// A file of `size` bytes, of which the archive has none but the last, and then a module.
pub fn sparse(name: &str, size: u64, module: &[u8]) -> Vec<u8> {
    let mut header = header(name, BLOCK as u64, EntryType::GNUSparse);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(size - BLOCK as u64);
    gnu.sparse[0].set_length(BLOCK as u64);
    gnu.set_real_size(size);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(&[1; BLOCK]);
    archive.extend_from_slice(&file("plugin.wasm", module));
    archive
}
