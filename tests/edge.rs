//! The edge modules, each with one fault or feature, against what a real Envoy 1.40 did with them.

use std::path::{Path, PathBuf};

use filtergate::{
    CheckOptions,
    exercise::Exchange,
    image::{NoProgress, Source},
    verdict::{Rule, Severity, Verdict},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    name: String,
    file: Option<String>,
    loads: bool,
    class: Option<String>,
    statuses: Vec<Option<u32>>,
    probe_header_added: bool,
}

fn edge_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edge")
}

fn recorded() -> Vec<Recorded> {
    let text = std::fs::read_to_string(edge_dir().join("verdicts.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn check(path: &Path) -> Verdict {
    let reference = path.to_str().unwrap();
    let source = Source::parse(reference).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = CheckOptions { exchanges: record_exchanges(), ..CheckOptions::default() };
    runtime.block_on(filtergate::check(&source, reference, &options, &NoProgress))
}

/// The record was made with GET, POST, GET.
fn record_exchanges() -> Vec<Exchange> {
    let smoke = filtergate::exercise::smoke_exchanges();
    vec![smoke[0].clone(), smoke[1].clone(), smoke[0].clone()]
}

fn statuses(verdict: &Verdict) -> Vec<Option<u32>> {
    verdict.roots.first().map_or(Vec::new(), |root| {
        root.exchanges.iter().map(|e| e.response.as_ref().map(|r| r.status)).collect()
    })
}

/// What differs from the record, in words.
fn differences(case: &Recorded, verdict: &Verdict) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |what: &str, ours: String, envoy: String| {
        if ours != envoy {
            differences.push(format!("{}: {what}: here {ours}, Envoy {envoy}", case.name));
        }
    };
    expect("loads", format!("{:?}", verdict.loads), format!("{:?}", Some(case.loads)));
    expect("class", format!("{:?}", verdict.envoy_class), format!("{:?}", case.class.as_deref()));
    let errors =
        verdict.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let served = !case.statuses.is_empty() && case.statuses.iter().all(|s| *s == Some(200));
    expect("fails the gate", (errors > 0).to_string(), (!case.loads || !served).to_string());
    if case.loads && served && !verdict.undecided {
        expect("statuses", format!("{:?}", statuses(verdict)), format!("{:?}", case.statuses));
        let added = verdict.roots[0].exchanges[0]
            .upstream
            .as_ref()
            .is_some_and(|seen| seen.headers.iter().any(|(name, _)| name.starts_with("x-probe")));
        expect("probe header", added.to_string(), case.probe_header_added.to_string());
    }
    differences
}

#[test]
fn every_edge_module_is_judged_as_envoy_judged_it() {
    let mut all = Vec::new();
    let mut judged = 0;
    for case in recorded() {
        // Bytes too large to keep are made by the note in the record.
        let Some(file) = &case.file else { continue };
        judged += 1;
        let verdict = check(&edge_dir().join(file));
        all.extend(differences(&case, &verdict));
    }
    assert!(judged >= 100, "only {judged} cases were judged");
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all.join("\n"));
}

#[test]
fn what_kills_or_hangs_envoy_is_a_hazard() {
    for case in recorded() {
        let rule = match case.class.as_deref() {
            Some("crash") => Rule::HazardCrashesEnvoy,
            Some("hang") => Rule::HazardHangsEnvoy,
            _ => continue,
        };
        let Some(file) = &case.file else { continue };
        let verdict = check(&edge_dir().join(file));
        let rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
        assert!(rules.contains(&rule), "{}: {rules:?}", case.name);
    }
}
