//! What a target says of a module before anything runs.
//!
//! Findings come in the order in which Envoy would meet them, so that the first error is the reason
//! that Envoy gives. A consequence of an earlier finding is not reported again.

use crate::{
    abi::AbiVersion,
    module::{self, Corrupt, Engine, Facts, ParseError, envoy_scan},
    target::Target,
};

use super::{
    finding::Finding,
    link_checks::{exports, host_made, imports, memories},
    rule::Rule,
};

/// Envoy's words for a module whose bytes it cannot walk.
const CORRUPTED: &str = "Wasm VM failed Failed to parse corrupted Wasm module";
/// Envoy's words for a module that its engine refuses.
const BAD_BYTECODE: &str = "Wasm VM failed Failed to load Wasm bytecode";
const NO_MARKER: &str = "Wasm VM failed Missing or unknown Proxy-Wasm ABI version";

/// V8's limit on the initial size of a table (`kV8MaxWasmTableSize`).
const V8_MAX_TABLE_ELEMENTS: u64 = 10_000_000;

/// The static view of a module under a target.
#[derive(Debug, Clone, Default)]
pub struct StaticReport {
    /// The ABI version by the marker.
    pub abi: Option<AbiVersion>,
    /// Whether Envoy prints a backtrace for this module's traps.
    pub has_function_names: bool,
    /// The sections, where they could be read.
    pub facts: Option<Facts>,
    /// What is wrong, in Envoy's order.
    pub findings: Vec<Finding>,
}

impl StaticReport {
    /// Whether nothing stands against compiling the module.
    pub fn is_loadable(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != super::Severity::Error)
    }

    /// Whether nothing stands against the module but the types of callbacks that it exports.
    pub fn fails_only_by_exports(&self) -> bool {
        let mut errors =
            self.findings.iter().filter(|finding| finding.severity == super::Severity::Error);
        errors.all(|finding| finding.rule == Rule::LinkExportType)
    }
}

/// Checks `bytes` against `target` without running anything.
pub fn check_statically(bytes: &[u8], target: &Target) -> StaticReport {
    let mut report = StaticReport::default();
    if bytes.is_empty() {
        report.findings.push(
            Finding::error(Rule::ModuleInvalid, "the module is empty (0 bytes)")
                .help("check the step that writes the file: Envoy logs nothing but its generic failure line for an empty one"),
        );
        return report;
    }
    match envoy_scan(bytes) {
        Ok(scan) => {
            report.abi = scan.abi;
            report.has_function_names = scan.has_function_names;
        }
        Err(corrupt) => {
            report.findings.push(corrupted(bytes, corrupt));
            return report;
        }
    }
    let parsed = module::parse(bytes);
    if report.abi.is_none() {
        report.findings.push(missing_marker(bytes, parsed.as_ref()));
    }
    match parsed {
        Ok(facts) => {
            let abi = report.abi;
            report.findings.extend(engine_limits(&facts));
            report.findings.extend(imports(&facts, target, abi));
            report.findings.extend(host_made(&facts));
            report.findings.extend(memories(&facts, target));
            if let Some(abi) = abi {
                report.findings.extend(exports(&facts, target, abi));
            }
            report.facts = Some(facts);
        }
        // Envoy found a marker, so it is its engine that refuses these bytes.
        Err(error) if report.abi.is_some() => {
            report.findings.push(bad_bytecode(error.to_string()));
            return report;
        }
        Err(_) => return report,
    }
    if !report.is_loadable() && report.abi.is_some() {
        // Envoy compiles before it links: an invalid body comes before a missing import.
        if let Err(invalid) = module::validate(bytes, Engine::EnvoyV8) {
            report.findings.insert(0, invalid_body(bytes, &invalid));
        }
    }
    report
}

/// The finding for bytes that Envoy's engine refuses: invalid for every engine, or in need of a
/// proposal that V8 does not have on.
pub fn invalid_body(bytes: &[u8], invalid: &module::Invalid) -> Finding {
    let every_proposal = wasmparser::WasmFeatures::all();
    let valid_somewhere =
        wasmparser::Validator::new_with_features(every_proposal).validate_all(bytes).is_ok();
    if valid_somewhere {
        Finding::error(
            Rule::ModuleFeature,
            format!("the module needs a wasm proposal that Envoy's V8 does not have on: {invalid}"),
        )
        .envoy(BAD_BYTECODE)
        .help("turn the proposal off in the compiler (rustc: -C target-feature=-NAME, clang: -mno-NAME)")
    } else {
        bad_bytecode(invalid.to_string())
    }
}

fn bad_bytecode(reason: String) -> Finding {
    // Some of the validator's texts are set in columns.
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Finding::error(Rule::ModuleInvalid, format!("the module is not valid wasm: {reason}"))
        .envoy(BAD_BYTECODE)
        .help("rebuild it; `wasm-tools validate FILE` shows the same place")
}

fn corrupted(bytes: &[u8], corrupt: Corrupt) -> Finding {
    let looks = describe_bytes(bytes);
    let finding = match looks {
        Some(what) => {
            Finding::error(Rule::ModuleInvalid, format!("this is {what}, not a wasm module"))
        }
        None => Finding::error(
            Rule::ModuleInvalid,
            format!(
                "the module is corrupt or cut off: {corrupt}; the file has {} bytes",
                bytes.len()
            ),
        ),
    };
    finding.envoy(CORRUPTED).help(match looks {
        Some("WebAssembly text") => "assemble it first: wat2wasm or `wasm-tools parse`",
        Some(_) => "give the compiled module itself",
        None => {
            "compare its size and digest with the build's output: it was probably not copied whole"
        }
    })
}

/// What bytes without the wasm magic number look like.
fn describe_bytes(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    Some(match bytes {
        [0, b'a', b's', b'm', ..] => return None,
        [0x1f, 0x8b, ..] => "a gzip file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        [0x7f, b'E', b'L', b'F', ..] => "a native ELF binary",
        [b'P', b'K', 3, 4, ..] => "a zip file",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "an object archive",
        _ if bytes.get(257..262) == Some(b"ustar") => "a tar archive",
        _ if text.starts_with(b"(module")
            || text.starts_with(b"(component")
            || text.starts_with(b";;") =>
        {
            "WebAssembly text"
        }
        _ if text.starts_with(b"<") => "an HTML or XML page",
        _ if text.starts_with(b"{") => "JSON",
        _ if text.starts_with(b"version https://git-lfs") => {
            "a Git LFS pointer, not the file that it names"
        }
        _ if bytes.iter().take(512).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            "text"
        }
        _ => "a file of an unknown kind",
    })
}

fn missing_marker(bytes: &[u8], parsed: Result<&Facts, &ParseError>) -> Finding {
    let error = |message: String| Finding::error(Rule::AbiMarker, message).envoy(NO_MARKER);
    let facts = match parsed {
        Err(ParseError::Component) => {
            return error(
                "this is a WebAssembly component: Envoy takes core modules only, and finds no ABI marker in it".to_owned(),
            )
            .help("build a core module (Rust: target wasm32-wasip1 or wasm32-unknown-unknown, crate-type cdylib, without cargo-component)");
        }
        Err(_) if bytes.len() < 8 => {
            return error(format!(
                "the file has {} bytes, less than a module's header, so that no ABI marker is found in it",
                bytes.len()
            ))
            .help("check the step that writes the file");
        }
        Err(reason) => {
            return error(format!(
                "no ABI marker is found; besides, the module cannot be read: {reason}"
            ))
            .help("rebuild it");
        }
        Ok(facts) => facts,
    };
    let known =
        "Envoy knows proxy_abi_version_0_1_0, proxy_abi_version_0_2_0 and proxy_abi_version_0_2_1";
    let markers: Vec<&module::Export> = facts
        .exports
        .iter()
        .filter(|export| export.name.starts_with("proxy_abi_version"))
        .collect();
    if let Some(export) =
        markers.iter().find(|export| AbiVersion::from_marker(&export.name).is_some())
    {
        return error(format!(
            "`{}` is exported, but not as a function, so that Envoy does not see it",
            export.name
        ))
        .help("export the marker as a function without parameters or results");
    }
    if let Some(export) = markers.first() {
        return error(format!("`{}` is no ABI version that Envoy knows; {known}", export.name))
            .help("build with an SDK for ABI 0.2.1 or older");
    }
    let what = if facts.exports.iter().any(|export| export.name.starts_with("proxy_on_")) {
        "the module exports proxy_on_* callbacks but no ABI marker"
    } else {
        "the module exports no ABI marker and no proxy_on_* callback: it is no Proxy-Wasm filter"
    };
    error(format!("{what}; {known}")).help(
        "build with a Proxy-Wasm SDK, which exports the marker, and check that the linker keeps it",
    )
}

fn engine_limits(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &facts.tables {
        if table.initial > V8_MAX_TABLE_ELEMENTS {
            findings.push(bad_bytecode(format!(
                "a table of {} elements is over V8's limit of {V8_MAX_TABLE_ELEMENTS}",
                table.initial
            )));
        }
    }
    findings
}
