//! OCI layouts and plain files that are as they should be, or are not there.

use crate::support::{
    CONFIG, CONFIG_TYPE, CONTENT_TYPE, Layout, OCI_MANIFEST, WASM, get, get_with, manifest,
    options, rules,
};
use filtergate::image::{Digest, FetchOptions, Platform, SourceKind};
use filtergate::verdict::Severity;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_plain_file_may_hold_anything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.wasm");
    for content in [&b""[..], b"text", WASM, &WASM[..6]] {
        fs::write(&path, content).unwrap();
        let image = get(path.to_str().unwrap()).unwrap();
        assert_eq!(image.wasm, content);
        assert_eq!(image.wasm_sha256, Digest::sha256(content).hex());
        assert_eq!(image.shape.name(), "file");
        assert_eq!(image.kind, SourceKind::File);
        assert_eq!(image.reference, path.to_str().unwrap());
        assert_eq!((image.named_digest, image.manifest_digest), (None, None));
        assert_eq!(image.runtime_config, None);
        assert_eq!(image.notes, []);
        assert!(image.fetch.wall_ns > 0 && image.verify.wall_ns > 0);
    }
}

#[test]
fn a_missing_file_is_not_found() {
    for reference in ["./missing.wasm", "missing.wasm", "file:missing", "oci:missing:v1"] {
        let error = get(reference).unwrap_err();
        assert_eq!(error.rule().name(), "image/not-found", "{reference}");
        assert!(!error.is_verdict());
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn an_image_of_the_specification() {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let image = layout.get("v1").unwrap();
    assert_eq!(image.kind, SourceKind::OciLayout);
    assert_eq!(image.shape.name(), "spec-v0.0.0");
    assert_eq!(image.wasm, WASM);
    assert_eq!(image.runtime_config.unwrap().root_ids, ["one"]);
    assert_eq!(image.notes, []);
    assert_eq!(image.named_digest, image.manifest_digest);
    assert!(image.fetch.wall_ns > 0 && image.verify.wall_ns > 0);
}

#[test]
fn images_are_selected_by_tag_and_digest() {
    let mut layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let shown = layout.dir.path().display().to_string();
    // The only one needs no name.
    assert_eq!(get(&shown).unwrap().wasm, WASM);

    let module = layout.blob(CONTENT_TYPE, b"other");
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    let digest = layout.tag("v2", &manifest(config, vec![module]));
    assert_eq!(layout.get("v2").unwrap().wasm, b"other");
    let pinned = get(&format!("oci:{shown}@{digest}")).unwrap();
    assert_eq!(pinned.wasm, b"other");
    assert_eq!(pinned.named_digest, Some(digest));

    let error = get(&shown).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/invalid", false));
    assert!(error.to_string().contains("2 images: v1, v2"), "{error}");

    let error = layout.get("v3").unwrap_err();
    assert_eq!(error.rule().name(), "image/not-found");
    assert!(error.to_string().contains("v1, v2"), "{error}");

    let missing = Digest::sha256(b"missing");
    let error = get(&format!("oci:{shown}@{missing}")).unwrap_err();
    assert_eq!(error.rule().name(), "image/not-found");
    assert!(error.to_string().contains(&missing.to_string()), "{error}");
}

#[test]
fn an_empty_layout_has_no_image() {
    let layout = Layout::new();
    let error = get(&layout.dir.path().display().to_string()).unwrap_err();
    assert!(error.to_string().contains("no images"), "{error}");
}

#[test]
fn one_config_in_two_places_is_one_config() {
    let mut layout = Layout::new();
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    let layers = vec![layout.blob(CONTENT_TYPE, WASM), config.clone()];
    layout.tag("v1", &manifest(config, layers));
    let image = layout.get("v1").unwrap();
    assert_eq!(image.runtime_config.unwrap().root_ids, ["one"]);
    assert_eq!(image.notes, []);
}

/// An image whose module is the name of its architecture; its entry in an index.
fn image_for(layout: &Layout, architecture: &str) -> Value {
    let module = layout.blob(CONTENT_TYPE, architecture.as_bytes());
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    let mut entry = layout.blob(OCI_MANIFEST, &manifest(config, vec![module]));
    entry["platform"] = json!({ "os": "linux", "architecture": architecture });
    entry
}

#[test]
fn a_platform_can_be_asked_for() {
    let mut layout = Layout::new();
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        entries.push(image_for(&layout, architecture));
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    layout.tag("v1", index.to_string().as_bytes());
    assert_eq!(layout.get("v1").unwrap().wasm, b"amd64");
    let with = |architecture: &str| {
        let options = FetchOptions {
            platform: Some(Platform { os: "linux".into(), architecture: architecture.into() }),
            ..options()
        };
        get_with(&layout.reference("v1"), &options)
    };
    assert_eq!(with("arm64").unwrap().wasm, b"arm64");
    // Another platform than the consumers' is not replaced by the only one that there is.
    let error = with("riscv64").unwrap_err();
    assert_eq!(error.consumer_message(), None);
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/shape", true));
    assert!(error.to_string().contains("linux/amd64, linux/arm64"), "{error}");
}

#[test]
fn an_attestation_is_no_image() {
    let mut layout = Layout::new();
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    let module = layout.blob(CONTENT_TYPE, WASM);
    let mut image = layout.blob(OCI_MANIFEST, &manifest(config.clone(), vec![module]));
    image["platform"] = json!({ "os": "wasi", "architecture": "wasm" });
    let statement = layout.blob("application/vnd.in-toto+json", b"{}");
    let attestation = layout.blob(OCI_MANIFEST, &manifest(config, vec![statement]));
    let with = |key: &str, value: Value| {
        let mut entry = attestation.clone();
        entry[key] = value;
        entry
    };
    let unknown = with("platform", json!({ "os": "unknown", "architecture": "unknown" }));
    let annotated =
        with("annotations", json!({ "vnd.docker.reference.type": "attestation-manifest" }));
    let index = json!({ "schemaVersion": 2, "manifests": [unknown, annotated, image] });
    layout.tag("v1", index.to_string().as_bytes());
    assert_eq!(layout.get("v1").unwrap().wasm, WASM);
}

#[test]
fn a_layout_may_be_one_image_for_several_platforms() {
    let mut layout = Layout::new();
    for architecture in ["arm64", "amd64"] {
        let entry = image_for(&layout, architecture);
        layout.push_entry(entry);
    }
    let image = get(&layout.dir.path().display().to_string()).unwrap();
    assert_eq!(image.wasm, b"amd64");
    assert_ne!(image.named_digest, image.manifest_digest);
}

#[test]
fn a_second_module_layer_is_named() {
    let mut layout = Layout::new();
    let layers = vec![layout.blob(CONTENT_TYPE, WASM), layout.blob(CONTENT_TYPE, b"other")];
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    layout.tag("v1", &manifest(config, layers));
    let image = layout.get("v1").unwrap();
    assert_eq!(image.wasm, WASM);
    assert_eq!(rules(&image.notes), [("image/shape", Severity::Warning)]);
}

#[test]
fn a_sha512_digest_is_verified_too() {
    let mut layout = Layout::new();
    let hex = "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043";
    let dir = layout.dir.path().join("blobs/sha512");
    fs::create_dir(&dir).unwrap();
    let module = json!({ "mediaType": CONTENT_TYPE, "digest": format!("sha512:{hex}"), "size": 5 });
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    layout.tag("v1", &manifest(config, vec![module]));
    fs::write(dir.join(hex), "hello").unwrap();
    let image = layout.get("v1").unwrap();
    assert_eq!(image.wasm, b"hello");
    assert_eq!(image.wasm_sha256, Digest::sha256(b"hello").hex());
    fs::write(dir.join(hex), "hallo").unwrap();
    assert_eq!(layout.get("v1").unwrap_err().rule().name(), "image/digest-mismatch");
}
