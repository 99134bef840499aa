//! The filter `probe-calls` calls services in every way and logs what comes of it. Its log is compared,
//! line for line, with those that it left in real Envoys with the clusters of `environment.json`.

#[path = "support/check.rs"]
mod check;

use std::{collections::BTreeSet, path::Path};

use filtergate::{
    CheckOptions,
    exercise::{Exchange, Request, Upstream},
    verdict::Rule,
};

/// The sections of a record: the path of a request, and what the filter logged on it.
fn sections(record: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in record.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("@ ") {
            Some(name) => sections.push((name, Vec::new())),
            None => sections.last_mut().unwrap().1.push(line),
        }
    }
    sections
}

fn exchange(name: &str) -> Exchange {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Exchange {
        name: name.to_owned(),
        request: Request {
            method: "GET".to_owned(),
            path: format!("/{name}"),
            host: "example.com".to_owned(),
            headers: vec![pair("user-agent", "filtergate"), pair("accept", "*/*")],
            frames: Vec::new(),
            trailers: Vec::new(),
            abandoned: false,
        },
        upstream: Upstream::Echo,
        metadata: Vec::new(),
    }
}

/// The record has 0 for the time that the upstream took.
fn without_time(line: &str) -> String {
    let header = "x-envoy-upstream-service-time: ";
    let line = line.trim_end();
    let Some((before, after)) = line.split_once(header) else { return line.to_owned() };
    format!("{before}{header}0{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

fn assert_as_recorded(target: &str, record: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sections = sections(record);
    assert!(sections.len() > 20, "the record is short");
    let environment = include_str!("data/calls/environment.json");
    let options = CheckOptions {
        target: target.parse().unwrap(),
        controls: false,
        environment: serde_json::from_str(environment).unwrap(),
        exchanges: sections.iter().map(|(name, _)| exchange(name)).collect(),
        ..CheckOptions::default()
    };
    let module = root.join("filters/prebuilt/probe-calls.wasm");
    let verdict = check::check(module.to_str().unwrap(), &options);
    let mut different = Vec::new();
    for ((name, theirs), exchange) in sections.iter().zip(&verdict.roots[0].exchanges) {
        let ours: Vec<_> = exchange.logs.iter().map(|line| without_time(&line.message)).collect();
        for at in 0..ours.len().max(theirs.len()) {
            let (ours, theirs) = (ours.get(at).map(String::as_str), theirs.get(at).copied());
            if ours != theirs {
                different.push(format!("{name} {at}\n  here  {ours:?}\n  Envoy {theirs:?}"));
                break;
            }
        }
    }
    assert!(different.is_empty(), "{target}:\n{}", different.join("\n"));
    assert_eq!(verdict.roots[0].exchanges.len(), sections.len());
    let unknown: BTreeSet<_> = verdict
        .findings
        .iter()
        .filter(|finding| finding.rule == Rule::HostUnknownCluster)
        .map(|finding| finding.message.as_str())
        .collect();
    assert!(unknown.iter().any(|message| message.contains("`unknown`")), "{unknown:?}");
}

#[test]
fn calls_come_back_as_in_envoy_1_40() {
    assert_as_recorded("envoy:1.40", include_str!("data/calls/envoy-1.40.0.txt"));
}

#[test]
fn calls_come_back_as_in_envoy_1_36() {
    assert_as_recorded("envoy:1.36", include_str!("data/calls/envoy-1.36.4.txt"));
}
