//! The targets: a table of all, and everything that is known of one.

use serde::Serialize;

use crate::{
    abi::{AbiVersion, HOST_FUNCTIONS, HostFunction, Namespace},
    module::PROPOSALS,
    target::{CHANGES, Change, Evidence, Target},
};

/// Everything that is known of a target.
#[derive(Debug, Serialize)]
struct Row {
    target: String,
    envoy: String,
    date: Option<&'static str>,
    source: String,
    host_revision: &'static str,
    v8: &'static str,
    /// The first patch release that has this V8, where it is not the `.0` release.
    v8_since_patch: Option<u16>,
    abi_versions: Vec<&'static str>,
    max_memory_pages: u32,
    restricts_start: bool,
    runs_main_void: bool,
    poll_oneoff_succeeds: bool,
    foreign_functions_follow_effective_context: bool,
    proposals: Proposals,
    functions: Vec<Function>,
    changes: Vec<ChangeRow>,
}

#[derive(Debug, Serialize)]
struct Proposals {
    /// `measured`, `same-v8` or `not-measured`.
    known: &'static str,
    /// The Envoy in which they were measured.
    measured_in: Option<&'static str>,
    on: Vec<&'static str>,
    off: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Function {
    modules: &'static [&'static str],
    name: &'static str,
    r#type: String,
    abi_versions: Vec<&'static str>,
    /// The minor number of the first Envoy that links it; 17 is "or before".
    since: u8,
    /// Whether it may be called in `_initialize`, `_start` and `main`.
    in_start: bool,
    /// Whether it may be called in an allocation that the host asked for.
    in_malloc: bool,
}

#[derive(Debug, Serialize)]
struct ChangeRow {
    since: u8,
    what: &'static str,
    modelled: bool,
}

/// The functions that a target links for some ABI version, with their place in the tables.
fn linked(target: &Target) -> impl Iterator<Item = (usize, &'static HostFunction)> {
    let minor = target.envoy_minor();
    HOST_FUNCTIONS.iter().enumerate().filter(move |(_, function)| function.since <= minor)
}

fn source(target: &Target) -> String {
    match target.distribution() {
        Some(distribution) => distribution.source.to_owned(),
        None => format!(
            "https://github.com/envoyproxy/envoy/blob/v1.{}.0/bazel/repository_locations.bzl",
            target.envoy_minor()
        ),
    }
}

impl Row {
    fn of(target: &Target) -> Self {
        let release = target.release();
        let (start, malloc) = (target.start_allow_list(), target.malloc_allow_list());
        let (on, off): (Vec<_>, Vec<_>) =
            PROPOSALS.iter().partition(|proposal| target.has_proposal(proposal));
        let names = |proposals: Vec<&'static crate::module::Proposal>| {
            proposals.into_iter().map(|proposal| proposal.name).collect()
        };
        let (known, measured_in) = match release.evidence {
            Evidence::Measured(envoy) => ("measured", Some(envoy)),
            Evidence::SameV8(envoy) => ("same-v8", Some(envoy)),
            Evidence::NotMeasured => ("not-measured", None),
        };
        Self {
            target: target.name().to_owned(),
            envoy: target.envoy_name(),
            date: release.date,
            source: source(target),
            host_revision: release.host,
            v8: target.v8(),
            v8_since_patch: release
                .v8_of_patch
                .filter(|(_, v8)| *v8 == target.v8())
                .map(|(patch, _)| patch),
            abi_versions: AbiVersion::ALL.map(AbiVersion::as_str).to_vec(),
            max_memory_pages: release.max_memory_pages,
            restricts_start: release.restricts_start,
            runs_main_void: release.runs_main_void,
            poll_oneoff_succeeds: release.poll_oneoff_succeeds,
            foreign_functions_follow_effective_context: release
                .foreign_functions_follow_effective_context,
            proposals: Proposals { known, measured_in, on: names(on), off: names(off) },
            functions: linked(target)
                .map(|(index, function)| Function {
                    modules: function.namespace.modules(),
                    name: function.name,
                    r#type: function.func_type().to_string(),
                    abi_versions: function.abis.iter().map(AbiVersion::as_str).collect(),
                    since: function.since,
                    in_start: start & (1 << index) != 0,
                    in_malloc: malloc & (1 << index) != 0,
                })
                .collect(),
            changes: CHANGES
                .iter()
                .map(|change| ChangeRow {
                    since: change.since,
                    what: change.what,
                    modelled: change.is_modelled,
                })
                .collect(),
        }
    }
}

/// All that is known of a target, for JSON.
pub fn data(target: &Target) -> impl Serialize {
    Row::of(target)
}

/// A line for each target.
pub fn table(targets: &[Target]) -> String {
    let mut out = format!(
        "{:<18}  {:<10}  {:<12}  {:<11}  {:>9}  notes\n",
        "target", "envoy", "v8", "proposals", "functions"
    );
    for target in targets {
        let release = target.release();
        let known = match release.evidence {
            Evidence::Measured(_) => "measured",
            Evidence::SameV8(_) => "as measured",
            Evidence::NotMeasured => "by V8",
        };
        let mut notes = Vec::new();
        if !release.restricts_start {
            notes.push("no allow-list at the start".to_owned());
        }
        if let Some((patch, _)) = release.v8_of_patch {
            notes.push(format!("V8 {} before 1.{}.{patch}", release.v8, release.minor));
        }
        let functions = linked(target).count();
        let line = format!(
            "{:<18}  {:<10}  {:<12}  {known:<11}  {functions:>9}  {}",
            target.name(),
            target.envoy_name(),
            target.v8(),
            notes.join(", ")
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str(
        "\nEvery target takes modules of ABI 0.1.0, 0.2.0 and 0.2.1. `filtergate targets show NAME` has all of one.\n",
    );
    out
}

/// Everything that is known of a target, for people.
pub fn show(target: &Target) -> String {
    let row = Row::of(target);
    let mut out = String::new();
    let mut line = |label: &str, text: &str| {
        out.push_str(&format!("{label:<11}{text}\n"));
    };
    line("target", &target.to_string());
    if let Some(date) = row.date {
        line("released", &format!("{date} ({}.0)", target.envoy_name()));
    }
    line("source", &row.source);
    line("host", &format!("proxy-wasm-cpp-host {}", row.host_revision));
    let release = target.release();
    let patch = match (row.v8_since_patch, release.v8_of_patch) {
        (Some(patch), _) => format!(", since 1.{}.{patch}; {} before", release.minor, release.v8),
        (None, Some((patch, v8))) => format!(", {v8} since 1.{}.{patch}", release.minor),
        (None, None) => String::new(),
    };
    line("v8", &format!("{}{patch}", row.v8));
    line("abi", &row.abi_versions.join(", "));
    let pages = row.max_memory_pages;
    line("memory", &format!("at most {pages} pages of 64 KiB ({} MiB)", pages / 16));
    let start = if row.restricts_start {
        "calls that are not marked `start` below trap in _initialize, _start and main,\n           \
         and those not marked `malloc` in allocations that the host asks for"
    } else {
        "every function may be called in _initialize, _start and main"
    };
    line("start", start);
    line(
        "main",
        if row.runs_main_void {
            "main or __main_void after _initialize"
        } else {
            "main after _initialize; __main_void is not looked up"
        },
    );
    line(
        "poll",
        if row.poll_oneoff_succeeds {
            "poll_oneoff succeeds"
        } else {
            "poll_oneoff, where it is linked, returns 52 (ENOSYS)"
        },
    );
    line(
        "context",
        if row.foreign_functions_follow_effective_context {
            "foreign functions act on the effective context"
        } else {
            "foreign functions act on the current context"
        },
    );
    let known = match release.evidence {
        Evidence::Measured(envoy) => format!("measured in Envoy {envoy}"),
        Evidence::SameV8(envoy) => {
            format!("not measured; the same V8 was measured in Envoy {envoy}")
        }
        Evidence::NotMeasured => "not measured: by V8's own list".to_owned(),
    };
    line("proposals", &known);
    line("  on", &format!("WebAssembly 2.0, {}", row.proposals.on.join(", ")));
    line("  off", &row.proposals.off.join(", "));
    for namespace in [Namespace::Env, Namespace::Wasi] {
        let modules = namespace.modules();
        let functions: Vec<_> =
            row.functions.iter().filter(|function| function.modules == modules).collect();
        out.push_str(&format!("\n{} functions in {}\n", functions.len(), modules.join(" and ")));
        for function in functions {
            out.push_str(&function_line(function, row.restricts_start));
        }
    }
    let (old, new): (Vec<_>, Vec<_>) =
        CHANGES.iter().partition(|change| change.since <= target.envoy_minor());
    changes(&mut out, "Changes up to this release", &old);
    changes(&mut out, "Changes that newer releases made", &new);
    out
}

fn function_line(function: &Function, restricts_start: bool) -> String {
    let mut notes = Vec::new();
    if function.abi_versions.len() < AbiVersion::ALL.len() {
        notes.push(format!("ABI {}", function.abi_versions.join(", ")));
    }
    if function.since > 17 {
        notes.push(format!("since 1.{}", function.since));
    }
    if restricts_start && function.in_start {
        notes.push("start".to_owned());
    }
    if restricts_start && function.in_malloc {
        notes.push("malloc".to_owned());
    }
    let line = format!("  {:<40} {:<44} {}", function.name, function.r#type, notes.join("; "));
    format!("{}\n", line.trim_end())
}

fn changes(out: &mut String, title: &str, changes: &[&Change]) {
    if changes.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}\n"));
    for change in changes {
        let not = if change.is_modelled { "" } else { " (not modelled)" };
        out.push_str(&format!("  1.{}  {}{not}\n", change.since, change.what));
    }
}
