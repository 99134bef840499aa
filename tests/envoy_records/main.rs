//! Small modules, each with one fault or feature, against what a real Envoy 1.40 did with them.
//!
//! `edge/` and `more/` hold the modules and the records: whether Envoy accepted the configuration, the
//! class of its refusal, and the statuses of GET, POST and GET.

#[path = "../support/check.rs"]
mod check;

use std::path::{Path, PathBuf};

use filtergate::{
    CheckOptions,
    exercise::Exchange,
    verdict::{Rule, Severity, Verdict},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    name: String,
    file: Option<String>,
    loads: bool,
    class: Option<String>,
    /// `None` where the client got no whole answer.
    statuses: Vec<Option<u32>>,
    #[serde(default)]
    probe_header_added: Option<bool>,
    envoy_messages: Vec<String>,
}

#[derive(Deserialize)]
struct Records {
    modules: Vec<Recorded>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy_records").join(name)
}

fn edge() -> Vec<(Recorded, PathBuf)> {
    let text = std::fs::read_to_string(folder("edge/verdicts.json")).unwrap();
    let records: Vec<Recorded> = serde_json::from_str(&text).unwrap();
    // Bytes too large to keep have no file.
    records
        .into_iter()
        .filter_map(|record| {
            let path = folder("edge").join(record.file.as_ref()?);
            Some((record, path))
        })
        .collect()
}

/// The modules of `more/`, assembled into a scratch folder.
fn more(scratch: &Path) -> Vec<(Recorded, PathBuf)> {
    let text = std::fs::read_to_string(folder("more/envoy-1.40.0.json")).unwrap();
    let records: Records = serde_json::from_str(&text).unwrap();
    records
        .modules
        .into_iter()
        .map(|record| {
            let wat = folder("more").join(format!("{}.wat", record.name));
            let path = scratch.join(format!("{}.wasm", record.name));
            std::fs::write(&path, wat::parse_file(wat).unwrap()).unwrap();
            (record, path)
        })
        .collect()
}

fn check(path: &Path) -> Verdict {
    let options = CheckOptions { exchanges: record_exchanges(), ..CheckOptions::default() };
    check::check(path.to_str().unwrap(), &options)
}

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
    let flagged = verdict.findings.iter().any(|finding| finding.severity != Severity::Note);
    let failed = verdict.findings.iter().any(|finding| finding.severity == Severity::Error);
    let answered: Vec<u32> = case.statuses.iter().flatten().copied().collect();
    if !case.loads {
        expect("fails the gate", failed.to_string(), true.to_string());
    } else if answered.contains(&503) {
        // A filter in these folders that is meant to answer does so with another status.
        expect("fails the gate", failed.to_string(), true.to_string());
    } else if answered.len() < case.statuses.len() {
        expect("is flagged", flagged.to_string(), true.to_string());
    } else if !verdict.undecided {
        expect("statuses", format!("{:?}", statuses(verdict)), format!("{:?}", case.statuses));
    }
    if let (Some(added), true, false) = (case.probe_header_added, case.loads, failed) {
        let upstream =
            verdict.roots.first().and_then(|root| root.exchanges.first()?.upstream.clone());
        if let Some(upstream) = upstream {
            let ours = upstream.headers.iter().any(|(name, _)| name.starts_with("x-probe"));
            expect("probe header", ours.to_string(), added.to_string());
        }
    }
    differences
}

fn assert_all_agree(cases: &[(Recorded, PathBuf)]) {
    let all: Vec<String> =
        cases.iter().flat_map(|(case, path)| differences(case, &check(path))).collect();
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all.join("\n"));
}

#[test]
fn every_edge_module_is_judged_as_envoy_judged_it() {
    let cases = edge();
    assert!(cases.len() >= 100, "only {} cases were read", cases.len());
    assert_all_agree(&cases);
}

#[test]
fn every_further_module_is_judged_as_envoy_judged_it() {
    let scratch = tempfile::tempdir().unwrap();
    let cases = more(scratch.path());
    assert!(cases.len() >= 160, "only {} cases were read", cases.len());
    assert_all_agree(&cases);
}

#[test]
fn what_kills_or_hangs_envoy_is_a_hazard() {
    for (case, path) in edge() {
        let rule = match case.class.as_deref() {
            Some("crash") => Rule::HazardCrashesEnvoy,
            Some("hang") => Rule::HazardHangsEnvoy,
            _ => continue,
        };
        let verdict = check(&path);
        let rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
        assert!(rules.contains(&rule), "{}: {rules:?}", case.name);
    }
}

/// The first line that Envoy logs is among the lines that the verdict gives for its first cause.
#[test]
fn the_verdict_gives_the_lines_that_envoy_logs() {
    let mut compared = 0;
    for (case, path) in edge() {
        let is_reason = |line: &&String| {
            line.starts_with("[error]") && !line.contains("Failed to load Wasm code")
        };
        let Some(line) = case.envoy_messages.iter().find(is_reason) else { continue };
        if case.class.is_none() {
            continue;
        }
        compared += 1;
        let line = line.trim_start_matches("[error] ");
        let verdict = check(&path);
        let said: Vec<_> = verdict.findings.iter().flat_map(|f| &f.envoy_messages).collect();
        assert!(
            said.iter().any(|ours| *ours == line),
            "{}: {line:?} is not in {said:?}",
            case.name
        );
    }
    assert!(compared > 40, "only {compared} lines were compared");
}
