//! The runtime config: `type`, ABI versions and root ids.
//!
//! The specification spells its fields in three ways and its own tool, wasme, in a fourth, so the
//! reader takes them all. Each deviation from the specification's table (`type`, `abiVersions` as
//! an array, `config.root_ids`) becomes a note.

use super::error::one_line;
use super::manifest::Annotations;
use crate::verdict::{Finding, Rule, Severity};
use serde_json::{Map, Value};

/// The runtime config of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeConfig {
    /// The runtime that the module is for, `envoy_proxy` for filters.
    pub r#type: Option<String>,
    /// The ABI versions that it declares, in order, each once.
    pub abi_versions: Vec<String>,
    /// The root ids that it declares, in order, each once.
    pub root_ids: Vec<String>,
    /// The whole document.
    pub raw: Value,
}

impl RuntimeConfig {
    /// Reads a config, with a note for each deviation from the specification. There is no config
    /// where the bytes are absent, empty or no JSON object.
    pub fn read(bytes: Option<&[u8]>) -> (Option<RuntimeConfig>, Vec<Finding>) {
        let reading = Reading::of(bytes);
        (reading.config, reading.notes)
    }
}

/// The result of reading a runtime config.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub config: Option<RuntimeConfig>,
    pub notes: Vec<Finding>,
}

pub(crate) const ENVOY: &str = "envoy_proxy";

/// Spellings of the ABI versions, and whose they are.
const ABI_SPELLINGS: [(&str, Option<&str>); 4] = [
    ("abiVersions", None),
    ("abi_versions", Some("a spelling of wasme's reader")),
    ("abiVersion", Some("the spelling of the specification's text")),
    ("abi_version", Some("the spec's example spelling, not its table's")),
];

/// Spellings of the root ids, and whose they are where they are not the specification's.
const ROOT_SPELLINGS: [(&str, Option<&str>); 2] =
    [("root_ids", None), ("rootIds", Some("the spelling that wasme writes"))];

pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    trim(bytes).is_empty()
}

fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.trim_ascii()
}

impl Reading {
    pub(crate) fn of(bytes: Option<&[u8]>) -> Self {
        let mut reading = Self::default();
        let missing = match bytes {
            None => "the image has no runtime config",
            Some(bytes) if is_blank(bytes) => "the runtime config is empty",
            Some(bytes) => {
                reading.parse(bytes);
                return reading;
            }
        };
        reading.notes.push(Finding::note(Rule::ConfigMissing, missing).help(
            "add a runtime-config.json that names the type, the ABI versions and the root ids",
        ));
        reading
    }

    fn parse(&mut self, bytes: &[u8]) {
        // Lines and columns count from the start of the file, so only the mark is cut off.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(object)) => self.read(object),
            Ok(other) => {
                self.invalid(format!("the runtime config is {}, not an object", kind(&other)));
            }
            Err(error) => {
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                self.invalid(format!(
                    "the runtime config is not JSON: {} at line {} column {}{}",
                    one_line(message),
                    error.line(),
                    error.column(),
                    excerpt(text, error.line(), error.column())
                ));
            }
        }
    }

    fn note(&mut self, rule: Rule, message: impl Into<String>) {
        self.notes.push(Finding::note(rule, message));
    }

    fn invalid(&mut self, message: impl Into<String>) {
        self.notes.push(
            Finding::error(Rule::ConfigInvalid, message).help(
                "write it as {\"type\":\"envoy_proxy\",\"abiVersions\":[\"v0.2.1\"],\"config\":{\"root_ids\":[\"…\"]}}",
            ),
        );
    }

    fn read(&mut self, object: Map<String, Value>) {
        let r#type = self.read_type(&object);
        let abi_versions = self.read_abi_versions(&object);
        let root_ids = self.read_root_ids(&object);
        self.config =
            Some(RuntimeConfig { r#type, abi_versions, root_ids, raw: Value::Object(object) });
    }

    fn read_type(&mut self, object: &Map<String, Value>) -> Option<String> {
        match object.get("type") {
            None | Some(Value::Null) => {
                // Before the specification there was no such field.
                self.notes.push(
                    Finding::warning(Rule::ConfigType, "the runtime config has no `type`")
                        .help("add \"type\": \"envoy_proxy\""),
                );
                None
            }
            Some(Value::String(name)) => {
                if name != ENVOY {
                    self.notes.push(
                        Finding::error(
                            Rule::ConfigType,
                            format!(
                                "the runtime config's `type` is {:?}: the module is not for Envoy",
                                one_line(name)
                            ),
                        )
                        .help("if it is a filter for Envoy, set \"type\": \"envoy_proxy\""),
                    );
                }
                Some(name.clone())
            }
            Some(other) => {
                self.invalid(format!("`type` is {}, not a string", kind(other)));
                None
            }
        }
    }

    fn read_abi_versions(&mut self, object: &Map<String, Value>) -> Vec<String> {
        let mut versions = Vec::new();
        let mut fields = Vec::new();
        for (key, origin) in ABI_SPELLINGS {
            let value = match object.get(key) {
                None | Some(Value::Null) => continue,
                Some(value) => value,
            };
            fields.push(key);
            if let Some(origin) = origin {
                self.note(
                    Rule::ConfigAbiVersion,
                    format!("`{key}` is {origin}; the table has `abiVersions`"),
                );
            }
            match value {
                Value::String(version) => {
                    if key == "abiVersions" {
                        self.note(
                            Rule::ConfigAbiVersion,
                            "`abiVersions` is a string, not an array of strings",
                        );
                    }
                    versions.push(version.clone());
                }
                Value::Array(items) => self.read_strings(key, items, &mut versions),
                other => {
                    self.invalid(format!("`{key}` is {}, not an array of strings", kind(other)));
                }
            }
        }
        if fields.len() > 1 {
            self.note(
                Rule::ConfigAbiVersion,
                format!("the ABI versions are declared more than once: {}", fields.join(", ")),
            );
        }
        // Two spellings with the same version are not worth a second note.
        dedup(&mut versions);
        if versions.is_empty() {
            self.note(Rule::ConfigAbiVersion, "the runtime config declares no ABI version");
        }
        versions
    }

    fn read_root_ids(&mut self, object: &Map<String, Value>) -> Vec<String> {
        let mut ids = Vec::new();
        match object.get("config") {
            None | Some(Value::Null) => {}
            Some(Value::Object(config)) => {
                for (key, origin) in ROOT_SPELLINGS {
                    let path = format!("config.{key}");
                    let said = origin.map(|origin| format!("`{path}` is {origin}"));
                    self.read_root_list(config.get(key), &path, said, &mut ids);
                }
            }
            Some(other) => self.invalid(format!("`config` is {}, not an object", kind(other))),
        }
        for (key, _) in ROOT_SPELLINGS {
            let said = format!("`{key}` is outside of `config`");
            self.read_root_list(object.get(key), key, Some(said), &mut ids);
        }
        self.read_legacy_roots(object, &mut ids);
        let duplicates = dedup(&mut ids);
        for id in duplicates {
            self.note(
                Rule::ConfigRootIds,
                format!("the root id {:?} is declared more than once", one_line(&id)),
            );
        }
        if ids.is_empty() {
            self.notes.push(
                Finding::note(Rule::ConfigRootIds, "the runtime config names no root ids")
                    .help("list them in config.root_ids, so that each can be tested"),
            );
        }
        ids
    }

    fn read_root_list(
        &mut self,
        value: Option<&Value>,
        path: &str,
        deviation: Option<String>,
        ids: &mut Vec<String>,
    ) {
        match value {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => self.read_strings(path, items, ids),
            Some(other) => {
                self.invalid(format!("`{path}` is {}, not an array of strings", kind(other)));
            }
        }
        if let Some(deviation) = deviation {
            self.note(
                Rule::ConfigRootIds,
                format!("{deviation}; the specification has `config.root_ids`"),
            );
        }
    }

    /// `roots[].id`, of the tools of January 2020.
    fn read_legacy_roots(&mut self, object: &Map<String, Value>, ids: &mut Vec<String>) {
        let Some(Value::Array(roots)) = object.get("roots") else {
            return;
        };
        let found = roots.iter().filter_map(|root| root.get("id")?.as_str());
        let before = ids.len();
        ids.extend(found.map(str::to_owned));
        if ids.len() > before {
            self.note(
                Rule::ConfigRootIds,
                "`roots` is older than the specification, which has `config.root_ids`",
            );
        }
    }

    fn read_strings(&mut self, path: &str, items: &[Value], strings: &mut Vec<String>) {
        for (at, item) in items.iter().enumerate() {
            match item {
                Value::String(s) => strings.push(s.clone()),
                // One complaint says enough of an array of anything else.
                other => {
                    self.invalid(format!("`{path}[{at}]` is {}, not a string", kind(other)));
                    return;
                }
            }
        }
    }

    /// Takes what wasme repeats in the manifest's annotations, where the config does not have it, and
    /// says whether that was anything.
    pub(crate) fn apply_annotations(&mut self, annotations: &Annotations) -> bool {
        let abi = annotations.get("module.wasm.runtime/abi_version");
        let versions: Vec<String> = abi
            .iter()
            .flat_map(|joined| joined.split(','))
            .map(|version| version.trim().to_owned())
            .filter(|version| !version.is_empty())
            .collect();
        let r#type = annotations.get("module.wasm.runtime/type");
        let has_abi = self.config.as_ref().is_some_and(|c| !c.abi_versions.is_empty());
        let has_type = self.config.as_ref().is_some_and(|c| c.r#type.is_some());
        let take_abi = !versions.is_empty() && !has_abi;
        let take_type = r#type.filter(|_| !has_type);
        if !take_abi && take_type.is_none() {
            return false;
        }
        let config = self.config.get_or_insert_with(|| RuntimeConfig {
            r#type: None,
            abi_versions: Vec::new(),
            root_ids: Vec::new(),
            raw: Value::Null,
        });
        if take_abi {
            config.abi_versions = versions;
            dedup(&mut config.abi_versions);
        }
        if let Some(r#type) = take_type {
            config.r#type = Some(r#type.clone());
        }
        if take_abi {
            self.note(Rule::ConfigAbiVersion, "the ABI versions are those of the manifest's annotation `module.wasm.runtime/abi_version`",
            );
        }
        if let Some(r#type) = take_type {
            let (severity, end) = match r#type == ENVOY {
                true => (Severity::Note, ""),
                false => (Severity::Error, ": the module is not for Envoy"),
            };
            let message = format!(
                "the type {:?} is that of the manifest's annotation `module.wasm.runtime/type`{end}",
                one_line(r#type)
            );
            self.notes.push(Finding::new(Rule::ConfigType, severity, message));
        }
        true
    }
}

/// Keeps the first of each, and returns those that were there again, each once.
fn dedup(strings: &mut Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut again = Vec::new();
    strings.retain(|s| {
        let first = seen.insert(s.clone());
        if !first && !again.contains(s) {
            again.push(s.clone());
        }
        first
    });
    again
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The text around the error, so that nobody needs to open the file.
fn excerpt(text: &[u8], line: usize, column: usize) -> String {
    const AROUND: usize = 30;
    let Some(line) = text.split(|b| *b == b'\n').nth(line.saturating_sub(1)) else {
        return String::new();
    };
    let at = column.saturating_sub(1).min(line.len());
    let (from, to) = (at.saturating_sub(AROUND), (at + AROUND).min(line.len()));
    let part = one_line(&String::from_utf8_lossy(&line[from..to]));
    if part.is_empty() {
        return String::new();
    }
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    format!(", near `{before}{part}{after}`")
}
