//! What the report for people says of each stage, as plain text.

use crate::{
    bench::PhaseClock,
    exercise::{ConnectionResult, ExchangeResult},
    image::{RuntimeConfig, Shape},
    verdict::{ImageFacts, ModuleFacts, Outcome, Rule, Verdict},
};

use super::{escape::quote, human::Detail, units};

pub(super) fn image_line(verdict: &Verdict) -> String {
    let reference = quote(&verdict.reference);
    match &verdict.image {
        None if verdict.outcome == Outcome::Fail => format!("{reference} is not usable"),
        None => format!("{reference} could not be had"),
        Some(image) => match &image.manifest_digest {
            Some(digest) => format!("{reference}, shape {}, {digest}", image.shape),
            None if image.shape == Shape::File.name() => format!("{reference}, a plain file"),
            None => format!("{reference}, shape {}", image.shape),
        },
    }
}

pub(super) fn config_line(image: &ImageFacts) -> Option<String> {
    let Some(config) = &image.runtime_config else {
        return (image.shape != Shape::File.name()).then(|| "none".to_owned());
    };
    Some(config_words(config))
}

/// What a runtime configuration says.
pub(super) fn config_words(config: &RuntimeConfig) -> String {
    let list =
        |items: &[String]| items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", ");
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    format!(
        "type {}, ABI versions {}, root_ids {}",
        or_none(config.r#type.as_deref().map(quote).unwrap_or_default()),
        or_none(list(&config.abi_versions)),
        or_none(list(&config.root_ids)),
    )
}

pub(super) fn module_line(module: &ModuleFacts) -> String {
    let mut parts = Vec::new();
    match (module.language, &module.toolchain) {
        (Some(language), Some(toolchain)) => parts.push(format!("{language} ({toolchain})")),
        (Some(language), None) => parts.push(language.to_owned()),
        (None, Some(toolchain)) => parts.push(toolchain.clone()),
        (None, None) => {}
    }
    if let Some(abi) = module.abi {
        parts.push(format!("ABI {abi}"));
    }
    parts.push(units::size(module.size));
    if module.functions > 0 {
        parts.push(format!(
            "{} with {} of code",
            units::count(module.functions as usize, "function"),
            units::size(module.code_bytes)
        ));
    }
    let hash = module.sha256.get(..12).unwrap_or(&module.sha256);
    parts.push(format!("sha256 {hash}…"));
    parts.join(", ")
}

/// How many imports the target has; nothing where that was not looked at.
pub(super) fn link_line(module: &ModuleFacts, verdict: &Verdict) -> Option<String> {
    module.abi?;
    if verdict.envoy_class == Some("corrupt") {
        return None;
    }
    let functions = module.imports.iter().filter(|import| import.kind.func().is_some()).count();
    let bad = |rule| verdict.findings.iter().filter(|finding| finding.rule == rule).count();
    if module.imports.is_empty() {
        return Some("no imports".to_owned());
    }
    let (missing, mistyped) = (bad(Rule::LinkMissingImport), bad(Rule::LinkImportType));
    let target = &verdict.target;
    let imports = units::count(functions, "imported function");
    Some(match (missing, mistyped) {
        (0, 0) => {
            format!("{imports}, {target} has {}", if functions == 1 { "it" } else { "them all" })
        }
        (missing, 0) => format!("{imports}, {missing} not in {target}"),
        (0, mistyped) => format!("{imports}, {mistyped} of another type in {target}"),
        (missing, mistyped) => {
            format!("{imports}, {missing} not in {target}, {mistyped} of another type")
        }
    })
}

pub(super) fn load_line(verdict: &Verdict) -> Option<String> {
    verdict.module.as_ref()?;
    let compiled = match verdict.compiler {
        Some(compiler) => format!(", compiled with {compiler}"),
        None => String::new(),
    };
    Some(match verdict.loads {
        Some(true) => format!("accepted by Envoy{compiled}"),
        Some(false) => match verdict.envoy_class {
            Some("crash") => format!("crashes Envoy{compiled}"),
            Some("hang") => format!("hangs Envoy{compiled}"),
            _ => format!("refused by Envoy{compiled}"),
        },
        None => format!("not found out{compiled}"),
    })
}

pub(super) fn exchange_word(exchange: &ExchangeResult) -> String {
    match &exchange.response {
        Some(response) => format!("{} {}", exchange.name, response.status),
        None => format!("{} without an answer", exchange.name),
    }
}

/// A connection in a few words: how much went each way, and what became of it.
pub(super) fn connection_word(connection: &ConnectionResult) -> String {
    let ConnectionResult { name, client, upstream, closed_by_filter, .. } = connection;
    let mut text = match upstream {
        Some(upstream) => {
            format!("{name} {} B on, {} B back", upstream.data.len(), client.data.len())
        }
        None => format!("{name} let nothing through"),
    };
    if *closed_by_filter {
        text.push_str(", closed by the filter");
    }
    text
}

pub(super) fn time_line(phases: &PhaseClock, detail: Detail) -> Option<String> {
    let mut parts = Vec::new();
    for (phase, time) in phases.iter() {
        let mut part = format!("{} {}", phase.as_str(), units::time(time.wall_ns));
        if detail == Detail::Everything {
            part.push_str(&format!(" (CPU {})", units::time(time.cpu_ns)));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return None;
    }
    let total = phases.total();
    let (wall, cpu) = (units::time(total.wall_ns), units::time(total.cpu_ns));
    Some(format!("{wall} in all, {cpu} of CPU: {}", parts.join(", ")))
}
