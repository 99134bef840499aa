//! What a filter or its owner can observe that changed from one Envoy release to the next
//! (Envoy's changelogs and what real Envoys showed).

/// A change that a minor release made.
#[derive(Debug)]
pub struct Change {
    /// The minor number of the release that made it.
    pub since: u8,
    /// What is so since then.
    pub what: &'static str,
    /// Whether the mock host makes the difference.
    pub is_modelled: bool,
}

const fn modelled(since: u8, what: &'static str) -> Change {
    Change { since, what, is_modelled: true }
}

const fn not_modelled(since: u8, what: &'static str) -> Change {
    Change { since, what, is_modelled: false }
}

/// The changes, oldest first. What the first release of the tables has already is left out.
#[rustfmt::skip]
pub static CHANGES: &[Change] = &[
    modelled(23, "links env.emscripten_notify_memory_growth"),
    modelled(23, "a memory has at most 16384 pages (1 GiB)"),
    modelled(24, "traps calls that are not on the allow-lists of the start and of allocations"),
    modelled(28, "foreign function set_envoy_filter_state"),
    modelled(30, "foreign function verify_signature"),
    modelled(33, "links fd_fdstat_set_flags, poll_oneoff and sched_yield"),
    modelled(33, "foreign function clear_route_cache"),
    not_modelled(33, "attributes of the top-level xDS messages are gone from proxy_get_property; xds.* has them"),
    not_modelled(33, "header changes clear the route cache by the module's ABI version"),
    modelled(33, "failure_policy FAIL_RELOAD: the VM is made anew after a trap"),
    not_modelled(34, "no crash when contexts are deleted after a trap"),
    not_modelled(35, "a request whose callback traps gets its failure reply once; before, it could hang"),
    modelled(35, "option allow_on_headers_stop_iteration"),
    not_modelled(35, "V8's texts for traps, which are shown for older releases too"),
    modelled(37, "foreign functions act on the effective context"),
    modelled(37, "foreign function sign; keys as PEM"),
    modelled(37, "env.emscripten_notify_memory_growth may be called at the start"),
    modelled(37, "properties request.headers_bytes and response.headers_bytes"),
    modelled(38, "answers for an upstream that refuses connections do not give the transport's reason (seen in 1.39)"),
    modelled(38, "frames of a body that follow a resumption are not lost any more (seen in 1.39)"),
    modelled(38, "property connection.peer_certificate_valid"),
    modelled(38, "filter state objects envoy.hashable_string and envoy.network.upstream_subject_alt_names as text"),
    modelled(39, "links 27 more WASI functions"),
    modelled(39, "poll_oneoff succeeds"),
    modelled(39, "runs __main_void after _initialize"),
    not_modelled(39, "environment variables tell VMs apart, listener metadata no longer tells plugins apart"),
    not_modelled(39, "statistics of upstream filters are in the root scope; gauge wasm.wasm_vm_count"),
    modelled(40, "filter state object envoy.bool"),
];
