//! What is in an image, and who takes it: for people, and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    image::{
        ConfigPlace, ConsumerVerdict, Image, ImageError, Inspection, ModulePlace, Node,
        NodeContent, Part, RuntimeConfig,
    },
    verdict::Finding,
};

use super::{
    escape::quote,
    human::{BOLD, DIM, Detail, GREEN, PLAIN, Page, RED, YELLOW, shortened},
    json::{self, FindingJson, Layout, RuntimeConfigJson, SCHEMA},
    stages, units,
};

/// Lines of one kind that are shown of a part, unless everything is.
const MAX_LINES: usize = 20;
/// Characters of one annotation that are shown, unless everything is.
const MAX_VALUE_CHARS: usize = 200;

/// What the bytes of a module are, by their first eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// A WebAssembly module.
    Module,
    /// A component, which Envoy cannot run.
    Component,
    /// Nothing of WebAssembly.
    NotWasm,
}

impl ModuleKind {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => Self::Component,
            [0, b'a', b's', b'm', _, _, 0, 0, ..] => Self::Module,
            _ => Self::NotWasm,
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Module => "module",
            Self::Component => "component",
            Self::NotWasm => "not-wasm",
        }
    }
}

/// What bytes are that are no module, as far as their beginning says.
fn looks_like(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "no module: it is empty",
        [0x1f, 0x8b, ..] => "no module but gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "no module but zstd",
        [b'<', ..] => "no module but what looks like a web page",
        _ => "no module",
    }
}

/// The findings on an image: those of the fetch, or the reason why there is no module. What
/// consumers log is in their table.
fn findings(inspection: &Inspection) -> Vec<Finding> {
    let without_logs = |note: &Finding| Finding { envoy_messages: Vec::new(), ..note.clone() };
    match &inspection.image {
        Ok(image) => image.notes.iter().map(without_logs).collect(),
        Err(error) => vec![Finding::error(error.rule(), error.to_string()).help(error.help())],
    }
}

/// An inspection for people.
pub fn render_human(inspection: &Inspection, detail: Detail, colour: bool) -> String {
    let mut page = Page { out: String::new(), colour, detail };
    page.stage("image", &quote(&inspection.reference));
    if let Some(shape) = inspection.shape {
        page.stage("shape", &format!("{shape}: {}", shape.summary()));
    }
    match &inspection.image {
        Ok(image) => page.module(image),
        Err(error) => page.stage("module", &without_module(error)),
    }
    page.digests(inspection);
    if let Some(tree) = &inspection.tree {
        page.end();
        page.node(tree, 0);
    }
    if !inspection.consumers.is_empty() {
        page.end();
        page.stage("takes it", "");
        let first = inspection.consumers.first();
        for (at, verdict) in inspection.consumers.iter().enumerate() {
            page.consumer(verdict, first.filter(|_| at > 0));
        }
    }
    page.findings(&findings(inspection), false);
    // The last finding is the last line: there is no verdict's behind it.
    page.out.truncate(page.out.trim_end().len());
    page.end();
    page.out
}

fn without_module(error: &ImageError) -> String {
    if error.is_verdict() { "none" } else { "not found out" }.to_owned()
}

/// `` `plugin.wasm` in layer 1 of 2 ``.
fn place(place: &ModulePlace) -> String {
    let layer = format!("layer {} of {}", place.layer, place.layers);
    match &place.path {
        Some(path) => format!("{} in {layer}", quote(path)),
        None => layer,
    }
}

impl Page {
    fn module(&mut self, image: &Image) {
        let kind = match ModuleKind::of(&image.wasm) {
            ModuleKind::Module => "a module",
            ModuleKind::Component => "a component, which Envoy cannot run",
            ModuleKind::NotWasm => looks_like(&image.wasm),
        };
        let size = units::size(image.wasm.len() as u64);
        self.stage(
            "module",
            &match &image.module_place {
                Some(at) => format!("{}, {size}, {kind}", place(at)),
                None => format!("{size}, {kind}"),
            },
        );
        if image.module_place.is_some() {
            self.stage("config", &config(image.runtime_config.as_ref(), image.config_place));
        }
    }

    /// Three digests are in use for one image, and people mix them up.
    fn digests(&mut self, inspection: &Inspection) {
        let Inspection { named_digest, manifest_digest, .. } = inspection;
        let mut rows = Vec::new();
        if let Some(named) = named_digest.as_ref() {
            let is_index = matches!(
                inspection.tree.as_ref().map(|tree| &tree.content),
                Some(NodeContent::Index(_))
            );
            match is_index {
                true => rows.push(("index", named.clone(), "what the reference names")),
                false if manifest_digest.is_none() => {
                    rows.push(("named", named.clone(), "what the reference names"));
                }
                false => {}
            }
        }
        if let Some(manifest) = manifest_digest {
            let what = "what Istio and Envoy Gateway compare with a pin";
            rows.push(("digest", manifest.clone(), what));
        }
        if let Ok(image) = &inspection.image {
            let digest = format!("sha256:{}", image.wasm_sha256);
            rows.push(("wasm", digest, "what Envoy compares with `sha256`"));
        }
        for (label, digest, what) in rows {
            self.put(BOLD, &format!("{label:<8}"));
            self.put(PLAIN, &digest);
            self.put(DIM, &format!("  {what}"));
            self.end();
        }
    }

    fn node(&mut self, node: &Node, depth: usize) {
        let kind = match &node.content {
            NodeContent::Index(_) => "index",
            NodeContent::Manifest { .. } => "manifest",
            NodeContent::Unread(_) if node.is_attestation => "attestation",
            NodeContent::Unread(_) => "unread",
        };
        let label = match &node.platform {
            Some(platform) => format!("{kind} {platform}"),
            None => kind.to_owned(),
        };
        let mark = if node.is_selected && depth > 0 { "  (selected)" } else { "" };
        self.part(depth, &label, &node.descriptor, mark);
        self.annotations(depth + 1, &node.annotations);
        match &node.content {
            NodeContent::Index(children) => {
                let shown = self.shown(children.len());
                for child in &children[..shown] {
                    self.node(child, depth + 1);
                }
                self.more(depth + 1, children.len() - shown, "more entry", "more entries");
            }
            NodeContent::Manifest { config, layers } => {
                if let Some(config) = config {
                    self.part(depth + 1, "config", config, "");
                }
                let shown = self.shown(layers.len());
                for (at, layer) in layers[..shown].iter().enumerate() {
                    self.part(depth + 1, &format!("layer {}", at + 1), layer, "");
                }
                self.more(depth + 1, layers.len() - shown, "more layer", "more layers");
            }
            NodeContent::Unread(_) if node.is_attestation => {}
            NodeContent::Unread(reason) => {
                self.put(YELLOW, &format!("{:width$}{reason}", "", width = 2 * (depth + 1)));
                self.end();
            }
        }
    }

    fn part(&mut self, depth: usize, label: &str, part: &Part, mark: &str) {
        self.put(PLAIN, &format!("{:width$}{label}", "", width = 2 * depth));
        if let Some(digest) = &part.digest {
            self.put(PLAIN, &format!("  {digest}"));
        }
        let media_type = match part.media_type.as_str() {
            "" => "no media type",
            media_type => media_type,
        };
        self.put(PLAIN, &format!("  {}  {media_type}", units::size(part.size)));
        self.put(GREEN, mark);
        self.end();
        if let Some(artifact_type) = &part.artifact_type {
            self.line(depth + 1, &format!("artifactType {}", quote(artifact_type)));
        }
        self.annotations(depth + 1, &part.annotations);
    }

    fn annotations(&mut self, depth: usize, annotations: &BTreeMap<String, String>) {
        let shown = self.shown(annotations.len());
        for (key, value) in annotations.iter().take(shown) {
            let (key, value) = match self.detail {
                Detail::Everything => (key.clone(), value.clone()),
                _ => (shortened(key, MAX_VALUE_CHARS), shortened(value, MAX_VALUE_CHARS)),
            };
            self.line(depth, &format!("{key} {}", quote(&value)));
        }
        self.more(depth, annotations.len() - shown, "more annotation", "more annotations");
    }

    fn line(&mut self, depth: usize, text: &str) {
        // The indentation must not be what makes a command of it harmless.
        self.out.push_str(&" ".repeat(2 * depth));
        self.put(DIM, text);
        self.end();
    }

    fn shown(&self, count: usize) -> usize {
        if self.detail == Detail::Everything { count } else { count.min(MAX_LINES) }
    }

    fn more(&mut self, depth: usize, count: usize, one: &str, several: &str) {
        if count > 0 {
            let noun = if count == 1 { one } else { several };
            self.line(depth, &format!("… {count} {noun}; -v shows them"));
        }
    }

    /// Text that is the same as that of the `first` is not shown again.
    fn consumer(&mut self, verdict: &ConsumerVerdict, first: Option<&ConsumerVerdict>) {
        self.put(PLAIN, &format!("  {:<16} ", verdict.consumer.name()));
        let (style, word) = match verdict.takes {
            Some(true) => (GREEN, "yes"),
            Some(false) => (RED, "no"),
            None => (YELLOW, "not known"),
        };
        self.put(style, word);
        if let Some(reason) = &verdict.reason {
            self.put(PLAIN, &format!(": {reason}"));
        }
        if let Some(first) = first.filter(|first| first.log.is_some() && first.log == verdict.log) {
            self.put(PLAIN, &format!(", in the words of {}", first.consumer.name()));
            self.end();
            return;
        }
        self.end();
        for line in verdict.log.iter().flat_map(|log| log.lines()) {
            self.below("log", PLAIN, line.trim());
        }
    }
}

fn config(config: Option<&RuntimeConfig>, at: Option<ConfigPlace>) -> String {
    match (config, at) {
        (Some(config), Some(at)) => format!("{at}: {}", stages::config_words(config)),
        (Some(config), None) => stages::config_words(config),
        (None, Some(at)) => format!("{at}, which cannot be read"),
        (None, None) => "none".to_owned(),
    }
}

/// An inspection as JSON.
pub fn render_json(inspection: &Inspection, layout: Layout) -> String {
    let findings = findings(inspection);
    let image = inspection.image.as_ref().ok();
    let report = Report {
        schema: SCHEMA,
        reference: &inspection.reference,
        shape: inspection.shape.map(crate::image::Shape::name),
        digests: Digests {
            named: inspection.named_digest.as_deref(),
            manifest: inspection.manifest_digest.as_deref(),
            wasm: image.map(|image| format!("sha256:{}", image.wasm_sha256)),
        },
        module: image.map(|image| ModuleJson {
            kind: ModuleKind::of(&image.wasm).id(),
            size: image.wasm.len(),
            layer: image.module_place.as_ref().map(|place| place.layer),
            path: image.module_place.as_ref().and_then(|place| place.path.as_deref()),
        }),
        runtime_config: image
            .and_then(|image| image.runtime_config.as_ref())
            .map(RuntimeConfigJson::of),
        runtime_config_place: image
            .and_then(|image| image.config_place)
            .map(|place| place.to_string()),
        consumers: inspection.consumers.iter().map(ConsumerJson::of).collect(),
        tree: inspection.tree.as_ref().map(NodeJson::of),
        findings: findings.iter().map(FindingJson::of).collect(),
    };
    json::to_string(&report, layout)
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    reference: &'a str,
    shape: Option<&'static str>,
    digests: Digests<'a>,
    module: Option<ModuleJson<'a>>,
    runtime_config: Option<RuntimeConfigJson<'a>>,
    runtime_config_place: Option<String>,
    consumers: Vec<ConsumerJson<'a>>,
    tree: Option<NodeJson<'a>>,
    findings: Vec<FindingJson<'a>>,
}

#[derive(Serialize)]
struct Digests<'a> {
    named: Option<&'a str>,
    manifest: Option<&'a str>,
    wasm: Option<String>,
}

#[derive(Serialize)]
struct ModuleJson<'a> {
    kind: &'static str,
    size: usize,
    layer: Option<usize>,
    path: Option<&'a str>,
}

#[derive(Serialize)]
struct ConsumerJson<'a> {
    consumer: &'static str,
    takes: Option<bool>,
    log: Option<&'a str>,
    reason: Option<&'a str>,
}

impl<'a> ConsumerJson<'a> {
    fn of(verdict: &'a ConsumerVerdict) -> Self {
        Self {
            consumer: verdict.consumer.id(),
            takes: verdict.takes,
            log: verdict.log.as_deref(),
            reason: verdict.reason.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct NodeJson<'a> {
    kind: &'static str,
    #[serde(flatten)]
    descriptor: PartJson<'a>,
    platform: Option<String>,
    selected: bool,
    /// Those in the document itself.
    own_annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<Vec<NodeJson<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<PartJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<PartJson<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<&'a str>,
}

impl<'a> NodeJson<'a> {
    fn of(node: &'a Node) -> Self {
        let mut json = Self {
            kind: "attestation",
            descriptor: PartJson::of(&node.descriptor),
            platform: node.platform.as_ref().map(ToString::to_string),
            selected: node.is_selected,
            own_annotations: &node.annotations,
            manifests: None,
            config: None,
            layers: None,
            unread: None,
        };
        match &node.content {
            NodeContent::Index(children) => {
                json.kind = "index";
                json.manifests = Some(children.iter().map(NodeJson::of).collect());
            }
            NodeContent::Manifest { config, layers } => {
                json.kind = "manifest";
                json.config = config.as_ref().map(PartJson::of);
                json.layers = Some(layers.iter().map(PartJson::of).collect());
            }
            NodeContent::Unread(_) if node.is_attestation => {}
            NodeContent::Unread(reason) => {
                json.kind = "unread";
                json.unread = Some(reason);
            }
        }
        json
    }
}

#[derive(Serialize)]
struct PartJson<'a> {
    media_type: &'a str,
    artifact_type: Option<&'a str>,
    digest: Option<&'a str>,
    size: u64,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> PartJson<'a> {
    fn of(part: &'a Part) -> Self {
        Self {
            media_type: &part.media_type,
            artifact_type: part.artifact_type.as_deref(),
            digest: part.digest.as_deref(),
            size: part.size,
            annotations: &part.annotations,
        }
    }
}
