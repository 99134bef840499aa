//! The verdict on one image: everything that a report shows.

use crate::{
    bench::PhaseClock,
    exercise::{Filter, RootRun},
    host::{LogLine, TracedCall},
    image::{Image, ImageError, RuntimeConfig},
    module::{Export, Import, origin},
    target::Target,
    vm::Compiler,
};

use super::{
    finding::{Finding, Outcome},
    rule::Severity,
    static_checks::StaticReport,
};

/// What is known of the image.
#[derive(Debug, Clone)]
pub struct ImageFacts {
    /// The digest that the reference resolved to.
    pub named_digest: Option<String>,
    /// The digest of the selected manifest.
    pub manifest_digest: Option<String>,
    /// The shape's name.
    pub shape: &'static str,
    /// The runtime configuration.
    pub runtime_config: Option<RuntimeConfig>,
}

/// What is known of the module.
#[derive(Debug, Clone)]
pub struct ModuleFacts {
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// The ABI version by the marker.
    pub abi: Option<&'static str>,
    /// The language, as far as it shows.
    pub language: Option<&'static str>,
    /// The toolchain, as far as it shows.
    pub toolchain: Option<String>,
    /// Imports in order.
    pub imports: Vec<Import>,
    /// Exports in order.
    pub exports: Vec<Export>,
    /// Number of function bodies.
    pub functions: u32,
    /// Bytes of the code section.
    pub code_bytes: u64,
    /// Pages of the first memory at the start.
    pub initial_pages: Option<u64>,
}

/// The verdict on one image.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The reference as it was typed.
    pub reference: String,
    /// The proxy release.
    pub target: Target,
    /// Where Envoy was to run the module.
    pub filter: Filter,
    /// What the findings add up to.
    pub outcome: Outcome,
    /// The image; `None` where it could not be had.
    pub image: Option<ImageFacts>,
    /// The module; `None` where it could not be had.
    pub module: Option<ModuleFacts>,
    /// Whether Envoy would accept the configuration for the first root; `None` where that was not
    /// found out.
    pub loads: Option<bool>,
    /// The class of Envoy's refusal, its first reason.
    pub envoy_class: Option<&'static str>,
    /// What was found, in the order in which Envoy would meet it.
    pub findings: Vec<Finding>,
    /// What the module logged in the base VM, before any root.
    pub base_logs: Vec<LogLine>,
    /// What crossed the boundary in the base VM, where that is traced.
    pub base_trace: Vec<TracedCall>,
    /// The roots that were exercised.
    pub roots: Vec<RootRun>,
    /// Times by phase: instantiate and start are the base VM's, the rest of the load is the first
    /// root's canary's.
    pub phases: PhaseClock,
    /// The compiler that ran.
    pub compiler: Option<Compiler>,
    /// Something of filtergate's own kept the check from its end.
    pub undecided: bool,
}

impl Verdict {
    /// A verdict on an image whose module was not looked at yet.
    pub fn new(image: &Image, target: &Target) -> Self {
        Self {
            image: Some(ImageFacts {
                named_digest: image.named_digest.clone(),
                manifest_digest: image.manifest_digest.clone(),
                shape: image.shape.name(),
                runtime_config: image.runtime_config.clone(),
            }),
            findings: image.notes.clone(),
            ..Self::empty(&image.reference, target)
        }
    }

    fn empty(reference: &str, target: &Target) -> Self {
        Self {
            reference: reference.to_owned(),
            target: target.clone(),
            filter: Filter::default(),
            outcome: Outcome::Undecided,
            image: None,
            module: None,
            loads: None,
            envoy_class: None,
            findings: Vec::new(),
            base_logs: Vec::new(),
            base_trace: Vec::new(),
            roots: Vec::new(),
            phases: PhaseClock::default(),
            compiler: None,
            undecided: false,
        }
    }

    /// The verdict on an image that could not be had, or is not what it claims to be.
    pub fn of_image_error(reference: &str, target: &Target, error: &ImageError) -> Self {
        // An image that cannot be had is not the image's fault: the outcome stays open.
        let outcome = if error.is_verdict() { Outcome::Fail } else { Outcome::Undecided };
        let finding = Finding::error(error.rule(), error.to_string())
            .envoy_text(error.consumer_message().unwrap_or_default())
            .help(error.help());
        Self { outcome, findings: vec![finding], undecided: true, ..Self::empty(reference, target) }
    }

    /// Adds what the static view knows of the module.
    pub fn set_module(&mut self, image: &Image, report: &StaticReport) {
        let facts = report.facts.clone().unwrap_or_default();
        let origin = origin(&facts);
        self.module = Some(ModuleFacts {
            sha256: image.wasm_sha256.clone(),
            size: image.wasm.len() as u64,
            abi: report.abi.map(crate::abi::AbiVersion::as_str),
            language: origin.language,
            toolchain: origin.toolchain,
            functions: facts.functions,
            code_bytes: facts.code_bytes,
            initial_pages: facts.memories.first().map(|memory| memory.initial_pages),
            imports: facts.imports,
            exports: facts.exports,
        });
    }

    /// Adds the findings up.
    pub fn conclude(&mut self) {
        self.outcome = Outcome::of(&self.findings, self.undecided);
        if self.loads == Some(false) {
            self.envoy_class = self
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error)
                .find_map(|finding| finding.rule.envoy_class());
        }
    }
}
