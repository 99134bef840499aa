//! Courses of a stream for the filter `probe-script`, and what came of them, in lines.

use filtergate::{
    CheckOptions,
    exercise::{Exchange, Metadata, Party, Request, Upstream},
    host::Environment,
    parity::{RequestRecord, Status},
    target::Target,
};

/// Scenarios that share a configuration.
pub struct Suite {
    pub name: &'static str,
    scenarios: &'static str,
    pub allow_on_headers_stop_iteration: bool,
    pub buffer_limit_bytes: usize,
    /// Over HTTP/2, with METADATA frames.
    pub http2: bool,
}

/// Envoy's default.
const MIB: usize = 1 << 20;

pub const SUITES: [Suite; 4] = [
    Suite {
        name: "courses",
        scenarios: include_str!("../data/scripts/courses.txt"),
        allow_on_headers_stop_iteration: false,
        buffer_limit_bytes: MIB,
        http2: false,
    },
    Suite {
        name: "stop-iteration",
        scenarios: include_str!("../data/scripts/stop-iteration.txt"),
        allow_on_headers_stop_iteration: true,
        buffer_limit_bytes: MIB,
        http2: false,
    },
    Suite {
        name: "small-buffers",
        scenarios: include_str!("../data/scripts/small-buffers.txt"),
        allow_on_headers_stop_iteration: false,
        buffer_limit_bytes: 2000,
        http2: false,
    },
    Suite {
        name: "metadata",
        scenarios: include_str!("../data/scripts/metadata.txt"),
        allow_on_headers_stop_iteration: false,
        buffer_limit_bytes: MIB,
        http2: true,
    },
];

/// A line of a suite.
pub struct Scenario {
    pub name: String,
    pub exchange: Exchange,
}

impl Suite {
    /// The scenarios in order.
    pub fn scenarios(&self) -> Vec<Scenario> {
        let lines = self.scenarios.lines();
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Scenario {
                name: line.to_owned(),
                exchange: match self.http2 {
                    true => with_metadata(exchange(line)),
                    false => exchange(line),
                },
            })
            .collect()
    }

    /// How filtergate runs them.
    pub fn options(&self, target: Target) -> CheckOptions {
        let scenarios = self.scenarios();
        let environment =
            Environment { buffer_limit_bytes: self.buffer_limit_bytes, ..Environment::default() };
        let mut options = CheckOptions {
            target,
            controls: false,
            environment,
            exchanges: scenarios.into_iter().map(|scenario| scenario.exchange).collect(),
            ..CheckOptions::default()
        };
        options.plugin.allow_on_headers_stop_iteration = self.allow_on_headers_stop_iteration;
        options
    }
}

/// A METADATA frame in front of each frame and of the trailers, each with one entry more than the one
/// before it.
fn with_metadata(mut exchange: Exchange) -> Exchange {
    if exchange.request.frames.is_empty() {
        exchange.request.frames.push(String::new());
    }
    let trailers = !exchange.request.trailers.is_empty();
    let frames = exchange.request.frames.len() + usize::from(trailers);
    let of = |from: Party, count: usize| {
        (0..count).map(move |before_frame| Metadata {
            from,
            before_frame,
            entries: (0..=before_frame).map(|at| (format!("x-{at}"), "yes".to_owned())).collect(),
        })
    };
    exchange.metadata = of(Party::Client, frames).chain(of(Party::Upstream, 2)).collect();
    exchange
}

/// `KIND SCRIPT`: the line itself is the name.
pub fn exchange(line: &str) -> Exchange {
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
        "gone" => ("POST", frames(&["first ", "second "]), vec![]),
        "large" => {
            let piece = "fifteen bytes. ".repeat(100);
            ("POST", frames(&[&piece, &piece, &piece, ""]), vec![])
        }
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
        abandoned: kind == "gone",
    };
    Exchange { name: line.to_owned(), request, upstream: Upstream::Echo, metadata: Vec::new() }
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
    let body = |body: &str| [(String::new(), body.chars().take(500).collect::<String>())];
    if let Some(response) = &record.response {
        pairs(">", &response.headers);
        pairs("> body", &body(&response.body));
        pairs("> trailer", &response.trailers);
    }
    if let Some(upstream) = &record.upstream {
        pairs("<", &[(String::new(), upstream.line.clone())]);
        pairs("<", &upstream.headers);
        pairs("< body", &body(&upstream.body));
        pairs("< trailer", &upstream.trailers);
    }
    lines.extend(record.access.iter().map(|access| format!("= {access}")));
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Where two lists part, in words.
pub fn difference(name: &str, ours: &[String], theirs: &[String]) -> Option<String> {
    let at = (0..ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at))?;
    let before = theirs[..at.min(theirs.len())].iter().rev().take(3).rev();
    let before: String = before.map(|line| format!("          {line}\n")).collect();
    Some(format!("{name}\n{before}    here  {:?}\n    Envoy {:?}", ours.get(at), theirs.get(at)))
}
