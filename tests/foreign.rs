//! Foreign functions, properties and the environment against what real Envoys answered.

#[path = "support/check.rs"]
mod check;

use std::path::Path;

use filtergate::{
    CheckOptions,
    verdict::{Rule, Verdict},
};

fn run(change: impl FnOnce(&mut CheckOptions)) -> Verdict {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/foreign");
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("foreign.wasm");
    std::fs::write(&path, wat::parse_file(data.join("foreign.wat")).unwrap()).unwrap();
    let mut options =
        CheckOptions { root_ids: vec!["r".to_owned()], controls: false, ..CheckOptions::default() };
    options.plugin.environment_variables = [("ONE".to_owned(), "1".to_owned())].into();
    options.exchanges.truncate(1);
    change(&mut options);
    check::check(path.to_str().unwrap(), &options)
}

/// The lines of the configuration, then those of the first exchange.
fn lines(verdict: &Verdict) -> Vec<String> {
    let root = &verdict.roots[0];
    let all = root.logs.iter().chain(&root.exchanges[0].logs);
    all.map(|line| line.message.clone()).collect()
}

fn assert_as_recorded(target: &str, recorded: &str) {
    let verdict = run(|options| options.target = target.parse().unwrap());
    let expected: Vec<_> = recorded.lines().skip(1).collect();
    let ours = lines(&verdict);
    let different: Vec<_> =
        ours.iter().zip(&expected).filter(|(ours, theirs)| ours != *theirs).collect();
    assert!(different.is_empty(), "{target}, here and in Envoy: {different:#?}");
    assert_eq!(ours.len(), expected.len(), "{target}");
}

#[test]
fn everything_is_answered_as_envoy_1_40_answers() {
    assert_as_recorded("envoy:1.40", include_str!("data/foreign/envoy-1.40.0.log"));
}

#[test]
fn everything_is_answered_as_envoy_1_36_answers() {
    assert_as_recorded("envoy:1.36", include_str!("data/foreign/envoy-1.36.4.log"));
}

/// Seen in Envoy 1.40.0 with the same list of capabilities.
#[test]
fn what_the_capabilities_leave_out_fails_and_is_reported() {
    let allowed = ["proxy_log", "proxy_on_configure", "proxy_get_property"];
    let verdict =
        run(|options| options.plugin.allowed_capabilities = allowed.map(str::to_owned).to_vec());
    let root = &verdict.roots[0];
    let messages: Vec<_> = root.logs.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(
        messages[..4],
        ["level 0a 77 01 ", "environ 4c 77 01 ", "nothing 0a 77 01 ", "compress 0a 77 01 "]
    );
    assert!(root.exchanges[0].logs.is_empty(), "a restricted callback was called");
    let restricted: Vec<_> = verdict
        .findings
        .iter()
        .filter(|finding| finding.rule == Rule::HostRestricted)
        .flat_map(|finding| &finding.envoy_messages)
        .collect();
    assert_eq!(
        restricted,
        [
            "Attempted call to restricted WASI capability: environ_get",
            "Attempted call to restricted WASI capability: environ_sizes_get",
            "Attempted call to restricted proxy-wasm capability: proxy_call_foreign_function",
            "Attempted call to restricted proxy-wasm capability: proxy_get_log_level",
            "Attempted call to restricted proxy-wasm capability: proxy_set_property",
        ]
    );
}
