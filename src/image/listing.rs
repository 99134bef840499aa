//! What a layer holds, where Istio's rule finds no module in it: for a diagnosis, and so that the
//! module can be looked at all the same.

use super::compression::Compression;
use super::error::one_line;
use super::tarball::{
    self, CONFIG, Limited, MAX_ENTRIES, MODULE, base_name, entry_name, read_config,
};
use std::io::Read;
use tar::Archive;

/// Names of one kind that are kept of a layer.
const MAX_NAMES: usize = 64;
/// What may be read of a `manifest.yaml`.
const MAX_YAML_BYTES: u64 = 64 << 10;
/// A whiteout: the file behind the prefix is not in the image any more.
const WHITEOUT: &str = ".wh.";
/// A whiteout of all that layers below have in its directory.
const OPAQUE: &str = ".wh..wh..opq";

/// What a layer holds. Paths are without a leading `./` or `/`.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The layer is no archive but a module.
    pub is_bare: bool,
    /// Files whose base name is `plugin.wasm`.
    pub plugins: Vec<String>,
    /// Other files that end in `.wasm` and begin as a module.
    pub modules: Vec<String>,
    /// What `module:` in a `manifest.yaml` names.
    pub manifest_module: Option<String>,
    /// The content of a `runtime-config.json`, and its path.
    pub config: Option<(String, Vec<u8>)>,
    /// Whether there are the files that Built On Envoy puts beside a module.
    pub is_built_on_envoy: bool,
    /// Files and directories that are deleted from the layers below.
    pub whiteouts: Vec<String>,
    /// Directories of which the layers below show nothing.
    pub opaque: Vec<String>,
}

impl Listing {
    /// Whether the layer keeps a path of the layers below from being in the image.
    pub(crate) fn deletes(&self, path: &str) -> bool {
        let is_below = |directory: &str| {
            path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
        };
        self.whiteouts.iter().any(|gone| gone == path || is_below(gone))
            || self.opaque.iter().any(|directory| directory.is_empty() || is_below(directory))
    }
}

/// Lists a layer. At most `left` bytes are unpacked, and it is told how many are left.
pub(crate) fn list(layer: &[u8], left: &mut u64) -> Result<Listing, String> {
    let reader = || Compression::of(layer).decoder(layer);
    let mut listing = Listing { is_bare: is_module(&mut reader()), ..Listing::default() };
    if listing.is_bare {
        return Ok(listing);
    }
    let error = |error: std::io::Error| one_line(&error.to_string());
    let mut archive = Archive::new(Limited { inner: reader(), left });
    let mut has_manifest = false;
    let mut has_schema = false;
    for (count, entry) in archive.entries().map_err(error)?.enumerate() {
        let mut entry = entry.map_err(error)?;
        if count >= MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} entries"));
        }
        let path = normal(&entry_name(&entry)?);
        let base = base_name(&path);
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let is_file = entry.header().entry_type().is_file();
        if base == OPAQUE {
            keep(&mut listing.opaque, directory.to_owned());
        } else if let Some(gone) = base.strip_prefix(WHITEOUT) {
            keep(&mut listing.whiteouts, join(directory, gone));
        } else if !is_file {
        } else if base == MODULE {
            keep(&mut listing.plugins, path);
        } else if base.to_ascii_lowercase().ends_with(".wasm") {
            if is_module(&mut entry) {
                keep(&mut listing.modules, path);
            }
        } else if base == CONFIG && listing.config.is_none() {
            listing.config = read_config(&mut entry).ok().map(|bytes| (path, bytes));
        } else if path == "manifest.yaml" {
            has_manifest = true;
            let mut text = String::new();
            let read = entry.take(MAX_YAML_BYTES).read_to_string(&mut text);
            listing.manifest_module = read.ok().and_then(|_| named_module(&text));
        } else if path == "config.schema.json" {
            has_schema = true;
        }
    }
    listing.is_built_on_envoy = has_manifest && listing.manifest_module.is_none() || has_schema;
    Ok(listing)
}

/// The file at `path`, if it begins as a module, and is no larger than `limit`.
pub(crate) fn read(
    layer: &[u8],
    path: Option<&str>,
    limit: u64,
    left: &mut u64,
) -> Option<Vec<u8>> {
    let whole = |size: Option<u64>, reader: &mut dyn Read| {
        let mut module = Vec::new();
        reader.take(limit.saturating_add(1)).read_to_end(&mut module).ok()?;
        // A cut archive is no error for its reader: it just yields fewer bytes.
        let is_whole = size.is_none_or(|size| size == module.len() as u64);
        (is_whole && module.len() as u64 <= limit && module.starts_with(b"\0asm")).then_some(module)
    };
    let reader = Compression::of(layer).decoder(layer);
    let Some(path) = path else {
        return whole(None, &mut Limited { inner: reader, left });
    };
    let mut archive = Archive::new(Limited { inner: reader, left });
    for entry in archive.entries().ok()?.take(MAX_ENTRIES) {
        let mut entry = entry.ok()?;
        if normal(&entry_name(&entry).ok()?) == path && entry.header().entry_type().is_file() {
            return whole(Some(entry.size()), &mut entry);
        }
    }
    None
}

/// What has to be unpacked of layers in all.
pub(crate) fn budget(max_module_bytes: u64) -> u64 {
    tarball::unpacked_limit(max_module_bytes)
}

fn is_module(reader: &mut dyn Read) -> bool {
    let mut head = [0; 4];
    reader.read_exact(&mut head).is_ok() && head == *b"\0asm"
}

fn keep(names: &mut Vec<String>, name: String) {
    if names.len() < MAX_NAMES {
        names.push(name);
    }
}

fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    }
}

/// A path as it is below the root of the image.
pub(crate) fn normal(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// `module:` of a Maistra `manifest.yaml`, which is flat.
fn named_module(yaml: &str) -> Option<String> {
    let value = yaml.lines().find_map(|line| line.strip_prefix("module:"))?;
    let value = value.split(" #").next().unwrap_or(value).trim();
    let value = value.trim_matches(['"', '\'']);
    Some(normal(value)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_hide_what_is_below_them() {
        let listing = Listing {
            whiteouts: vec!["a/plugin.wasm".into(), "b".into()],
            opaque: vec!["c/d".into()],
            ..Listing::default()
        };
        for (path, is_deleted) in [
            ("a/plugin.wasm", true),
            ("plugin.wasm", false),
            ("b/plugin.wasm", true),
            ("bb/plugin.wasm", false),
            ("c/d/e/plugin.wasm", true),
            ("c/plugin.wasm", false),
        ] {
            assert_eq!(listing.deletes(path), is_deleted, "{path}");
        }
        let all = Listing { opaque: vec![String::new()], ..Listing::default() };
        assert!(all.deletes("plugin.wasm"));
    }

    #[test]
    fn maistra_names_its_module() {
        for (yaml, name) in [
            ("schemaVersion: 1\nmodule: extension.wasm\n", Some("extension.wasm")),
            ("module: \"./a/b.wasm\" # the filter\r\n", Some("a/b.wasm")),
            ("modules: x\n  module: y\n", None),
            ("module:\n", None),
        ] {
            assert_eq!(named_module(yaml).as_deref(), name, "{yaml:?}");
        }
    }
}
