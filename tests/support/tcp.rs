//! The connections on which the TCP probe is compared, and its lines on them as sections of text.

use std::path::Path;

use filtergate::{
    CheckOptions,
    exercise::{Connection, ConnectionResult, Filter, Received},
    host::LogLevel,
    target::Target,
};
use serde::Deserialize;

/// Connections through a filter with this plugin configuration.
#[derive(Deserialize)]
pub struct Group {
    pub configuration: String,
    pub connections: Vec<Connection>,
}

/// One connection: what it is called, and what came of it in lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    pub title: String,
    pub lines: Vec<String>,
}

pub fn probe() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/prebuilt/probe-tcp.wasm")
}

pub fn groups() -> Vec<Group> {
    serde_json::from_str(include_str!("../data/tcp/connections.json")).unwrap()
}

impl Section {
    pub fn new(
        group: &Group,
        connection: &str,
        log: impl Iterator<Item = String>,
        client: &Received,
        upstream: Option<&Received>,
    ) -> Self {
        // Blanks at the end of a line are not seen in a log.
        let mut lines: Vec<_> = log.map(|line| line.trim_end().to_owned()).collect();
        let got = |received: &Received| {
            let end = if received.ended { ", ended" } else { "" };
            format!("got `{}`{end}", String::from_utf8_lossy(&received.data))
        };
        lines.push(format!("the client {}", got(client)));
        lines.push(match upstream {
            Some(upstream) => format!("the upstream {}", got(upstream)),
            None => "the upstream saw no connection".to_owned(),
        });
        Self { title: format!("{}: {connection}", group.configuration), lines }
    }

    fn of_result(group: &Group, result: &ConnectionResult) -> Self {
        // Envoy's level leaves out the rest.
        let shown = result.logs.iter().filter(|line| line.level > LogLevel::Debug);
        let log = shown.map(|line| line.message.clone());
        Self::new(group, &result.name, log, &result.client, result.upstream.as_ref())
    }
}

/// What filtergate makes of a group.
pub fn here(target: &Target, group: &Group) -> Vec<Section> {
    let mut options = CheckOptions {
        target: target.clone(),
        filter: Filter::Network,
        connections: group.connections.clone(),
        controls: false,
        ..CheckOptions::default()
    };
    options.plugin.configuration = group.configuration.clone().into_bytes();
    let verdict = super::check::check(probe().to_str().unwrap(), &options);
    assert_eq!(verdict.loads, Some(true), "{:?}", verdict.findings);
    let results = verdict.roots[0].connections.iter();
    results.map(|result| Section::of_result(group, result)).collect()
}

/// What differs between two lists of sections.
pub fn differences(here: &[Section], envoy: &[Section]) -> Vec<String> {
    let mut found = Vec::new();
    if here.len() != envoy.len() {
        found.push(format!("{} sections here, {} in Envoy", here.len(), envoy.len()));
    }
    for (here, envoy) in here.iter().zip(envoy) {
        let title = &here.title;
        if title != &envoy.title {
            found.push(format!("`{title}` here, `{}` in Envoy", envoy.title));
        }
        if here.lines.len() != envoy.lines.len() {
            let (here, envoy) = (here.lines.len(), envoy.lines.len());
            found.push(format!("{title}: {here} lines here, {envoy} in Envoy"));
        }
        let pairs = here.lines.iter().zip(&envoy.lines);
        let first = pairs.filter(|(here, envoy)| here != envoy).take(3);
        found.extend(first.map(|(here, envoy)| format!("{title}: here {here}\n    Envoy {envoy}")));
    }
    found
}
