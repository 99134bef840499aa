//! The tables against the facts that they were made from, and the linker against the tables.

#[path = "support/check.rs"]
mod check;

use std::fmt::Write as _;

use filtergate::{
    CheckOptions,
    abi::{AbiVersion, CALLBACKS, FuncType, HOST_FUNCTIONS, ValueType},
    target::{ImportAnswer, RELEASES, Target},
    verdict::Outcome,
};
use serde_json::Value;

fn facts() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/abi/abi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn func_type(function: &Value) -> FuncType {
    let types = |key: &str| {
        function[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|ty| match ty.as_str().unwrap() {
                "i32" => ValueType::I32,
                "i64" => ValueType::I64,
                other => panic!("unknown type {other}"),
            })
            .collect()
    };
    FuncType { params: types("params"), results: types("results") }
}

/// Every function of the facts as `(module, name, type, ABI versions)`.
fn functions() -> Vec<(&'static str, String, FuncType, Vec<AbiVersion>)> {
    let facts = facts();
    let mut all = Vec::new();
    for (key, modules) in [
        ("host_functions", &["env"][..]),
        ("env_other_functions", &["env"]),
        ("wasi", &["wasi_unstable", "wasi_snapshot_preview1"]),
    ] {
        for function in facts[key].as_array().unwrap() {
            let abis = AbiVersion::ALL
                .into_iter()
                .filter(|abi| {
                    function.get("linked_for_abi").is_none_or(|linked| linked[abi.as_str()] == true)
                })
                .collect::<Vec<_>>();
            for module in modules {
                let name = function["name"].as_str().unwrap().to_owned();
                all.push((*module, name, func_type(function), abis.clone()));
            }
        }
    }
    all
}

#[test]
fn every_function_is_linked_with_its_type_for_its_abi_versions_only() {
    let target = Target::default();
    let functions = functions();
    assert_eq!(functions.len(), 40 + 1 + 2 + 3 + 2 * 45);
    for (module, name, ty, abis) in &functions {
        for abi in AbiVersion::ALL {
            let answer = target.import(abi, module, name, ty);
            let linked = matches!(answer, ImportAnswer::Linked(_));
            assert_eq!(linked, abis.contains(&abi), "{module}.{name} for {abi}");
        }
    }
    let names: std::collections::HashSet<_> =
        functions.iter().map(|(_, name, ..)| name.as_str()).collect();
    for function in HOST_FUNCTIONS {
        assert!(names.contains(function.name), "{} is not in the facts", function.name);
    }
}

#[test]
fn callbacks_have_their_types() {
    let facts = facts();
    for abi in AbiVersion::ALL {
        let listed = facts["callbacks"][abi.as_str()].as_array().unwrap();
        let ours: Vec<_> =
            CALLBACKS.iter().filter(|callback| callback.abis.contains(abi)).collect();
        assert_eq!(ours.len(), listed.len(), "{abi}");
        for callback in ours {
            let fact = listed.iter().find(|fact| fact["name"] == callback.name);
            let fact = fact.unwrap_or_else(|| panic!("{} is not in the facts", callback.name));
            assert_eq!(FuncType::parse(callback.signature), func_type(fact), "{}", callback.name);
        }
    }
}

#[test]
fn every_release_has_its_functions_and_allow_lists() {
    let facts = facts();
    let mut releases = 0;
    for release in facts["releases"].as_array().unwrap() {
        let version = release["envoy"].as_str().unwrap();
        let minor = version.split('.').nth(1).unwrap();
        let Ok(target) = format!("envoy:1.{minor}").parse::<Target>() else { continue };
        releases += 1;
        let has = |key: &str, name: &str| {
            release[key].as_array().unwrap().iter().any(|listed| listed == name)
        };
        for (index, function) in HOST_FUNCTIONS.iter().enumerate() {
            let module = function.namespace.modules().last().unwrap();
            let expected = match (*module, function.name.starts_with("proxy_")) {
                ("env", true) => true,
                ("env", false) => has("env", function.name),
                _ => has("wasi", function.name),
            };
            assert_eq!(
                target.links(function, AbiVersion::V0_2_1),
                expected && function.abis.contains(AbiVersion::V0_2_1),
                "{} in {version}",
                function.name
            );
            let full = format!("{module}.{}", function.name);
            let free = release["restricted"] != true;
            for (list, allowed) in [
                ("start_allowlist", target.start_allow_list()),
                ("malloc_allowlist", target.malloc_allow_list()),
            ] {
                assert_eq!(
                    allowed & (1 << index) != 0,
                    free || has(list, &full),
                    "{full} in the {list} of {version}"
                );
            }
        }
    }
    assert!(releases >= 19, "only {releases} releases were compared");
}

#[test]
fn every_release_has_its_engine_and_limits() {
    for fact in facts()["releases"].as_array().unwrap() {
        let version = fact["envoy"].as_str().unwrap();
        let minor: u8 = version.split('.').nth(1).unwrap().parse().unwrap();
        let Some(release) = RELEASES.iter().find(|release| release.minor == minor) else {
            continue;
        };
        assert_eq!(fact["v8"], release.v8, "{version}");
        assert!(fact["host"].as_str().unwrap().starts_with(release.host), "{version}");
        assert_eq!(fact["restricted"], release.restricts_start, "{version}");
        assert_eq!(fact["main_void"], release.runs_main_void, "{version}");
        // Without V8's flag a memory may have all pages that there are.
        let pages = fact["max_memory_pages"].as_u64().unwrap_or(65_536);
        assert_eq!(pages, u64::from(release.max_memory_pages), "{version}");
        // The facts are older than the release of 1.40.
        if let Some(date) = release.date {
            assert_eq!(fact["date"], date, "{version}");
        }
    }
}

/// A module that imports everything that its ABI has links, loads and serves.
#[test]
fn a_module_that_imports_everything_loads() {
    for abi in AbiVersion::ALL {
        let mut imports = String::new();
        let mut count = 0;
        for (module, name, ty, abis) in functions() {
            if !abis.contains(&abi) {
                continue;
            }
            count += 1;
            let list = |keyword: &str, types: &[ValueType]| {
                types.iter().fold(String::new(), |mut text, ty| {
                    write!(text, " ({keyword} {})", ty.envoy_name()).unwrap();
                    text
                })
            };
            writeln!(
                imports,
                r#"(import "{module}" "{name}" (func{}{}))"#,
                list("param", &ty.params),
                list("result", &ty.results)
            )
            .unwrap();
        }
        assert!(count > 120, "only {count} functions for {abi}");
        let wat = format!(
            r#"(module {imports} (memory (export "memory") 1)
            (func (export "malloc") (param i32) (result i32) (i32.const 1024))
            (func (export "{}")))"#,
            abi.marker()
        );
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("everything.wasm");
        std::fs::write(&path, wat::parse_str(&wat).unwrap()).unwrap();
        let reference = path.to_str().unwrap();
        let verdict = check::check(reference, &CheckOptions::default());
        assert_eq!(
            (verdict.outcome, verdict.loads),
            (Outcome::Pass, Some(true)),
            "{abi}: {:?}",
            verdict.findings
        );
    }
}
