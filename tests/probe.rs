//! The probe filter calls every host function in every phase and logs each result. Its log is compared,
//! line for line, with the one that it left in a real Envoy 1.40.

#[path = "support/check.rs"]
mod check;

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use filtergate::{
    CheckOptions,
    exercise::{Exchange, Request, Upstream},
    host::{LogLevel, LogLine},
    verdict::Outcome,
};

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn recorded() -> BTreeMap<String, Vec<String>> {
    let file = std::fs::File::open(path("tests/data/probe/envoy-1.40.0.txt.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut sections = BTreeMap::<String, Vec<String>>::new();
    let mut section = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("@ ") {
            Some(name) => section = name.to_owned(),
            None => sections.entry(section.clone()).or_default().push(line.to_owned()),
        }
    }
    sections
}

fn exchanges() -> Vec<Exchange> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let body = "0123456789abcdef".repeat(4);
    let exchange = |name: &str,
                    method: &str,
                    path: &str,
                    more: &[(&str, &str)],
                    frames: &[&str]| {
        let common =
            [pair("user-agent", "filtergate"), pair("accept", "*/*"), pair("x-probe-in", "in")];
        Exchange {
            name: name.to_owned(),
            request: Request {
                method: method.to_owned(),
                path: path.to_owned(),
                host: "example.com".to_owned(),
                headers: common.into_iter().chain(more.iter().map(|(n, v)| pair(n, v))).collect(),
                frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
                trailers: Vec::new(),
                abandoned: false,
            },
            upstream: Upstream::Echo,
            metadata: Vec::new(),
        }
    };
    let text = ("content-type", "text/plain");
    let mut with_trailers =
        exchange("trailers", "POST", "/trailers", &[text, ("trailer", "x-trailer")], &[&body]);
    with_trailers.request.trailers.push(pair("x-trailer", "end"));
    vec![
        exchange("get", "GET", "/with?query=1", &[], &[]),
        exchange("post", "POST", "/", &[text, ("content-length", "64")], &[&body, ""]),
        with_trailers,
    ]
}

/// The lines as Envoy shows them: trace is off, blanks at the end are not seen, and no two runs share an
/// `x-request-id`.
fn shown(lines: &[LogLine]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line.level > LogLevel::Debug)
        .map(|line| {
            line.message.trim_end().replace("00000000-0000-4000-8000-000000000001", "<uuid>")
        })
        .collect()
}

#[test]
fn the_probe_logs_what_it_logged_in_envoy() {
    let reference = path("filters/prebuilt/probe.wasm");
    let reference = reference.to_str().unwrap();
    let options =
        CheckOptions { exchanges: exchanges(), controls: false, ..CheckOptions::default() };
    let verdict = check::check(reference, &options);
    assert_eq!(verdict.outcome, Outcome::Pass, "{:?}", verdict.findings);
    let root = &verdict.roots[0];
    let mut ours = BTreeMap::from([("load".to_owned(), shown(&root.logs))]);
    for exchange in &root.exchanges {
        ours.insert(exchange.name.clone(), shown(&exchange.logs));
    }
    let envoy = recorded();
    assert_eq!(envoy.len(), 4);
    let mut compared = 0;
    let mut different = Vec::new();
    for (section, theirs) in &envoy {
        let ours = &ours[section];
        assert_eq!(ours.len(), theirs.len(), "lines of `{section}`");
        for (ours, theirs) in ours.iter().zip(theirs) {
            compared += 1;
            if ours != theirs {
                different.push(format!("{section}: here {ours}\n{section}: Envoy {theirs}"));
            }
        }
    }
    assert!(compared > 10_000, "only {compared} lines were compared");
    assert!(different.is_empty(), "{} differences:\n{}", different.len(), different.join("\n"));
}
