//! The ABI versions that an image's runtime configuration may declare, and what they mean.
//!
//! A declared version is a claim about host builds, a list with OR meaning. The names come from
//! wasme's registry (solo-io/wasm `tools/wasme/cli/pkg/abi/version.go`); the set of markers is what
//! the host of that name accepts. Envoy itself never reads the declaration.

use super::AbiVersion;

/// What a declared ABI version means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredAbi {
    /// Who or what it names, for people.
    pub names: &'static str,
    /// The markers of modules that the named host accepts.
    pub markers: &'static [AbiVersion],
    /// Whether the named host took modules without a marker. No Envoy since 1.17 does.
    pub without_marker: bool,
    /// Whether the spelling is one that the field's own tools write.
    pub canonical: bool,
}

impl DeclaredAbi {
    /// Whether a module with this marker can be what the declaration says.
    pub fn accepts(&self, marker: AbiVersion) -> bool {
        self.markers.contains(&marker)
    }

    /// Whether the named host is older than every module that a current proxy loads.
    pub fn is_obsolete(&self) -> bool {
        self.without_marker
    }
}

use AbiVersion::{V0_1_0, V0_2_0, V0_2_1};

const KNOWN: &[(&str, &str, &[AbiVersion], bool)] = &[
    (
        "v0-541b2c1155fffb15ccde92b8324f3e38f7339ba6",
        "envoy-wasm of December 2019 (Gloo 1.3, Istio 1.5 before its release)",
        &[V0_1_0],
        true,
    ),
    ("v0-6d525c67f39b36cdff9d688697f266c1b55e9cb7", "envoy-wasm of 2019 (Istio 1.4)", &[], true),
    (
        "v0-097b7f2e4cc1fb490cc1943d0d633655ac3c522f",
        "envoy-wasm of December 2019 (Istio 1.5 and 1.6)",
        &[V0_1_0],
        true,
    ),
    (
        "v0-edc016b1fa5adca3ebd3d7020eaed0ad7b8814ca",
        "envoy-wasm of May 2020 (Gloo 1.5)",
        &[V0_1_0],
        false,
    ),
    (
        "v0-4689a30309abf31aee9ae36e73d34b1bb182685f",
        "envoy-wasm of August 2020 (Istio 1.7 to 1.9)",
        &[V0_1_0, V0_2_0],
        false,
    ),
    ("v0.2.1", "Envoy since October 2020 (Gloo 1.6 and later)", &[V0_1_0, V0_2_0, V0_2_1], false),
];

/// Looks a declared version up. Besides the registry's names this takes the version numbers
/// (`0.2.1`, `v0.2.0`, `0_2_1`) and the marker's name, which people write although no tool does;
/// a plain number names that ABI version alone.
pub fn declared_abi(label: &str) -> Option<DeclaredAbi> {
    if let Some((_, names, markers, without_marker)) =
        KNOWN.iter().find(|(known, ..)| *known == label)
    {
        return Some(DeclaredAbi {
            names,
            markers,
            without_marker: *without_marker,
            canonical: true,
        });
    }
    let number = label
        .trim()
        .trim_start_matches("proxy_abi_version_")
        .trim_start_matches(['v', 'V'])
        .replace('_', ".");
    let (names, markers): (_, &'static [AbiVersion]) = match number.as_str() {
        "0.1.0" => ("Proxy-Wasm ABI 0.1.0", &[V0_1_0]),
        "0.2.0" => ("Proxy-Wasm ABI 0.2.0", &[V0_2_0]),
        "0.2.1" => ("Proxy-Wasm ABI 0.2.1", &[V0_2_1]),
        _ => return None,
    };
    Some(DeclaredAbi { names, markers, without_marker: false, canonical: false })
}
