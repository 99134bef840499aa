//! Courses of a stream for the filter `probe-script`, and what came of them, in lines.

use filtergate::{
    exercise::{Exchange, Request, Upstream},
    parity::{RequestRecord, Status},
};

/// A line of `scenarios.txt`.
pub struct Scenario {
    pub name: String,
    pub exchange: Exchange,
}

/// The scenarios in order.
pub fn scenarios() -> Vec<Scenario> {
    let lines = include_str!("../data/scripts/scenarios.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(scenario).collect()
}

/// `KIND SCRIPT`: the line itself is the name.
fn scenario(line: &str) -> Scenario {
    let (kind, script) = line.split_once(' ').unwrap_or((line, ""));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let frames = |frames: &[&str]| frames.iter().map(|frame| (*frame).to_owned()).collect();
    let mut headers = vec![pair("user-agent", "filtergate"), pair("x-do", script)];
    let (method, frames, trailers) = match kind {
        "get" => ("GET", vec![], vec![]),
        "head" => ("HEAD", vec![], vec![]),
        "post" => {
            headers.push(pair("content-length", "12"));
            ("POST", frames(&["twelve bytes", ""]), vec![])
        }
        "chunks" => ("POST", frames(&["first ", "second ", "third", ""]), vec![]),
        "trailers" => ("POST", frames(&["a body"]), vec![pair("x-trailer", "end")]),
        other => panic!("no kind of request: {other}"),
    };
    let request = Request {
        method: method.to_owned(),
        path: format!("/{kind}"),
        host: "example.com".to_owned(),
        headers,
        frames,
        trailers,
    };
    let exchange = Exchange { name: line.to_owned(), request, upstream: Upstream::Echo };
    Scenario { name: line.to_owned(), exchange }
}

/// What a side has of a scenario: the module's lines, the answer, and what the upstream got.
pub fn lines(module: impl IntoIterator<Item = String>, record: &RequestRecord) -> Vec<String> {
    let mut lines: Vec<String> = module.into_iter().collect();
    lines.push(match record.status {
        Status::Code(code) => format!("> {code}"),
        Status::None(why) => format!("> {why}"),
    });
    let mut pairs = |mark: &str, pairs: &[(String, String)]| {
        lines.extend(pairs.iter().map(|(name, value)| format!("{mark} {name}: {value}")));
    };
    if let Some(response) = &record.response {
        pairs(">", &response.headers);
        pairs("> body", &[(String::new(), response.body.clone())]);
        pairs("> trailer", &response.trailers);
    }
    if let Some(upstream) = &record.upstream {
        pairs("<", &[(String::new(), upstream.line.clone())]);
        pairs("<", &upstream.headers);
        pairs("< body", &[(String::new(), upstream.body.clone())]);
        pairs("< trailer", &upstream.trailers);
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Where two lists part, in words.
pub fn difference(name: &str, ours: &[String], theirs: &[String]) -> Option<String> {
    let at = (0..ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at))?;
    let before = theirs[..at.min(theirs.len())].iter().rev().take(3).rev();
    let before: String = before.map(|line| format!("          {line}\n")).collect();
    Some(format!("{name}\n{before}    here  {:?}\n    Envoy {:?}", ours.get(at), theirs.get(at)))
}
