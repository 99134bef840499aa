//! One row for each minor release of Envoy that can be a target.
//!
//! Host revision, V8 version and date are those of the `.0` release (Envoy's
//! `bazel/repository_locations.bzl` and `bazel/deps.yaml`). Each row says what differs from the row
//! before it; what a host function's own row says (`since`) is not repeated here.

/// What Envoy minor releases differ in, apart from the functions that they link.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// The minor number of Envoy 1.x.
    pub minor: u8,
    /// The day of the `.0` release, where that is known.
    pub date: Option<&'static str>,
    /// The revision of proxy-wasm-cpp-host.
    pub host: &'static str,
    /// The version of V8.
    pub v8: &'static str,
    /// The first patch release that has another V8, and that version.
    pub v8_of_patch: Option<(u16, &'static str)>,
    /// How it is known which wasm proposals its V8 has on.
    pub evidence: Evidence,
    /// Pages of 64 KiB that a module's memory may have at most (V8's `--wasm-max-mem-pages`).
    pub max_memory_pages: u32,
    /// Whether V8 traps calls in `_initialize`, `_start`, `main` and allocations that are not on the
    /// allow-lists.
    pub restricts_start: bool,
    /// Whether the export `__main_void` is looked up.
    pub runs_main_void: bool,
    /// Whether `poll_oneoff` succeeds (52 ENOSYS otherwise).
    pub poll_oneoff_succeeds: bool,
    /// Whether `set_envoy_filter_state` and `clear_route_cache` act on the effective context, not on
    /// the current one.
    pub foreign_functions_follow_effective_context: bool,
}

/// How it is known which wasm proposals a release's V8 has on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A module for each proposal was given to this Envoy.
    Measured(&'static str),
    /// The same V8 was measured in this Envoy.
    SameV8(&'static str),
    /// No Envoy with this V8 was at hand: V8's own list of proposals says it.
    NotMeasured,
}

const ENVOY_1_22: Release = Release {
    minor: 22,
    date: Some("2022-04-15"),
    host: "694a0b073912",
    v8: "10.0.139.6",
    v8_of_patch: None,
    evidence: Evidence::NotMeasured,
    max_memory_pages: 65_536,
    restricts_start: false,
    runs_main_void: false,
    poll_oneoff_succeeds: false,
    foreign_functions_follow_effective_context: false,
};
const ENVOY_1_23: Release = Release {
    minor: 23,
    date: Some("2022-07-15"),
    host: "2cf68d6c00b4",
    v8: "10.4.132.18",
    max_memory_pages: 16_384,
    ..ENVOY_1_22
};
const ENVOY_1_24: Release = Release {
    minor: 24,
    date: Some("2022-10-19"),
    host: "b0a0594e8ab4",
    v8: "10.7.193.13",
    restricts_start: true,
    ..ENVOY_1_23
};
const ENVOY_1_25: Release =
    Release { minor: 25, date: Some("2023-01-18"), host: "72ce32f7b11f", ..ENVOY_1_24 };
const ENVOY_1_26: Release =
    Release { minor: 26, date: Some("2023-04-17"), host: "8aa8053609d8", ..ENVOY_1_25 };
const ENVOY_1_27: Release =
    Release { minor: 27, date: Some("2023-07-26"), host: "5d76116c449d", ..ENVOY_1_26 };
const ENVOY_1_28: Release = Release { minor: 28, date: Some("2023-10-19"), ..ENVOY_1_27 };
const ENVOY_1_29: Release =
    Release { minor: 29, date: Some("2024-01-16"), host: "e200fee8af40", ..ENVOY_1_28 };
const ENVOY_1_30: Release = Release { minor: 30, date: Some("2024-04-16"), ..ENVOY_1_29 };
const ENVOY_1_31: Release = Release { minor: 31, date: Some("2024-07-19"), ..ENVOY_1_30 };
const ENVOY_1_32: Release =
    Release { minor: 32, date: Some("2024-10-15"), host: "f199214a4333", ..ENVOY_1_31 };
const ENVOY_1_33: Release = Release {
    minor: 33,
    date: Some("2025-01-14"),
    host: "c4d7bb0fda91",
    v8_of_patch: Some((6, "12.9.202.27")),
    ..ENVOY_1_32
};
const ENVOY_1_34: Release = Release {
    minor: 34,
    date: Some("2025-04-15"),
    v8_of_patch: Some((4, "12.9.202.27")),
    ..ENVOY_1_33
};
const ENVOY_1_35: Release = Release {
    minor: 35,
    date: Some("2025-07-23"),
    host: "65bb78fbf8be",
    v8: "13.8.258.26",
    v8_of_patch: None,
    evidence: Evidence::SameV8("1.36.4"),
    ..ENVOY_1_34
};
const ENVOY_1_36: Release = Release {
    minor: 36,
    date: Some("2025-10-14"),
    evidence: Evidence::Measured("1.36.4"),
    ..ENVOY_1_35
};
const ENVOY_1_37: Release = Release {
    minor: 37,
    date: Some("2026-01-13"),
    host: "c8868da77499",
    evidence: Evidence::Measured("1.37.0"),
    foreign_functions_follow_effective_context: true,
    ..ENVOY_1_36
};
const ENVOY_1_38: Release = Release {
    minor: 38,
    date: Some("2026-04-24"),
    host: "beb8a4ece9ee",
    v8: "14.6.202.10",
    evidence: Evidence::SameV8("1.39.3"),
    ..ENVOY_1_37
};
const ENVOY_1_39: Release = Release {
    minor: 39,
    date: Some("2026-07-14"),
    host: "f2db56af4435",
    evidence: Evidence::Measured("1.39.3"),
    runs_main_void: true,
    poll_oneoff_succeeds: true,
    ..ENVOY_1_38
};
const ENVOY_1_40: Release =
    Release { minor: 40, date: None, evidence: Evidence::Measured("1.40.0"), ..ENVOY_1_39 };

/// The releases, oldest first, without a gap.
pub static RELEASES: &[Release] = &[
    ENVOY_1_22, ENVOY_1_23, ENVOY_1_24, ENVOY_1_25, ENVOY_1_26, ENVOY_1_27, ENVOY_1_28, ENVOY_1_29,
    ENVOY_1_30, ENVOY_1_31, ENVOY_1_32, ENVOY_1_33, ENVOY_1_34, ENVOY_1_35, ENVOY_1_36, ENVOY_1_37,
    ENVOY_1_38, ENVOY_1_39, ENVOY_1_40,
];
