//! The ABI versions that an image declares, against what its module is.

use crate::{
    abi::{AbiVersion, declared_abi, find_host_function},
    module::Facts,
};

use super::{finding::Finding, rule::Rule, static_checks::StaticReport};

/// Compares the ABI versions that an image declares with what the module is.
pub fn check_declared_abi(declared: &[String], report: &StaticReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = Vec::new();
    for label in declared {
        match declared_abi(label) {
            Some(abi) => {
                if !abi.canonical {
                    findings.push(Finding::note(
                        Rule::ConfigAbiVersion,
                        format!("the declared ABI version `{label}` is no name of the specification's tools; read as {}", abi.names),
                    ));
                }
                known.push((label, abi));
            }
            None => findings.push(
                Finding::error(
                    Rule::ConfigAbiVersion,
                    format!("the declared ABI version `{label}` is unknown"),
                )
                .help("declare `v0.2.1` for a module that Envoy 1.17 and later load"),
            ),
        }
    }
    // A module without a readable marker is judged for that; the label adds nothing, unless it is
    // the label that explains it.
    let facts = match &report.facts {
        Some(facts) if !known.is_empty() => facts,
        _ => return findings,
    };
    let labels =
        || known.iter().map(|(label, _)| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    let names = || known.iter().map(|(_, abi)| abi.names).collect::<Vec<_>>().join("; ");
    let obsolete = known.iter().all(|(_, abi)| abi.is_obsolete());
    match report.abi {
        None if obsolete => findings.push(
            Finding::error(
                Rule::ConfigAbiVersion,
                format!(
                    "the declared ABI version {} names {}: an ABI from before the first marker, which no current proxy loads",
                    labels(), names()
                ),
            )
            .help("rebuild the filter with a current SDK and declare `v0.2.1`"),
        ),
        None => {}
        Some(marker) if !known.iter().any(|(_, abi)| abi.accepts(marker)) => {
            let tail = if obsolete { ", an old host that no current proxy is" } else { "" };
            findings.push(
                Finding::error(
                    Rule::ConfigAbiVersion,
                    format!(
                        "the image declares ABI version {} ({}{tail}), but the module is ABI {marker} by its marker",
                        labels(), names()
                    ),
                )
                .help("declare `v0.2.1`, which every Envoy since 1.17 is, or put the module that was meant into the image"),
            );
        }
        Some(marker) => {
            if obsolete {
                findings.push(
                    Finding::warning(
                        Rule::ConfigAbiVersion,
                        format!(
                            "the image declares only {} ({}), which no current proxy is; the module itself is ABI {marker}",
                            labels(), names()
                        ),
                    )
                    .help("declare `v0.2.1` as well: current proxies load this module"),
                );
            }
            let by_imports = abis_of_imports(facts);
            let fits = known.iter().any(|(_, abi)| abi.markers.iter().any(|m| by_imports.contains(m)));
            if !fits && !by_imports.contains(&marker) {
                let list: Vec<_> = by_imports.iter().map(|abi| abi.as_str()).collect();
                let says = if list.is_empty() { "no single ABI".to_owned() } else { format!("ABI {}", list.join(" or ")) };
                findings.push(
                    Finding::error(
                        Rule::ConfigAbiVersion,
                        format!("the image declares ABI version {}, but the module's imports are those of {says}", labels()),
                    )
                    .help("put the module that was meant into the image, or mend the declaration"),
                );
            }
        }
    }
    findings
}

/// The ABI versions that have every `env.proxy_*` function which the module imports.
fn abis_of_imports(facts: &Facts) -> Vec<AbiVersion> {
    AbiVersion::ALL
        .into_iter()
        .filter(|abi| {
            facts.imports.iter().all(|import| {
                find_host_function(&import.module, &import.name)
                    .is_none_or(|(_, function)| function.abis.contains(*abi))
            })
        })
        .collect()
}
