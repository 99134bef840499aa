//! Which wasm proposals an Envoy's V8 takes: a module for each, what real Envoys did with it, and
//! what the targets say.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use filtergate::{
    CheckOptions,
    image::{Image, Source},
    module::{PROPOSALS, needed_proposals},
    parity::{self, Envoy, Setup},
    target::{Evidence, RELEASES, Target},
    verdict::{Outcome, Rule, Verdict},
};

/// What is in WebAssembly 2.0, and so on in every V8 of the tables.
const WASM2: [&str; 7] = [
    "bulk-memory",
    "multi-value",
    "mutable-global",
    "reference-types",
    "saturating-float-to-int",
    "sign-extension",
    "simd",
];

#[derive(serde::Deserialize)]
struct Recorded {
    envoy: String,
    v8: String,
    takes: BTreeSet<String>,
    refuses: BTreeSet<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/proposals")
}

fn recorded() -> Vec<Recorded> {
    serde_json::from_slice(&std::fs::read(folder().join("envoy.json")).unwrap()).unwrap()
}

fn modules() -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "wat"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, wat::parse_file(&path).unwrap_or_else(|error| panic!("{error}")))
        })
        .collect()
}

/// Whether the tables say that the target takes the module of this name.
fn takes(target: &Target, name: &str) -> bool {
    WASM2.contains(&name)
        || PROPOSALS.iter().any(|proposal| proposal.name == name && target.has_proposal(proposal))
}

fn judge(name: &str, wasm: &[u8], target: &Target) -> Verdict {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join(format!("{name}.wasm"));
    std::fs::write(&path, wasm).unwrap();
    let source = Source::parse(path.to_str().unwrap()).unwrap();
    let options = CheckOptions { target: target.clone(), ..CheckOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let progress = filtergate::image::NoProgress;
    let fetched = filtergate::image::fetch(&source, name, &options.fetch, &progress);
    let image: Image = runtime.block_on(fetched).unwrap();
    filtergate::judge(&image, &options)
}

#[test]
fn there_is_a_module_for_each_proposal_that_needs_it() {
    let modules = modules();
    let known: BTreeSet<_> = PROPOSALS.iter().map(|proposal| proposal.name).chain(WASM2).collect();
    assert_eq!(modules.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
    for (name, wasm) in &modules {
        let needed: Vec<_> =
            needed_proposals(wasm).into_iter().map(|proposal| proposal.name).collect();
        if WASM2.contains(&name.as_str()) {
            assert!(needed.is_empty(), "{name}: {needed:?}");
        } else if takes(&Target::default(), name) {
            assert!(needed.contains(&name.as_str()), "{name}: {needed:?}");
        }
    }
}

#[test]
fn the_tables_say_what_envoys_did() {
    let recorded = recorded();
    for row in &recorded {
        let target: Target = format!("envoy:{}", row.envoy).parse().unwrap();
        assert_eq!(target.v8(), row.v8, "{target}");
        for (names, taken) in [(&row.takes, true), (&row.refuses, false)] {
            for name in names {
                assert_eq!(takes(&target, name), taken, "{name} in {target}");
            }
        }
        assert_eq!(row.takes.len() + row.refuses.len(), modules().len(), "{target}");
    }
    // What the tables call measured was measured, and nothing else.
    for release in RELEASES {
        let (Evidence::Measured(envoy) | Evidence::SameV8(envoy)) = release.evidence else {
            continue;
        };
        let row = recorded.iter().find(|row| row.envoy == envoy).expect(envoy);
        assert_eq!(row.v8, release.v8, "envoy:1.{}", release.minor);
        let itself = envoy.starts_with(&format!("1.{}.", release.minor));
        assert_eq!(itself, matches!(release.evidence, Evidence::Measured(_)), "{envoy}");
    }
}

#[test]
fn verdicts_are_those_of_the_envoys() {
    for target in ["envoy:1.36", "envoy:1.40"].map(|name| name.parse().unwrap()) {
        for (name, wasm) in modules() {
            let verdict = judge(&name, &wasm, &target);
            assert_eq!(verdict.loads, Some(takes(&target, &name)), "{name} in {target}");
            let rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
            if verdict.loads == Some(false) {
                assert!(rules.contains(&Rule::ModuleFeature), "{name} in {target}: {rules:?}");
            }
        }
    }
}

#[test]
fn what_was_not_measured_is_said() {
    for (target, name, outcome, count) in [
        ("envoy:1.30", "simd", Outcome::Pass, 0),
        ("envoy:1.30", "threads", Outcome::Pass, 1),
        ("envoy:1.30", "tail-call", Outcome::Undecided, 1),
        ("envoy:1.33.5", "tail-call", Outcome::Undecided, 1),
        ("envoy:1.33.6", "tail-call", Outcome::Pass, 1),
        ("istio:1.25", "memory64", Outcome::Undecided, 1),
        ("envoy:1.35", "tail-call", Outcome::Pass, 0),
        ("envoy:1.30", "wide-arithmetic", Outcome::Fail, 1),
    ] {
        let target: Target = target.parse().unwrap();
        let verdict = judge(name, &modules()[name], &target);
        assert_eq!(verdict.outcome, outcome, "{name} in {target}");
        let of_features =
            verdict.findings.iter().filter(|finding| finding.rule == Rule::ModuleFeature);
        assert_eq!(of_features.count(), count, "{name} in {target}");
        if outcome == Outcome::Undecided {
            assert_eq!(verdict.loads, None, "{name} in {target}");
        }
    }
}

#[test]
fn a_real_envoy_takes_what_the_tables_say() {
    let Some(binary) = support::needs("FILTERGATE_ENVOY", "the path of an Envoy") else { return };
    let binary = Path::new(&binary);
    let release = parity::release(binary).unwrap();
    let (mut taken, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for (name, wasm) in modules() {
        let setup = Setup { module: Some(wasm), ..Setup::default() };
        let envoy = Envoy::start(binary, &setup).unwrap();
        if envoy.loads() { &mut taken } else { &mut refused }.insert(name);
    }
    println!("{}", serde_json::json!({"envoy": release, "takes": taken, "refuses": refused}));
    let target: Target = format!("envoy:{release}").parse().unwrap();
    let said: BTreeSet<_> = modules().into_keys().filter(|name| takes(&target, name)).collect();
    assert_eq!(taken, said, "{target}");
}
