//! What a target says of a module before anything runs.
//!
//! Findings come in the order in which Envoy would meet them, so that the first error is the reason
//! that Envoy gives. A consequence of an earlier finding is not reported again.

use crate::{
    abi::{
        ALLOCATORS, AbiVersion, CALLBACKS, Callback, FuncType, LIFECYCLE, ValueType, declared_abi,
    },
    module::{
        self, Corrupt, Engine, ExternKind, Facts, ImportKind, ParseError, envoy_scan, import_advice,
    },
    target::{ImportAnswer, Target},
};

use super::{finding::Finding, rule::Rule};

/// Envoy's words for a module whose bytes it cannot walk.
const CORRUPTED: &str = "Wasm VM failed Failed to parse corrupted Wasm module";
/// Envoy's words for a module that its engine refuses.
const BAD_BYTECODE: &str = "Wasm VM failed Failed to load Wasm bytecode";
const NO_MARKER: &str = "Wasm VM failed Missing or unknown Proxy-Wasm ABI version";
const NO_MALLOC: &str = "Wasm VM failed Wasm module is missing malloc function.";

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
    /// Whether the function bodies were validated too. That is left to the compiler where nothing
    /// else is wrong, since it validates again.
    pub validated: bool,
}

impl StaticReport {
    /// Whether nothing stands against compiling the module.
    pub fn is_loadable(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != super::Severity::Error)
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
        report.validated = true;
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

fn imports(facts: &Facts, target: &Target, abi: Option<AbiVersion>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // V8's C API ends the process on types that it cannot express, before any import is resolved.
    for import in &facts.imports {
        let what = match &import.kind {
            ImportKind::Tag => Some("an exception tag"),
            ImportKind::Func(ty) if !is_expressible(ty) => Some("a function with v128 or GC types"),
            ImportKind::Global(ty) if !has_name(*ty) => Some("a global of a v128 or GC type"),
            ImportKind::Table(table) if !has_name(table.element) => Some("a table of a GC type"),
            _ => None,
        };
        if let Some(what) = what {
            findings.push(inexpressible(&format!(
                "imports {what}, `{}.{}`",
                import.module, import.name
            )));
        }
    }
    let mut seen = std::collections::HashSet::new();
    for import in &facts.imports {
        let full = format!("{}.{}", import.module, import.name);
        let ty = match &import.kind {
            ImportKind::Func(ty) => ty,
            ImportKind::Global(_) => {
                findings.push(
                    Finding::error(
                        Rule::LinkMissingImport,
                        format!("`{full}` is an imported global; {target} offers none"),
                    )
                    .envoy(format!("Failed to load Wasm module due to a missing import: {full}"))
                    .help(
                        import_advice(&import.module, &import.name, &import.kind)
                            .unwrap_or_default(),
                    ),
                );
                continue;
            }
            // The host makes a memory or table with the module's own limits.
            ImportKind::Memory(_) | ImportKind::Table(_) | ImportKind::Tag => continue,
        };
        if !seen.insert((full.clone(), ty.clone())) {
            continue;
        }
        match abi {
            Some(abi) => match target.import(abi, &import.module, &import.name, ty) {
                ImportAnswer::Linked(_) => {}
                ImportAnswer::OtherType(host) => {
                    findings.push(import_type(target, &full, ty, &host))
                }
                ImportAnswer::Missing(known) => {
                    findings.push(missing_import(target, Some(abi), import, known));
                }
            },
            // Without a marker the ABI is unknown: only what no ABI offers is another reason.
            None => {
                let answers =
                    AbiVersion::ALL.map(|abi| target.import(abi, &import.module, &import.name, ty));
                if answers.iter().all(|answer| matches!(answer, ImportAnswer::Missing(None))) {
                    findings.push(missing_import(target, None, import, None));
                }
            }
        }
    }
    findings
}

/// Whether V8's C API has a name for a type.
fn has_name(ty: ValueType) -> bool {
    !matches!(ty, ValueType::V128 | ValueType::OtherRef)
}

fn is_expressible(ty: &FuncType) -> bool {
    ty.params.iter().chain(&ty.results).all(|ty| has_name(*ty))
}

/// A module that "imports a global of …" for which V8's C API has no type.
fn inexpressible(what: &str) -> Finding {
    Finding::error(
        Rule::HazardCrashesEnvoy,
        format!("the module {what}: V8's C API has no type for it, and the process ends"),
    )
    .envoy("# Fatal error in , line 0")
    .envoy("# unreachable code")
    .help("do not roll this module out: the whole proxy would die while it loads the configuration")
}

/// Memories and tables that the host makes for a module: one of each, and never a shared memory
/// (proxy-wasm-cpp-host `src/v8/v8.cc`, `link`).
fn host_made(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let memories = facts.imports.iter().filter(|i| matches!(i.kind, ImportKind::Memory(_))).count();
    let tables = facts.imports.iter().filter(|i| matches!(i.kind, ImportKind::Table(_))).count();
    for (count, what) in [(memories, "memories"), (tables, "tables")] {
        if count > 1 {
            findings.push(
                Finding::error(
                    Rule::HazardCrashesEnvoy,
                    format!("the module imports {count} {what}: Envoy makes one at a time and frees the one before, and dies of a segmentation fault"),
                )
                .envoy("Caught Segmentation fault, suspect faulting address 0x0")
                .help("do not roll this module out: import at most one memory and one table"),
            );
        }
    }
    if facts.imports.iter().any(|i| matches!(i.kind, ImportKind::Memory(memory) if memory.shared)) {
        findings.push(
            Finding::error(
                Rule::LoadInstantiate,
                "the module cannot be instantiated: it imports a shared memory, and Envoy makes an unshared one for it",
            )
            .envoy("Failed to create new Wasm instance")
            .help("build without threads, or let the module define its memory itself"),
        );
    }
    findings
}

fn import_type(target: &Target, full: &str, module: &FuncType, host: &FuncType) -> Finding {
    let sides = format!("the module wants `{module}`, {target} has `{host}`");
    let why = match full {
        "env.proxy_grpc_call" | "env.proxy_grpc_stream" => {
            "; the shorter type is that of SDKs of early 2020"
        }
        "wasi_snapshot_preview1.path_link" | "wasi_snapshot_preview1.path_symlink" => {
            "; Envoy links these two with one parameter less than WASI has"
        }
        _ => "",
    };
    Finding::error(Rule::LinkImportType, format!("`{full}` is imported with another type: {sides}{why}"))
        .envoy(format!(
            "Failed to load Wasm module due to an import type mismatch: {full}, want: {module}, but host exports: {host}"
        ))
        .help("build with an SDK of the ABI version that the marker names, or mend the declaration of the import")
}

fn missing_import(
    target: &Target,
    abi: Option<AbiVersion>,
    import: &module::Import,
    known: Option<&crate::abi::HostFunction>,
) -> Finding {
    let full = format!("{}.{}", import.module, import.name);
    let (message, help) = match (known, abi) {
        (Some(function), _) if function.since > target.envoy_minor() => (
            format!("{target} does not have `{full}`: Envoy has it since 1.{}", function.since),
            format!(
                "use Envoy 1.{} or newer, or remove what calls it from the module",
                function.since
            ),
        ),
        (Some(function), Some(abi)) => {
            let versions: Vec<_> = function.abis.iter().map(AbiVersion::as_str).collect();
            let versions = versions.join(" and ");
            (
                format!(
                    "{target} does not have `{full}` for modules of ABI {abi}: it belongs to ABI {versions}"
                ),
                format!(
                    "the marker says ABI {abi} and this import says ABI {versions}: build all of the module with one SDK version"
                ),
            )
        }
        _ => (
            format!("{target} does not have `{full}`"),
            import_advice(&import.module, &import.name, &import.kind)
                .unwrap_or("no Envoy release has it: find the dependency that imports it")
                .to_owned(),
        ),
    };
    Finding::error(Rule::LinkMissingImport, message)
        .envoy(format!("Failed to load Wasm module due to a missing import: {full}"))
        .help(help)
}

/// Memories that the engine will not make, and memories that the host will miss.
fn memories(facts: &Facts, target: &Target) -> Vec<Finding> {
    const PAGE_BYTES: u64 = 64 << 10;
    let limit = target.max_memory_bytes() / PAGE_BYTES;
    let mut findings = Vec::new();
    for memory in facts.memories.iter().filter(|memory| memory.initial_pages > limit) {
        findings.push(
            Finding::error(
                Rule::LoadInstantiate,
                format!(
                    "the module cannot be instantiated: it asks for {} pages of memory at the start, and the cap of {target} is {limit} pages ({} MiB)",
                    memory.initial_pages,
                    (limit * PAGE_BYTES) >> 20
                ),
            )
            .envoy("Failed to create new Wasm instance")
            .help("lower the initial memory in the linker's flags"),
        );
    }
    let imports_functions =
        facts.imports.iter().any(|import| matches!(import.kind, ImportKind::Func(_)));
    if !facts.has_reachable_memory() && imports_functions {
        findings.push(
            Finding::warning(
                Rule::HazardCrashesEnvoy,
                "the module neither exports nor imports a memory: Envoy dies of a segmentation fault as soon as a host function needs one",
            )
            .help("export the memory (wasm-ld does unless told otherwise; check --no-export-memory and strip steps)"),
        );
    }
    findings
}

/// Checks exports in the order of `getFunctions`.
fn exports(facts: &Facts, target: &Target, abi: AbiVersion) -> Vec<Finding> {
    let mut findings = Vec::new();
    for export in &facts.exports {
        let what = match &export.kind {
            ExternKind::Tag => Some("an exception tag"),
            ExternKind::Func(ty) if !is_expressible(ty) => Some("a function with v128 or GC types"),
            ExternKind::Global(ty) if !has_name(*ty) => Some("a global of a v128 or GC type"),
            ExternKind::Table(ty) if !has_name(*ty) => Some("a table of a GC type"),
            _ => None,
        };
        if let Some(what) = what {
            findings.push(inexpressible(&format!("exports {what}, `{}`", export.name)));
        }
    }
    let well_typed = |callback: &Callback, findings: &mut Vec<Finding>| {
        let Some(ty) = facts.exported_func(callback.name) else { return false };
        let host = FuncType::parse(callback.signature);
        if *ty != host {
            findings.push(export_type(callback.name, abi, &host, ty));
            return false;
        }
        true
    };
    let has_initialize = facts.exported_func("_initialize").is_some();
    // A wrongly typed `_initialize` counts as absent when `main` or `_start` is looked up.
    let initialize_ok = has_initialize && well_typed(&LIFECYCLE[0], &mut findings);
    for callback in &LIFECYCLE[1..] {
        if target.looks_up(callback) && (callback.name == "_start") != initialize_ok {
            well_typed(callback, &mut findings);
        }
    }
    if !ALLOCATORS.iter().any(|allocator| well_typed(allocator, &mut findings)) {
        let exported = ALLOCATORS.iter().any(|a| facts.exported_func(a.name).is_some());
        if !exported {
            findings.push(
                Finding::error(
                    Rule::LinkAllocator,
                    "the module exports neither `malloc` nor `proxy_on_memory_allocate`, which Envoy needs to hand it data",
                )
                .envoy(NO_MALLOC)
                .help("export one of them: SDKs do, so check that the linker keeps it (C++: -Wl,--export=malloc)"),
            );
        }
    }
    for callback in CALLBACKS {
        if callback.abis.contains(abi) {
            well_typed(callback, &mut findings);
        }
    }
    findings
}

fn export_type(name: &str, abi: AbiVersion, host: &FuncType, module: &FuncType) -> Finding {
    let other = CALLBACKS
        .iter()
        .find(|callback| callback.name == name && FuncType::parse(callback.signature) == *module);
    let why = match other {
        Some(callback) => {
            let versions: Vec<_> = callback.abis.iter().map(AbiVersion::as_str).collect();
            format!("; that is the type of ABI {}", versions.join(" and "))
        }
        None => String::new(),
    };
    Finding::error(
        Rule::LinkExportType,
        format!("`{name}` is exported with the wrong type for ABI {abi}: Envoy wants `{host}`, the module has `{module}`{why}"),
    )
    .envoy(format!("Bad function signature for: {name}, want: {host}, but the module exports: {module}"))
    .help("build the module with one SDK version, whose marker and callbacks fit each other")
}

/// Compares the ABI versions that an image declares with what the module is.
pub fn check_declared_abi(declared: &[String], report: &StaticReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = Vec::new();
    for label in declared {
        match declared_abi(label) {
            Some(abi) => {
                if !abi.canonical {
                    findings.push(Finding::note(
                        Rule::ConfigAbiVersion,
                        format!("the declared ABI version `{label}` is no name of the specification's tools; read as {}", abi.names),
                    ));
                }
                known.push((label, abi));
            }
            None => findings.push(
                Finding::error(
                    Rule::ConfigAbiVersion,
                    format!("the declared ABI version `{label}` is unknown"),
                )
                .help("declare `v0.2.1` for a module that Envoy 1.17 and later load"),
            ),
        }
    }
    // A module without a readable marker is judged for that; the label adds nothing, unless it is
    // the label that explains it.
    let facts = match &report.facts {
        Some(facts) if !known.is_empty() => facts,
        _ => return findings,
    };
    let labels =
        || known.iter().map(|(label, _)| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    let names = || known.iter().map(|(_, abi)| abi.names).collect::<Vec<_>>().join("; ");
    match report.abi {
        None if known.iter().all(|(_, abi)| abi.is_obsolete()) => findings.push(
            Finding::error(
                Rule::ConfigAbiVersion,
                format!(
                    "the declared ABI version {} names {}: an ABI from before the first marker, which no current proxy loads",
                    labels(), names()
                ),
            )
            .help("rebuild the filter with a current SDK and declare `v0.2.1`"),
        ),
        None => {}
        Some(marker) if !known.iter().any(|(_, abi)| abi.accepts(Some(marker))) => {
            let obsolete = known.iter().all(|(_, abi)| abi.is_obsolete());
            let tail = if obsolete { ", an old host that no current proxy is" } else { "" };
            findings.push(
                Finding::error(
                    Rule::ConfigAbiVersion,
                    format!(
                        "the image declares ABI version {} ({}{tail}), but the module is ABI {marker} by its marker",
                        labels(), names()
                    ),
                )
                .help("declare `v0.2.1`, which every Envoy since 1.17 is, or put the module that was meant into the image"),
            );
        }
        Some(marker) => {
            if known.iter().all(|(_, abi)| abi.is_obsolete()) {
                findings.push(
                    Finding::warning(
                        Rule::ConfigAbiVersion,
                        format!(
                            "the image declares only {} ({}), which no current proxy is; the module itself is ABI {marker}",
                            labels(), names()
                        ),
                    )
                    .help("declare `v0.2.1` as well: current proxies load this module"),
                );
            }
            let by_imports = abis_of_imports(facts);
            let fits = known.iter().any(|(_, abi)| abi.markers.iter().any(|m| by_imports.contains(m)));
            if !fits && !by_imports.contains(&marker) {
                let list: Vec<_> = by_imports.iter().map(|abi| abi.as_str()).collect();
                let says = if list.is_empty() { "no single ABI".to_owned() } else { format!("ABI {}", list.join(" or ")) };
                findings.push(
                    Finding::error(
                        Rule::ConfigAbiVersion,
                        format!("the image declares ABI version {}, but the module's imports are those of {says}", labels()),
                    )
                    .help("put the module that was meant into the image, or mend the declaration"),
                );
            }
        }
    }
    findings
}

/// The ABI versions that have every `env.proxy_*` function which the module imports.
fn abis_of_imports(facts: &Facts) -> Vec<AbiVersion> {
    AbiVersion::ALL
        .into_iter()
        .filter(|abi| {
            facts.imports.iter().all(|import| {
                match crate::abi::find_host_function(&import.module, &import.name) {
                    Some((_, function)) => function.abis.contains(*abi),
                    None => true,
                }
            })
        })
        .collect()
}
