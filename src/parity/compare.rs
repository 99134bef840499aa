//! Where two records differ.
//!
//! What differs from run to run is masked in both: see the tables in `record.rs`. Everything else
//! counts.

use serde::Serialize;

use super::record::{ConnectionRecord, ReceivedRecord, Record, RequestRecord};

/// One part of a record, on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Which: `loads`, or `get: headers`.
    pub name: String,
    /// What filtergate has, in lines.
    pub here: Vec<String>,
    /// What Envoy has.
    pub envoy: Vec<String>,
}

impl Part {
    /// Whether both have the same.
    pub fn is_equal(&self) -> bool {
        self.here == self.envoy
    }
}

/// All parts of two records.
pub fn parts(here: &Record, envoy: &Record) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut add = |name: &str, side: &dyn Fn(&Record) -> Vec<String>| {
        parts.push(Part { name: name.to_owned(), here: side(here), envoy: side(envoy) });
    };
    add("loads", &|record| vec![record.loads.map_or("unknown".to_owned(), |l| l.to_string())]);
    add("reason", &|record| record.reason.iter().map(|class| (*class).to_owned()).collect());
    add("detail", &|record| record.detail.iter().cloned().collect());
    add("log", &|record| record.log.clone());
    add("plugin", &|record| record.plugin.clone());
    add("calls", &|record| record.calls.clone());
    let mut names: Vec<&str> = Vec::new();
    for request in here.requests.iter().chain(&envoy.requests) {
        if !names.contains(&request.name.as_str()) {
            names.push(&request.name);
        }
    }
    for name in names {
        let of = |record: &Record| record.requests.iter().find(|r| r.name == name).map(lines);
        let (here, envoy) = (of(here).unwrap_or_default(), of(envoy).unwrap_or_default());
        for ((part, here), envoy) in REQUEST_PARTS.iter().zip(here).zip(envoy) {
            parts.push(Part { name: format!("{name}: {part}"), here, envoy });
        }
    }
    parts.extend(connection_parts(here, envoy));
    let metrics = |record: &Record| record.metrics.clone();
    parts.push(Part { name: "metrics".to_owned(), here: metrics(here), envoy: metrics(envoy) });
    parts
}

/// The parts of the connections of two records.
fn connection_parts(here: &Record, envoy: &Record) -> Vec<Part> {
    let mut names: Vec<&str> = Vec::new();
    for connection in here.connections.iter().chain(&envoy.connections) {
        if !names.contains(&connection.name.as_str()) {
            names.push(&connection.name);
        }
    }
    let mut parts = Vec::new();
    for name in names {
        let of = |record: &Record| {
            let connection = record.connections.iter().find(|c| c.name == name);
            connection.map(connection_lines).unwrap_or_default()
        };
        for ((part, here), envoy) in CONNECTION_PARTS.iter().zip(of(here)).zip(of(envoy)) {
            parts.push(Part { name: format!("{name}: {part}"), here, envoy });
        }
    }
    parts
}

const CONNECTION_PARTS: [&str; 4] = ["client", "upstream", "plugin", "calls"];

/// The parts of a connection, in lines.
fn connection_lines(connection: &ConnectionRecord) -> [Vec<String>; 4] {
    let received = |received: &ReceivedRecord| {
        let mut lines: Vec<_> = received.data.lines().map(str::to_owned).collect();
        lines.push(if received.ended { "(ended)" } else { "(not ended)" }.to_owned());
        lines
    };
    [
        received(&connection.client),
        connection.upstream.as_ref().map(received).unwrap_or_default(),
        connection.plugin.clone(),
        connection.calls.clone(),
    ]
}

const REQUEST_PARTS: [&str; 8] =
    ["status", "headers", "body", "trailers", "upstream", "access", "plugin", "calls"];

/// The parts of a request, in lines.
fn lines(request: &RequestRecord) -> [Vec<String>; 8] {
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
    };
    let text = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let response = request.response.as_ref();
    let upstream = request.upstream.as_ref().map(|upstream| {
        let mut lines = vec![upstream.line.clone()];
        lines.extend(pairs(&upstream.headers));
        lines.extend(text(&upstream.body));
        lines.extend(pairs(&upstream.trailers));
        lines
    });
    [
        vec![match request.status {
            super::Status::Code(code) => code.to_string(),
            super::Status::None(why) => why.to_owned(),
        }],
        response.map(|response| pairs(&response.headers)).unwrap_or_default(),
        response.map(|response| text(&response.body)).unwrap_or_default(),
        response.map(|response| pairs(&response.trailers)).unwrap_or_default(),
        upstream.unwrap_or_default(),
        request.access.clone(),
        request.plugin.clone(),
        request.calls.clone(),
    ]
}

/// A line of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Both have it.
    Both(&'a str),
    /// Only filtergate has it.
    Here(&'a str),
    /// Only Envoy has it.
    Envoy(&'a str),
}

/// The two sides of a part as one list, by their longest common subsequence. Records bound the lines.
pub fn diff(part: &Part) -> Vec<Change<'_>> {
    let (here, envoy) = (&part.here, &part.envoy);
    // common[i][j]: how many lines here[i..] and envoy[j..] have in common.
    let mut common = vec![vec![0_usize; envoy.len() + 1]; here.len() + 1];
    for i in (0..here.len()).rev() {
        for j in (0..envoy.len()).rev() {
            common[i][j] = if here[i] == envoy[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut changes = Vec::new();
    while i < here.len() || j < envoy.len() {
        if i < here.len() && j < envoy.len() && here[i] == envoy[j] {
            changes.push(Change::Both(&here[i]));
            i += 1;
            j += 1;
        } else if j == envoy.len() || i < here.len() && common[i + 1][j] >= common[i][j + 1] {
            changes.push(Change::Here(&here[i]));
            i += 1;
        } else {
            changes.push(Change::Envoy(&envoy[j]));
            j += 1;
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::{Change, Part, diff, parts};
    use crate::parity::Record;

    fn part(here: &[&str], envoy: &[&str]) -> Part {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Part { name: String::new(), here: lines(here), envoy: lines(envoy) }
    }

    #[test]
    fn a_diff_keeps_what_both_have() {
        let part = part(&["a", "b", "c"], &["a", "x", "c", "d"]);
        assert_eq!(
            diff(&part),
            [
                Change::Both("a"),
                Change::Here("b"),
                Change::Envoy("x"),
                Change::Both("c"),
                Change::Envoy("d")
            ]
        );
    }

    #[test]
    fn a_part_that_only_one_has_is_a_difference() {
        let one = Record { loads: Some(true), ..Record::default() };
        let other = Record { loads: Some(false), reason: Some("crash"), ..Record::default() };
        let differing: Vec<_> = parts(&one, &other)
            .into_iter()
            .filter(|part| !part.is_equal())
            .map(|part| part.name)
            .collect();
        assert_eq!(differing, ["loads", "reason"]);
        assert!(parts(&one, &one).iter().all(Part::is_equal));
    }
}
