//! The filter `probe-script` takes each course of `scenarios.txt`. What it logs, what the client gets and
//! what reaches the upstream is compared, line for line, with what it was in real Envoys.

#[path = "support/check.rs"]
mod check;
#[path = "support/courses.rs"]
mod courses;

use std::{collections::BTreeMap, path::Path};

use filtergate::{CheckOptions, parity};

fn assert_as_recorded(target: &str, record: &str) {
    let mut recorded: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut section = "";
    for line in record.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("@ ") {
            Some(name) => section = name,
            None => recorded.entry(section).or_default().push(line.to_owned()),
        }
    }
    let scenarios = courses::scenarios();
    assert_eq!(recorded.len(), scenarios.len(), "the record is of other scenarios");
    let options = CheckOptions {
        target: target.parse().unwrap(),
        controls: false,
        exchanges: scenarios.iter().map(|scenario| scenario.exchange.clone()).collect(),
        ..CheckOptions::default()
    };
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt/probe-script.wasm");
    let verdict = check::check(module.to_str().unwrap(), &options);
    let ours = &verdict.roots[0].exchanges;
    assert_eq!(ours.len(), scenarios.len(), "{:?}", verdict.findings);
    let different = scenarios.iter().zip(ours).filter_map(|(scenario, ours)| {
        let logged = ours.logs.iter().map(|line| line.message.clone());
        let lines = courses::lines(logged, &parity::our_request(ours, None));
        courses::difference(&scenario.name, &lines, &recorded[scenario.name.as_str()])
    });
    let different: Vec<_> = different.collect();
    assert!(different.is_empty(), "{target}:\n{}", different.join("\n"));
}

#[test]
fn courses_of_a_stream_are_those_of_envoy_1_40() {
    assert_as_recorded("envoy:1.40", include_str!("data/scripts/envoy-1.40.0.txt"));
}

#[test]
fn courses_of_a_stream_are_those_of_envoy_1_36() {
    assert_as_recorded("envoy:1.36", include_str!("data/scripts/envoy-1.36.4.txt"));
}
