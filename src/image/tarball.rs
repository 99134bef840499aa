//! `plugin.wasm` and `runtime-config.json` in a layer that is an archive, looked for as Istio and
//! Envoy Gateway do. The archive is only ever streamed: nothing is unpacked to disk, and no name in
//! it is used as a path.

use super::compression::Compression;
use super::consumer::Extracted;
use super::error::one_line;
use super::manifest::MAX_DOCUMENT_BYTES;
use std::io::{self, Read};
use tar::{Archive, EntryType};

pub(super) const MODULE: &str = "plugin.wasm";
pub(super) const CONFIG: &str = "runtime-config.json";
pub(super) const MAX_ENTRIES: usize = 10_000;
const MAX_NAME_BYTES: usize = 4096;
/// What an archive may hold beside the module.
const MAX_OTHER_BYTES: u64 = 64 << 20;

/// What a layer has.
#[derive(Debug)]
pub(crate) struct Found {
    pub module: Vec<u8>,
    /// The module's path in the archive; none where the layer is the module itself.
    pub path: Option<String>,
    pub config: Option<Vec<u8>>,
    /// Facts that do not keep the module from being used, as (message, help).
    pub remarks: Vec<(String, Option<&'static str>)>,
    /// What is wrong with the layer, where the consumers do not take it.
    pub fault: Option<String>,
    /// What the consumers get out of the layer.
    pub extracted: Extracted,
}

/// Why a layer has no module.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The archive is intact and has none.
    NoModule { reason: String, extracted: Extracted },
    /// The archive is broken.
    Broken { reason: String, extracted: Extracted },
    /// The module, or what is in front of it, is over the limit.
    TooLarge { what: String, limit: u64, actual: Option<u64> },
}

impl Failure {
    /// What the consumers get out of the layer.
    pub(crate) fn extracted(&self) -> Extracted {
        match self {
            Self::NoModule { extracted, .. } | Self::Broken { extracted, .. } => extracted.clone(),
            // Their limits are others than ours.
            Self::TooLarge { .. } => Extracted::Unknown,
        }
    }
}

/// What the consumers say of a layer that does not begin as gzip does.
const NOT_GZIP: &str = "failed to parse layer as tar.gz: gzip: invalid header";

fn not_extracted(error: &str) -> Extracted {
    Extracted::Error(format!("could not extract wasm binary: {error}"))
}

/// What all of an unpacked layer may have.
pub(super) fn unpacked_limit(max_module_bytes: u64) -> u64 {
    max_module_bytes.saturating_add(MAX_OTHER_BYTES)
}

/// Looks for the module as Istio and Envoy Gateway do: the first file whose base name is
/// `plugin.wasm`, in whatever directory. A layer that they do not take is read all the same.
///
/// `is_plain_fine`: where it comes from, layers are stored without the compression that they have in
/// a registry.
pub(crate) fn extract(
    layer: &[u8],
    max_module_bytes: u64,
    is_plain_fine: bool,
) -> Result<Found, Failure> {
    if layer.is_empty() {
        return Err(Failure::Broken {
            reason: "the layer is empty".into(),
            extracted: Extracted::Unknown,
        });
    }
    let compression = Compression::of(layer);
    let mut head = [0; 4];
    let is_bare = compression.decoder(layer).read_exact(&mut head).is_ok() && head == *b"\0asm";
    let result = match is_bare {
        true => bare_module(layer, compression, max_module_bytes),
        false => walk(compression.decoder(layer), max_module_bytes),
    };
    let fault = match compression {
        Compression::Gzip => return result,
        Compression::None if is_plain_fine => return result,
        Compression::Zstd => "the layer is compressed with zstd, where gzip is expected",
        Compression::None => "the layer is not compressed, where gzip is expected",
    };
    // The first fault is the only one that the consumers meet.
    let extracted = not_extracted(NOT_GZIP);
    match result {
        Ok(found) => {
            Ok(Found { fault: found.fault.or_else(|| Some(fault.into())), extracted, ..found })
        }
        Err(Failure::NoModule { reason, .. }) => Err(Failure::NoModule { reason, extracted }),
        Err(Failure::Broken { reason, .. }) => Err(Failure::Broken { reason, extracted }),
        Err(too_large) => Err(too_large),
    }
}

/// A module where an archive is expected.
fn bare_module(layer: &[u8], compression: Compression, limit: u64) -> Result<Found, Failure> {
    let mut module = Vec::new();
    let reader = compression.decoder(layer).take(limit.saturating_add(1));
    let read = { reader }.read_to_end(&mut module);
    if module.len() as u64 > limit {
        return Err(Failure::TooLarge { what: "the unpacked layer".into(), limit, actual: None });
    }
    // An archive's header has 512 bytes.
    let extracted = match module.len() {
        ..512 => not_extracted("unexpected EOF"),
        _ => not_extracted("archive/tar: invalid tar header"),
    };
    if let Err(error) = read {
        let reason = format!("the layer cannot be unpacked: {}", one_line(&error.to_string()));
        return Err(Failure::Broken { reason, extracted: Extracted::Unknown });
    }
    let kind = match compression {
        Compression::Gzip => "a module that is compressed with gzip",
        Compression::Zstd => "a module that is compressed with zstd",
        Compression::None => "a bare module",
    };
    Ok(Found {
        module,
        path: None,
        config: None,
        remarks: Vec::new(),
        fault: Some(format!("the layer is {kind}, where a tar archive is expected")),
        extracted,
    })
}

/// Fails when more is read than an archive may have. The failure is sticky, so that whatever the
/// archive reader makes of it, the walk can ask.
pub(super) struct Limited<'b, R> {
    pub inner: R,
    pub left: &'b mut u64,
}

const OVER_LIMIT: &str = "the unpacked layer is over the limit";

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if *self.left == 0 {
            return Err(io::Error::other(OVER_LIMIT));
        }
        let most = usize::try_from(*self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        *self.left -= read as u64;
        Ok(read)
    }
}

fn walk(reader: impl Read, max_module_bytes: u64) -> Result<Found, Failure> {
    let limit = unpacked_limit(max_module_bytes);
    let mut left = limit;
    let mut archive = Archive::new(Limited { inner: reader, left: &mut left });
    let mut module: Option<(Vec<u8>, String)> = None;
    let mut config = None;
    let mut remarks = Vec::new();
    let mut names = Vec::new();
    let entries = archive.entries().map_err(|e| broken(&e, limit))?;
    for (count, entry) in entries.enumerate() {
        // What comes behind the module is only read for the runtime config. The consumers stop at
        // the module, so that trouble from here on is none for them.
        let trouble = match &entry {
            Err(error) => Some(error.to_string()),
            Ok(_) if count >= MAX_ENTRIES => Some(format!("more than {MAX_ENTRIES} entries")),
            Ok(_) => None,
        };
        let mut entry = match (trouble, entry) {
            (Some(trouble), _) if module.is_some() => {
                remarks.push((
                    format!(
                        "the layer cannot be read to its end behind {MODULE}: {}",
                        one_line(&trouble)
                    ),
                    Some("build and push the image again: the layer looks damaged"),
                ));
                break;
            }
            (_, Err(error)) => return Err(broken(&error, limit)),
            (Some(trouble), Ok(_)) => {
                return Err(Failure::Broken {
                    reason: format!("the layer has {trouble} and no {MODULE} among them"),
                    extracted: Extracted::Unknown,
                });
            }
            (None, Ok(entry)) => entry,
        };
        let name = entry_name(&entry)
            .map_err(|reason| Failure::Broken { reason, extracted: Extracted::Unknown })?;
        let base = base_name(&name);
        if base == MODULE && module.is_none() {
            check_is_file(&entry, &name)?;
            let bytes = read_module(&mut entry, max_module_bytes, limit)?;
            if name.split('/').any(|part| part == "..") || name.starts_with('/') {
                remarks.push((
                    format!("the module's path in the layer is {:?}", one_line(&name)),
                    Some("put the module at the root of the layer, as `plugin.wasm`"),
                ));
            }
            module = Some((bytes, name));
        } else if base == MODULE {
            remarks.push((format!("the layer has a second {MODULE}; the first is used"), None));
        } else if base == CONFIG && config.is_none() {
            match read_config(&mut entry) {
                Ok(bytes) => config = Some(bytes),
                Err(remark) => remarks.push((remark, None)),
            }
        } else if names.len() < 5 && !entry.header().entry_type().is_dir() {
            names.push(one_line(&name));
        }
    }
    let Some((module, path)) = module else {
        return Err(Failure::NoModule {
            reason: match names.as_slice() {
                [] => format!("the last layer has no {MODULE}"),
                names => format!("the last layer has no {MODULE}, only {}", names.join(", ")),
            },
            extracted: not_extracted(&format!("{MODULE} not found in the archive")),
        });
    };
    let extracted = Extracted::of(&module);
    Ok(Found { module, path: Some(path), config, remarks, fault: None, extracted })
}

/// The name of an entry, unless it is absurd.
pub(super) fn entry_name(entry: &tar::Entry<'_, impl Read>) -> Result<String, String> {
    let name = entry.path_bytes();
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("the layer has a name of {} bytes", name.len()));
    }
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// The last part of a path.
pub(super) fn base_name(name: &str) -> &str {
    name.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

/// Links and directories have no bytes of their own. The consumers take that for an empty module.
fn check_is_file(entry: &tar::Entry<'_, impl Read>, name: &str) -> Result<(), Failure> {
    let kind = match entry.header().entry_type() {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Directory => "a directory",
        EntryType::Char | EntryType::Block | EntryType::Fifo => "a device",
        _ => return Ok(()),
    };
    let target = entry
        .link_name_bytes()
        .map(|target| format!(" to {}", one_line(&String::from_utf8_lossy(&target))))
        .unwrap_or_default();
    Err(Failure::NoModule {
        reason: format!("{} in the last layer is {kind}{target}, not a file", one_line(name)),
        extracted: Extracted::of(&[]),
    })
}

fn read_module(
    entry: &mut tar::Entry<'_, impl Read>,
    limit: u64,
    layer_limit: u64,
) -> Result<Vec<u8>, Failure> {
    let size = entry.size();
    if size > limit {
        return Err(Failure::TooLarge { what: MODULE.into(), limit, actual: Some(size) });
    }
    let mut module = Vec::new();
    let read = entry.read_to_end(&mut module);
    // A cut archive is no error for the reader: it just yields fewer bytes.
    if module.len() as u64 == size {
        return Ok(module);
    }
    match read {
        Err(error) if is_over_limit(&error) => Err(broken(&error, layer_limit)),
        read => Err(Failure::Broken {
            reason: format!(
                "the archive ends inside {MODULE}: {} of {size} bytes are there{}",
                module.len(),
                read.err().map(|e| format!(" ({})", one_line(&e.to_string()))).unwrap_or_default()
            ),
            extracted: not_extracted(&format!("failed to read {MODULE}: unexpected EOF")),
        }),
    }
}

/// A runtime config, or why it cannot be used.
pub(super) fn read_config(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, String> {
    let size = entry.size();
    if !entry.header().entry_type().is_file() {
        return Err(format!("{CONFIG} in the layer is not a file"));
    }
    if size > MAX_DOCUMENT_BYTES {
        return Err(format!(
            "{CONFIG} has {size} bytes, more than the {MAX_DOCUMENT_BYTES} that are read"
        ));
    }
    let mut config = Vec::new();
    match entry.read_to_end(&mut config) {
        Ok(_) if config.len() as u64 == size => Ok(config),
        _ => Err(format!("the archive ends inside {CONFIG}")),
    }
}

fn is_over_limit(error: &io::Error) -> bool {
    // The archive reader wraps errors in its own, with the cause's text in it.
    super::error::chain(error).contains(OVER_LIMIT)
}

fn broken(error: &io::Error, limit: u64) -> Failure {
    if is_over_limit(error) {
        return Failure::TooLarge { what: "the unpacked layer".into(), limit, actual: None };
    }
    let text = one_line(&error.to_string());
    // Of other damage their reader has other things to say, which are not known here.
    let is_cut = error.kind() == io::ErrorKind::UnexpectedEof
        || text.contains("failed to read entire block");
    Failure::Broken {
        reason: format!("the layer is not an intact tar archive: {text}"),
        extracted: match is_cut {
            true => not_extracted("unexpected EOF"),
            false => Extracted::Unknown,
        },
    }
}
