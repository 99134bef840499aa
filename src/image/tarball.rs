//! `plugin.wasm` and `runtime-config.json` in a compat layer. The archive is only ever streamed:
//! nothing is unpacked to disk, and no name in it is used as a path.

use super::error::one_line;
use super::manifest::MAX_DOCUMENT_BYTES;
use flate2::read::MultiGzDecoder;
use std::io::{self, Read};
use tar::{Archive, EntryType};

const MODULE: &str = "plugin.wasm";
const CONFIG: &str = "runtime-config.json";
const MAX_ENTRIES: usize = 10_000;
const MAX_NAME_BYTES: usize = 4096;
/// What an archive may hold beside the module.
const MAX_OTHER_BYTES: u64 = 64 << 20;

/// What a layer has.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub module: Vec<u8>,
    pub config: Option<Vec<u8>>,
    /// Facts that do not keep the module from being used, as (message, help).
    pub remarks: Vec<(String, Option<&'static str>)>,
    /// What a consumer says of the layer's compression, where it does not take it.
    pub consumer_error: Option<&'static str>,
}

/// Why a layer has no module.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The archive is intact and has none.
    NoModule { reason: String, consumer: Option<String> },
    /// The archive is broken.
    Broken { reason: String, consumer: Option<String> },
    /// The module, or what is in front of it, is over the limit.
    TooLarge { what: String, limit: u64, actual: Option<u64> },
}

/// What the consumers say of a layer that does not begin as gzip does.
const NOT_GZIP: &str =
    "could not extract wasm binary: failed to parse layer as tar.gz: gzip: invalid header";

enum Compression {
    Gzip,
    Zstd,
    None,
}

/// Decided by content: media types are often wrong.
fn sniff(layer: &[u8]) -> Compression {
    match layer {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Looks for the module as Istio and Envoy Gateway do: the first file whose base name is
/// `plugin.wasm`, in whatever directory.
pub(crate) fn extract(layer: &[u8], max_module_bytes: u64) -> Result<Found, Failure> {
    let not_gzip = |reason: &str| {
        Err(Failure::NoModule { reason: reason.into(), consumer: Some(NOT_GZIP.into()) })
    };
    match sniff(layer) {
        // A layer may be several gzip members in a row, of which `GzDecoder` would read only one.
        Compression::Gzip => walk(MultiGzDecoder::new(layer), max_module_bytes),
        Compression::Zstd => not_gzip("the layer is compressed with zstd, where gzip is expected"),
        Compression::None if layer.is_empty() => {
            Err(Failure::Broken { reason: "the layer is empty".into(), consumer: None })
        }
        Compression::None if layer.starts_with(b"\0asm") => {
            not_gzip("the layer is a bare module, where a tar archive is expected")
        }
        Compression::None => match walk(layer, max_module_bytes) {
            Ok(found) => Ok(Found { consumer_error: Some(NOT_GZIP), ..found }),
            Err(Failure::NoModule { reason, .. }) => {
                Err(Failure::NoModule { reason, consumer: Some(NOT_GZIP.into()) })
            }
            Err(Failure::Broken { reason, .. }) => {
                Err(Failure::Broken { reason, consumer: Some(NOT_GZIP.into()) })
            }
            Err(too_large) => Err(too_large),
        },
    }
}

/// Fails when more is read than an archive may have. The failure is sticky, so that whatever the
/// archive reader makes of it, the walk can ask.
struct Limited<R> {
    inner: R,
    left: u64,
}

const OVER_LIMIT: &str = "the unpacked layer is over the limit";

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            return Err(io::Error::other(OVER_LIMIT));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

fn walk(reader: impl Read, max_module_bytes: u64) -> Result<Found, Failure> {
    let limit = max_module_bytes.saturating_add(MAX_OTHER_BYTES);
    let mut archive = Archive::new(Limited { inner: reader, left: limit });
    let mut found = Found::default();
    let mut have_module = false;
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
            (Some(trouble), _) if have_module => {
                found.remarks.push((
                    format!(
                        "the layer cannot be read to its end behind {MODULE}: {}",
                        one_line(&trouble)
                    ),
                    Some("build and push the image again: the layer looks damaged"),
                ));
                return Ok(found);
            }
            (_, Err(error)) => return Err(broken(&error, limit)),
            (Some(trouble), Ok(_)) => {
                return Err(Failure::Broken {
                    reason: format!("the layer has {trouble} and no {MODULE} among them"),
                    consumer: None,
                });
            }
            (None, Ok(entry)) => entry,
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name.len() > MAX_NAME_BYTES {
            return Err(Failure::Broken {
                reason: format!("the layer has a name of {} bytes", name.len()),
                consumer: None,
            });
        }
        let base = name.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        if base == MODULE && !have_module {
            check_is_file(&entry, &name)?;
            found.module = read_module(&mut entry, max_module_bytes, limit)?;
            have_module = true;
            if name.split('/').any(|part| part == "..") || name.starts_with('/') {
                found.remarks.push((
                    format!("the module's path in the layer is {:?}", one_line(&name)),
                    Some("put the module at the root of the layer, as `plugin.wasm`"),
                ));
            }
        } else if base == MODULE {
            found
                .remarks
                .push((format!("the layer has a second {MODULE}; the first is used"), None));
        } else if base == CONFIG && found.config.is_none() {
            read_config(&mut entry, &mut found);
        } else if names.len() < 5 && !entry.header().entry_type().is_dir() {
            names.push(one_line(&name));
        }
    }
    if have_module {
        return Ok(found);
    }
    Err(Failure::NoModule {
        reason: match names.as_slice() {
            [] => format!("the last layer has no {MODULE}"),
            names => format!("the last layer has no {MODULE}, only {}", names.join(", ")),
        },
        consumer: Some(format!("could not extract wasm binary: {MODULE} not found in the archive")),
    })
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
        consumer: Some("fetched Wasm binary is invalid".into()),
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
            consumer: Some(format!(
                "could not extract wasm binary: failed to read {MODULE}: unexpected EOF"
            )),
        }),
    }
}

fn read_config(entry: &mut tar::Entry<'_, impl Read>, found: &mut Found) {
    let size = entry.size();
    if !entry.header().entry_type().is_file() {
        found.remarks.push((format!("{CONFIG} in the layer is not a file"), None));
    } else if size > MAX_DOCUMENT_BYTES {
        found.remarks.push((
            format!("{CONFIG} has {size} bytes, more than the {MAX_DOCUMENT_BYTES} that are read"),
            None,
        ));
    } else {
        let mut config = Vec::new();
        if entry.read_to_end(&mut config).is_ok() && config.len() as u64 == size {
            found.config = Some(config);
        } else {
            found.remarks.push((format!("the archive ends inside {CONFIG}"), None));
        }
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
        consumer: is_cut.then(|| "could not extract wasm binary: unexpected EOF".into()),
    }
}
