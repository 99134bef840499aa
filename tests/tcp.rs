//! TCP connections through the probe, compared line for line with those through a real Envoy, whose
//! network filter it was.

#[path = "support/check.rs"]
mod check;
#[path = "support/tcp.rs"]
mod tcp;

use std::{io::Read as _, path::Path};

use filtergate::{
    CheckOptions,
    exercise::{Connection, Filter, Step, TcpUpstream},
    verdict::Rule,
};

/// The sections of a record.
fn recorded(release: &str) -> Vec<tcp::Section> {
    let file = format!("tests/data/tcp/envoy-{release}.txt.gz");
    let file = std::fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut sections = Vec::<tcp::Section>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("@ ") {
            Some(title) => {
                sections.push(tcp::Section { title: title.to_owned(), lines: Vec::new() });
            }
            None => sections.last_mut().unwrap().lines.push(line.to_owned()),
        }
    }
    sections
}

fn assert_as_recorded(target: &str, release: &str) {
    let target = target.parse().unwrap();
    let here: Vec<_> = tcp::groups().iter().flat_map(|group| tcp::here(&target, group)).collect();
    let envoy = recorded(release);
    let lines: usize = envoy.iter().map(|section| section.lines.len()).sum();
    assert!(envoy.len() > 50 && lines > 10_000, "the record is short");
    let found = tcp::differences(&here, &envoy);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn connections_are_as_in_envoy_1_40() {
    assert_as_recorded("envoy:1.40", "1.40.0");
}

#[test]
fn connections_are_as_in_envoy_1_36() {
    assert_as_recorded("envoy:1.36", "1.36.4");
}

/// It answers every answer of the upstream: in a real network that has no end.
#[test]
fn an_endless_connection_is_given_up() {
    let module = wat::parse_str(
        r#"(module
             (import "env" "proxy_set_buffer_bytes"
               (func $set (param i32 i32 i32 i32 i32) (result i32)))
             (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
             (func (export "proxy_abi_version_0_2_1"))
             (memory (export "memory") 1)
             (func (export "malloc") (param i32) (result i32) i32.const 1024)
             (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) i32.const 1)
             (func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32)
               (drop (call $set (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)))
               (drop (call $continue (i32.const 2)))
               i32.const 0))"#,
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endless.wasm");
    std::fs::write(&file, module).unwrap();
    let options = CheckOptions {
        filter: Filter::Network,
        connections: vec![Connection {
            name: "endless".to_owned(),
            upstream: TcpUpstream::Echo,
            steps: vec![
                Step::ClientSends("a".to_owned()),
                Step::UpstreamSends("b".to_owned()),
                Step::ClientResets,
            ],
        }],
        controls: false,
        ..CheckOptions::default()
    };
    let verdict = check::check(file.to_str().unwrap(), &options);
    let rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::LimitReached]);
    assert!(verdict.roots[0].connections[0].client.data.len() > 1000);
}
