//! `verify_signature` and `sign` against what real Envoys answered: a call for each line of
//! `signatures.txt`, with keys of each kind, each hash function, and arguments that are none.

#[path = "support/check.rs"]
mod check;

use std::path::Path;

use filtergate::{CheckOptions, verdict::Rule};

fn assert_as_recorded(target: &str, record: &str) {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt/probe-foreign.wasm");
    let mut options = CheckOptions {
        target: target.parse().unwrap(),
        exchanges: Vec::new(),
        controls: false,
        ..CheckOptions::default()
    };
    options.plugin.configuration = include_bytes!("data/foreign/signatures.txt").to_vec();
    let verdict = check::check(module.to_str().unwrap(), &options);
    let ours = verdict.roots[0].logs.iter().map(|line| line.message.trim_end());
    let theirs: Vec<_> = record.lines().skip(1).collect();
    let different: Vec<_> = ours
        .clone()
        .zip(&theirs)
        .enumerate()
        .filter(|(_, (ours, theirs))| ours != *theirs)
        .collect();
    assert!(different.is_empty(), "{target}, here and in Envoy: {different:#?}");
    assert_eq!(ours.count(), theirs.len());
    assert!(theirs.len() > 60, "the record is short");
    assert!(!verdict.findings.iter().any(|finding| finding.rule == Rule::HostNotModelled));
}

#[test]
fn signatures_are_those_of_envoy_1_40() {
    assert_as_recorded("envoy:1.40", include_str!("data/foreign/signatures-envoy-1.40.0.log"));
}

#[test]
fn signatures_are_those_of_envoy_1_36() {
    assert_as_recorded("envoy:1.36", include_str!("data/foreign/signatures-envoy-1.36.4.log"));
}
