//! `filtergate bench --envoy`: what a real Envoy's log tells of a load, beside ours.

use std::process::Command;

use serde_json::Value;

use crate::{Slot, oracles, prebuilt};

#[test]
fn the_load_in_a_real_envoy_is_beside_ours() {
    for oracle in oracles() {
        let _slot = Slot::wait();
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.html");
        let output = Command::new(env!("CARGO_BIN_EXE_filtergate"))
            .args(["bench", "--runs", "1", "--warmup", "0", "--format", "json"])
            .arg(prebuilt("add-header"))
            .args(["--target", oracle.target.name(), "--envoy"])
            .arg(&oracle.binary)
            .arg("--html")
            .arg(&page)
            .env("FILTERGATE_CACHE", folder.path().join("cache"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", oracle.target.name());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let envoy = &json["in_envoy"];
        let release = envoy["release"].as_str().unwrap();
        let target = oracle.target.name().strip_prefix("envoy:").unwrap();
        assert!(release.starts_with(&format!("{target}.")), "{release} is no {target}");
        assert_eq!(envoy["runs"], 1);
        let phases = envoy["phases"].as_array().unwrap();
        let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["compile", "start", "vm_start", "configure"]);
        let median = |times: &Value| times["median"].as_u64().unwrap();
        let in_phases: u64 = phases.iter().map(|phase| median(&phase["wall_ns"])).sum();
        assert!(median(&phases[0]["wall_ns"]) > 0);
        // They are parts of the way from its first line to where it serves.
        assert!(in_phases < median(&envoy["ready_ns"]));
        assert!(median(&envoy["without_filter_ns"]) > 0);
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&format!(">Envoy {release} (wall)</text>")));
        assert!(page.contains("<title>compile in Envoy (wall): "));
    }
}
