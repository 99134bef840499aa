//! What a target says of a module's imports, exports and memories
//! (proxy-wasm-cpp-host `src/v8/v8.cc`, `link`, and `src/wasm.cc`, `getFunctions`).

use crate::{
    abi::{ALLOCATORS, AbiVersion, CALLBACKS, Callback, FuncType, LIFECYCLE, ValueType},
    module::{ExternKind, Facts, Import, import_advice},
    target::{ImportAnswer, Target},
};

use super::{finding::Finding, rule::Rule};

const NO_MALLOC: &str = "Wasm VM failed Wasm module is missing malloc function.";

/// Checks imports, in their order. Without a marker the ABI is unknown, and only what no ABI offers is
/// reported.
pub(super) fn imports(facts: &Facts, target: &Target, abi: Option<AbiVersion>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // V8's C API ends the process on types that it cannot express, before any import is resolved.
    for import in &facts.imports {
        if let Some(what) = inexpressible(&import.kind) {
            findings.push(ends_the_process(&format!("imports {what}, `{}`", import.full_name())));
        }
    }
    let mut seen = std::collections::HashSet::new();
    for import in &facts.imports {
        let full = import.full_name();
        let ty = match &import.kind {
            ExternKind::Func(ty) => ty,
            ExternKind::Global(_) => {
                findings.push(
                    Finding::error(
                        Rule::LinkMissingImport,
                        format!("`{full}` is an imported global; {target} offers none"),
                    )
                    .envoy(missing_import_line(&full))
                    .help(
                        import_advice(&import.module, &import.name, &import.kind)
                            .unwrap_or_default(),
                    ),
                );
                continue;
            }
            // The host makes a memory or table with the module's own limits.
            ExternKind::Memory(_) | ExternKind::Table(_) | ExternKind::Tag => continue,
        };
        if !seen.insert((full.clone(), ty.clone())) {
            continue;
        }
        match abi {
            Some(abi) => match target.import(abi, &import.module, &import.name, ty) {
                ImportAnswer::Linked(_) => {}
                ImportAnswer::OtherType(host) => {
                    findings.push(import_type(target, &full, ty, &host));
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

/// What of an import or export V8's C API has no type for.
fn inexpressible(kind: &ExternKind) -> Option<&'static str> {
    match kind {
        ExternKind::Tag => Some("an exception tag"),
        ExternKind::Func(ty) if !is_expressible(ty) => Some("a function with v128 or GC types"),
        ExternKind::Global(ty) if !has_name(*ty) => Some("a global of a v128 or GC type"),
        ExternKind::Table(table) if !has_name(table.element) => Some("a table of a GC type"),
        _ => None,
    }
}

/// A module that "imports a global of …" for which V8's C API has no type.
fn ends_the_process(what: &str) -> Finding {
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
pub(super) fn host_made(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let memories = facts.imports.iter().filter(|i| matches!(i.kind, ExternKind::Memory(_))).count();
    let tables = facts.imports.iter().filter(|i| matches!(i.kind, ExternKind::Table(_))).count();
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
    if facts.imports.iter().any(|i| matches!(i.kind, ExternKind::Memory(memory) if memory.shared)) {
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
    import: &Import,
    known: Option<&crate::abi::HostFunction>,
) -> Finding {
    let full = import.full_name();
    let (message, help) = match (known, abi) {
        (Some(function), _) if function.since > target.envoy_minor() => (
            format!("{target} does not have `{full}`: Envoy has it since 1.{}", function.since),
            format!(
                "use Envoy 1.{} or newer, or remove what calls it from the module",
                function.since
            ),
        ),
        (Some(function), Some(abi)) => {
            let versions = function.abis;
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
    Finding::error(Rule::LinkMissingImport, message).envoy(missing_import_line(&full)).help(help)
}

fn missing_import_line(full: &str) -> String {
    format!("Failed to load Wasm module due to a missing import: {full}")
}

/// Memories that the engine will not make, and memories that the host will miss.
pub(super) fn memories(facts: &Facts, target: &Target) -> Vec<Finding> {
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
    if !facts.has_reachable_memory() && facts.imports_functions() {
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
pub(super) fn exports(facts: &Facts, target: &Target, abi: AbiVersion) -> Vec<Finding> {
    let mut findings = Vec::new();
    for export in &facts.exports {
        if let Some(what) = inexpressible(&export.kind) {
            findings.push(ends_the_process(&format!("exports {what}, `{}`", export.name)));
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
        if target.looks_up(callback.name) && (callback.name == "_start") != initialize_ok {
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
        Some(callback) => format!("; that is the type of ABI {}", callback.abis),
        None => String::new(),
    };
    Finding::error(
        Rule::LinkExportType,
        format!("`{name}` is exported with the wrong type for ABI {abi}: Envoy wants `{host}`, the module has `{module}`{why}"),
    )
    .envoy(format!("Bad function signature for: {name}, want: {host}, but the module exports: {module}"))
    .help("build the module with one SDK version, whose marker and callbacks fit each other")
}
