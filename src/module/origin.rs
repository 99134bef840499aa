//! Which toolchain and SDK a module was built with, from what toolchains leave in it.

use super::facts::{ExternKind, Facts};

/// Where a module comes from, as far as it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The language: `Rust`, `C++`, `TinyGo`, `Go`, `AssemblyScript`, `Zig`, `C`.
    pub language: Option<&'static str>,
    /// The tool and its version, as the module's `producers` section has it.
    pub toolchain: Option<String>,
}

/// Guesses a module's origin. For people only: no verdict depends on it.
pub fn origin(facts: &Facts) -> Origin {
    let producer = |field: &str, name: &str| {
        facts
            .producers
            .iter()
            .find(|(f, n, _)| f == field && n.eq_ignore_ascii_case(name))
            .map(|(_, n, version)| format!("{n} {version}").trim().to_owned())
    };
    let exports = |name: &str| facts.exports.iter().any(|export| export.name == name);
    let imports = |name: &str| facts.imports.iter().any(|import| import.name == name);
    let imports_from = |prefix: &str| {
        facts
            .imports
            .iter()
            .any(|import| import.module.starts_with(prefix) || import.name.starts_with(prefix))
    };

    let rustc = producer("processed-by", "rustc");
    if rustc.is_some() || producer("language", "Rust").is_some() {
        return Origin { language: Some("Rust"), toolchain: rustc };
    }
    if let Some(tinygo) = producer("processed-by", "TinyGo") {
        return Origin { language: Some("TinyGo"), toolchain: Some(tinygo) };
    }
    if imports_from("runtime.") || exports("resume") && exports("go_scheduler") {
        return Origin { language: Some("TinyGo"), toolchain: None };
    }
    if facts.custom_sections.iter().any(|name| name == "go:buildid" || name == "go.buildid") {
        let go = producer("language", "Go").or_else(|| producer("processed-by", "Go cmd/compile"));
        return Origin { language: Some("Go"), toolchain: go };
    }
    if let Some(go) = producer("language", "Go") {
        return Origin { language: Some("Go"), toolchain: Some(go) };
    }
    if exports("abort_proc_exit")
        || exports("__new") && exports("__collect")
        || exports("__alloc") && exports("__retain")
        || imports("abort") && imports_from("env") && facts.producers.is_empty()
        || facts.custom_sections.iter().any(|name| name == "sourceMappingURL")
            && facts.producers.is_empty()
    {
        return Origin { language: Some("AssemblyScript"), toolchain: None };
    }
    let clang = producer("processed-by", "clang");
    if exports("emscripten_stack_get_current")
        || exports("_emscripten_stack_restore")
        || exports("stackSave")
        || imports("emscripten_notify_memory_growth")
    {
        return Origin { language: Some("C++"), toolchain: clang };
    }
    if let Some(zig) = producer("processed-by", "Zig") {
        return Origin { language: Some("Zig"), toolchain: Some(zig) };
    }
    if producer("language", "C_plus_plus").is_some()
        || producer("language", "C_plus_plus_14").is_some()
    {
        return Origin { language: Some("C++"), toolchain: clang };
    }
    if producer("language", "C11").is_some() || producer("language", "C99").is_some() {
        return Origin { language: Some("C"), toolchain: clang };
    }
    Origin { language: None, toolchain: clang }
}

/// What a foreign import says about how a module was built, and what to do about it.
pub fn import_advice(module: &str, name: &str, kind: &ExternKind) -> Option<&'static str> {
    if kind.func().is_none() {
        return matches!(kind, ExternKind::Global(_)).then_some(
            "Envoy offers no globals: build without dynamic linking or `--import-*` flags",
        );
    }
    Some(match (module, name) {
        ("env", "abort") => {
            "AssemblyScript's default abort: compile with `--use abort=abort_proc_exit` (with the SDK) or `--use abort=`"
        }
        ("env", name) if name.starts_with("syscall/js.") => {
            "built for JavaScript hosts: with TinyGo use `-target=wasi` (or `wasip1`), and no net/http or syscall/js"
        }
        ("env", name) if name.starts_with("runtime.") => {
            "TinyGo's JavaScript target: use `-target=wasi` (or `wasip1`)"
        }
        ("gojs" | "go", _) => {
            "Go's JavaScript target: use `GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared`"
        }
        ("__wbindgen_placeholder__" | "__wbindgen_externref_xform__" | "wbg", _) => {
            "wasm-bindgen glue: a dependency (often chrono, getrandom, time or uuid) has its JavaScript feature on; turn that feature off or build for wasm32-wasip1"
        }
        ("env", "HaveOffsetConverter") => {
            "an emscripten JavaScript helper: link with `-s STANDALONE_WASM=1` and without `-g`, or define it in the module"
        }
        ("env", name)
            if name.starts_with("emscripten_")
                || name.starts_with("invoke_")
                || name.starts_with("__cxa_")
                || name.starts_with("_emscripten_") =>
        {
            "emscripten's JavaScript runtime: link with `-s STANDALONE_WASM=1` (and `-fno-exceptions`)"
        }
        ("env", name) if name.starts_with("__syscall") => {
            "an emscripten system call: link with `-s STANDALONE_WASM=1`, and drop file or socket use"
        }
        ("wasi_snapshot_preview1" | "wasi_unstable", _) => {
            "a WASI function that the target does not have: a dependency uses files, sockets or threads; remove it, or define the function in the module"
        }
        (module, _) if module.starts_with("wasi:") => {
            "WASI preview 2: Envoy takes core modules with WASI preview 1; build for wasm32-wasip1, not wasip2"
        }
        (module, _) if module.starts_with("wasm:") => {
            "a JavaScript built-in: build without js-string or similar built-ins"
        }
        ("env", name) if name.starts_with("proxy_") => {
            "another host's extension of Proxy-Wasm, or a newer ABI than the target's"
        }
        ("env", _) => {
            "an undefined symbol at link time: link the library that defines it, or drop `--allow-undefined`"
        }
        _ => return None,
    })
}
