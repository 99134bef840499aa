//! The filter `probe-script` takes each course of `tests/data/scripts`. What it logs, what the client gets and
//! what reaches the upstream is compared, line for line, with what it was in real Envoys.

#[path = "support/check.rs"]
mod check;
#[path = "support/courses.rs"]
mod courses;

use std::{collections::BTreeMap, fs, path::Path};

use filtergate::{CheckOptions, parity, verdict::Rule};

fn assert_as_recorded(target: &str, release: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for suite in courses::SUITES {
        let file = root.join(format!("tests/data/scripts/{}-envoy-{release}.txt", suite.name));
        let record = fs::read_to_string(&file).unwrap();
        let mut recorded: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut section = "";
        for line in record.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("@ ") {
                Some(name) => section = name,
                None => recorded.entry(section).or_default().push(line.to_owned()),
            }
        }
        let scenarios = suite.scenarios();
        assert_eq!(recorded.len(), scenarios.len(), "{} is of other scenarios", file.display());
        let module = root.join("filters/prebuilt/probe-script.wasm");
        let options = suite.options(target.parse().unwrap());
        let verdict = check::check(module.to_str().unwrap(), &options);
        let ours = &verdict.roots[0].exchanges;
        assert_eq!(ours.len(), scenarios.len(), "{:?}", verdict.findings);
        let different = scenarios.iter().zip(ours).filter_map(|(scenario, ours)| {
            let logged = ours.logs.iter().map(|line| line.message.clone());
            let lines = courses::lines(logged, &parity::our_request(ours, None));
            courses::difference(&scenario.name, &lines, &recorded[scenario.name.as_str()])
        });
        let different: Vec<_> = different.collect();
        assert!(different.is_empty(), "{target}, {}:\n{}", suite.name, different.join("\n"));
    }
}

#[test]
fn courses_of_a_stream_are_those_of_envoy_1_40() {
    assert_as_recorded("envoy:1.40", "1.40.0");
}

#[test]
fn courses_of_a_stream_are_those_of_envoy_1_36() {
    assert_as_recorded("envoy:1.36", "1.36.4");
}

/// A known one: tetratelabs/proxy-wasm-go-sdk issue 417.
#[test]
fn a_response_that_has_not_begun_cannot_be_resumed() {
    let exchange = courses::exchange("get request_headers:continue=1");
    let options =
        CheckOptions { controls: false, exchanges: vec![exchange], ..CheckOptions::default() };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let module = root.join("filters/prebuilt/probe-script.wasm");
    let verdict = check::check(module.to_str().unwrap(), &options);
    let rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::HazardCrashesEnvoy]);
}
