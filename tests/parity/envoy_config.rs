//! What `filtergate envoy-config` prints, given to a real Envoy: it validates it, which loads the
//! module and configures the plugin.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{oracles, root};

/// A module that logs its root_id, and its plugin and VM configuration between brackets.
const LOGS_ITS_CONFIGURATION: &str = r#"(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes"
    (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property"
    (func $property (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "plugin_root_id")
  (global $top (mut i32) (i32.const 65536))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $size))))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func $show (param $buffer i32) (param $size i32)
    (drop (call $buffer
      (local.get $buffer) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4)))
    (drop (call $log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4)))))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
    (call $show (i32.const 6) (local.get 1))
    (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (call $show (i32.const 7) (local.get 1))
    (drop (call $property (i32.const 16) (i32.const 14) (i32.const 0) (i32.const 4)))
    (drop (call $log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
    (i32.const 1)))"#;

/// What is hard to quote.
const HARD: &str = "a \"b\" 'c' \\ # d: [e, {f}] & *g !h %i @j `k`\n\t- no\n  ü → 😀 \u{7f} \u{85}\u{2028}\u{feff}\u{202e}end";

/// The configuration for Envoy, and that it takes it; what it logs.
fn validated(binary: &Path, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let is_json = arguments.contains(&"json");
    let file = folder.path().join(if is_json { "envoy.json" } else { "envoy.yaml" });
    let printed = Command::new(env!("CARGO_BIN_EXE_filtergate"))
        .args(["envoy-config", "--bootstrap"])
        .args(arguments)
        .env("FILTERGATE_CACHE", folder.path().join("cache"))
        .env_remove("FILTERGATE_NO_CACHE")
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8(printed.stderr).unwrap();
    assert!(printed.status.success(), "{arguments:?}: {errors}");
    std::fs::write(&file, &printed.stdout).unwrap();
    let output = Command::new(binary)
        .args(["--mode", "validate", "--disable-hot-restart", "-l", "info", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let text = text.into_owned();
    let config = String::from_utf8_lossy(&printed.stdout);
    assert!(output.status.success(), "{arguments:?}: {text}\n{config}");
    assert!(text.contains("OK"), "{arguments:?}: {text}");
    text
}

fn prebuilt(name: &str) -> String {
    format!("filters/prebuilt/{name}.wasm")
}

#[test]
fn envoy_takes_what_is_printed() {
    for oracle in oracles() {
        let envoy = &oracle.binary;
        let image = "oci:examples/images/add-header";
        for format in ["yaml", "json"] {
            // A filter for each root_id.
            let log = validated(envoy, &[image, "--format", format]);
            for root_id in ["add_request_header", "add_response_header"] {
                assert!(log.contains(&format!("configured as `{root_id}`")), "{log}");
            }
        }
        for filter in ["noop", "limit-body"] {
            validated(envoy, &[&prebuilt(filter)]);
        }
        let filter = prebuilt("probe-tcp");
        validated(envoy, &[&filter, "--filter", "network"]);
        let options = ["--failure-policy", "open", "--vm-id", "one", "--headers-stop-iteration"];
        let more = ["--env", "A=b", "--allow-capability", "proxy_on_vm_start"];
        let noop = prebuilt("noop");
        validated(envoy, &[&[noop.as_str()], &options[..], &more[..]].concat());
        // Envoy does not fetch it to validate a configuration.
        for url in ["https://modules.example/filter.wasm?x=\"1\"", "http://[::1]:8080/filter.wasm"]
        {
            validated(envoy, &[&noop, "--remote", url, "--no-cache"]);
        }
    }
}

#[test]
fn envoy_reads_every_character() {
    let folder = tempfile::tempdir().unwrap();
    let module: PathBuf = folder.path().join("it's \"a\" filter: #1.wasm");
    std::fs::write(&module, wat::parse_str(LOGS_ITS_CONFIGURATION).unwrap()).unwrap();
    let module = module.to_str().unwrap();
    let binary = folder.path().join("configuration");
    std::fs::write(&binary, b"\xff\xfe bytes").unwrap();
    let binary = format!("@{}", binary.display());
    for oracle in oracles() {
        for format in ["yaml", "json"] {
            let options = ["--root-id", HARD, "--config", HARD, "--vm-config", HARD];
            let variable = format!("NAME={HARD}");
            let more = ["--name", HARD, "--vm-id", HARD, "--env", &variable, "--format", format];
            let log = validated(&oracle.binary, &[&[module], &options[..], &more].concat());
            // From VM start, plugin configuration and root_id, each of them at least once.
            assert!(log.matches(HARD).count() >= 3, "{log}");
            // Envoy's log has them as they are, and this test only what is UTF-8.
            let log = validated(&oracle.binary, &[module, "--config", &binary, "--format", format]);
            assert!(log.contains("\u{fffd}\u{fffd} bytes"), "{log}");
        }
    }
}
