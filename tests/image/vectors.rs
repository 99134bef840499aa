//! Every image that a real registry took, against what Istio's own fetcher said of it.

use crate::support::{Layout, data};
use filtergate::image::{Digest, Image, ImageError};
use filtergate::verdict::Severity;
use serde_json::Value;
use std::fs;

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(data(path)).unwrap()).unwrap()
}

/// All the vectors in one layout, with their names as tags.
fn layout() -> (Layout, Vec<String>) {
    let mut layout = Layout::new();
    for blob in fs::read_dir(data("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), layout.dir.path().join("blobs/sha256").join(blob.file_name()))
            .unwrap();
    }
    let shapes = json("shapes.json");
    let mut names = Vec::new();
    for shape in shapes.as_array().unwrap() {
        let name = shape["name"].as_str().unwrap();
        let manifest = fs::read(data(&format!("manifests/{name}.json"))).unwrap();
        assert_eq!(layout.tag(name, &manifest), shape["digest"], "{name}");
        names.push(name.to_owned());
    }
    (layout, names)
}

/// The texts that Istio would log, of notes or of the error.
fn objections(result: &Result<Image, ImageError>) -> Vec<String> {
    match result {
        Ok(image) => image
            .notes
            .iter()
            .filter(|note| !note.envoy_messages.is_empty())
            .map(|note| note.envoy_messages.join("\n"))
            .collect(),
        Err(error) => error.consumer_message().map(str::to_owned).into_iter().collect(),
    }
}

#[test]
fn every_image_is_judged_as_istio_judges_it() {
    let (layout, names) = layout();
    let verdicts = json("consumer-verdicts.json");
    let mut compared = 0;
    for name in names {
        let istio = &verdicts["shapes"][&name]["istio"];
        let Some(ok) = istio["ok"].as_bool() else {
            continue;
        };
        compared += 1;
        let result = layout.get(&name);
        let objections = objections(&result);
        if ok {
            let image = result.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(objections, [""; 0], "{name}");
            assert_eq!(
                Digest::sha256(&image.wasm).to_string(),
                istio["wasm"].as_str().unwrap(),
                "{name}"
            );
            assert_eq!(image.wasm_sha256, Digest::sha256(&image.wasm).hex());
            assert_eq!(
                image.manifest_digest.unwrap(),
                format!("sha256:{}", istio["checkedDigest"].as_str().unwrap()),
                "{name}"
            );
            continue;
        }
        let said = istio["error"].as_str().unwrap();
        if said == "fetched Wasm binary is invalid" {
            // It is about the bytes, which are not judged here.
            match result {
                Ok(image) => assert!(!image.wasm.starts_with(b"\0asm"), "{name}"),
                Err(_) => assert_eq!(objections, [said], "{name}"),
            }
            continue;
        }
        // The name of the image is another one in a layout.
        let until_name = |text: &str| match text.split_once(" in index ") {
            Some((text, _)) => text.to_owned(),
            None => text.to_owned(),
        };
        let objections: Vec<_> = objections.iter().map(|o| until_name(o)).collect();
        assert_eq!(objections, [until_name(said)], "{name}");
    }
    assert_eq!(compared, 63);
}

/// Vector, shape, severity of its worst note or rule of its error.
const SHAPES: &[(&str, &str, Option<&str>)] = &[
    ("solo-oci-wasme", "spec-v0.0.0", None),
    ("solo-oci-oras0", "spec-v0.0.0", None),
    ("solo-oci-oras12", "spec-v0.0.0", None),
    ("solo-oci-wasm-first", "spec-v0.0.0", None),
    ("solo-oci-three-layers", "spec-v0.0.0", Some("image/shape")),
    ("solo-oci-config-in-config", "spec-v0.0.0", Some("image/shape")),
    ("bad-higress-2.2.4-single-layer", "spec-v0.0.0", Some("image/shape")),
    ("compat-docker", "compat-docker", None),
    ("compat-docker-noconfig", "compat-docker", None),
    ("compat-docker-base-plus-plugin", "compat-docker", None),
    ("compat-oci-buildah", "compat-oci", None),
    ("compat-oci-nomediatype", "compat-oci", None),
    ("compat-oci-dotslash", "compat-oci", None),
    ("compat-oci-gzip-members", "compat-oci", None),
    ("compat-oci-gzip-trailing", "compat-oci", None),
    ("compat-oci-long-name", "compat-oci", None),
    ("compat-oci-pax", "compat-oci", None),
    ("compat-oci-nested-path", "compat-oci", None),
    ("compat-oci-tar-truncated-end", "compat-oci", None),
    ("compat-oci-two-plugins", "compat-oci", Some("image/shape")),
    ("higress-oras", "higress", None),
    ("boe-push-artifact", "built-on-envoy", None),
    ("wasm-to-oci", "wasm-to-oci", Some("image/shape")),
    ("kubewarden-policy", "kubewarden-policy", Some("image/shape")),
    ("cncf-wasm-v0-module", "cncf-wasm", Some("image/shape")),
    ("cncf-wasm-v0-component", "cncf-wasm", Some("image/shape")),
    ("runwasi-oci-layer", "runwasi", Some("image/shape")),
    ("wasme-legacy-0.0.8", "wasme-legacy", Some("image/shape")),
    ("wasme-legacy-0.0.9", "wasme-legacy", Some("image/shape")),
    ("wasme-legacy-0.0.12", "wasme-legacy", Some("image/shape")),
    ("index-buildx-attestation", "compat-oci", None),
    ("index-attestation-first", "compat-oci", None),
    ("index-docker-list-multiarch", "compat-docker", None),
    ("index-nested", "compat-oci", None),
    ("index-no-platform", "compat-oci", None),
    ("index-arm64-only", "compat-oci", Some("image/shape")),
    ("index-wasi-wasm", "compat-oci", Some("image/shape")),
    ("index-wasip1-wasm", "compat-oci", Some("image/shape")),
    ("bad-index-differs", "compat-oci", None),
    ("bad-compat-uncompressed", "compat-oci", Some("image/shape")),
    ("bad-compat-plain-as-gzip", "compat-oci", Some("image/shape")),
    ("bad-compat-docker-manifest-oci-layer", "compat-docker", Some("image/shape")),
    ("bad-compat-oci-manifest-docker-layer", "compat-oci", Some("image/shape")),
];

#[test]
fn every_shape_has_its_name() {
    let (layout, _) = layout();
    for (name, shape, rule) in SHAPES {
        let image = layout.get(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(image.shape.name(), *shape, "{name}");
        let odd = image
            .notes
            .iter()
            .find(|note| note.severity != Severity::Note && note.rule.name().starts_with("image/"));
        assert_eq!(odd.map(|note| note.rule.name()), *rule, "{name}: {:?}", image.notes);
    }
}

#[test]
fn an_image_without_a_module_is_a_verdict() {
    let (layout, _) = layout();
    for (name, rule, part) in [
        ("bad-compat-symlink", "image/shape", "a symbolic link"),
        ("bad-compat-hardlink", "image/shape", "a hard link"),
        ("bad-compat-directory", "image/shape", "a directory"),
        ("bad-compat-wrong-name", "image/shape", "has no plugin.wasm, only"),
        ("bad-compat-plugin-not-last", "image/shape", "last layer has no plugin.wasm"),
        ("bad-compat-whiteout", "image/shape", "last layer has no plugin.wasm"),
        ("boe-three-copies", "image/shape", "last layer has no plugin.wasm"),
        ("maistra-servicemeshextension", "image/shape", "only"),
        ("bad-compat-zstd", "image/shape", "zstd"),
        ("bad-compat-zstd-as-gzip", "image/shape", "zstd"),
        ("bad-no-layers", "image/shape", "no layers"),
        ("bad-empty-layer-artifact", "image/shape", "application/vnd.oci.empty.v1+json"),
        ("bad-higress-tar-first", "image/shape", "none of the image's 4 layers"),
        ("bad-oci-artifact-manifest", "image/shape", "artifact.manifest"),
        ("bad-compat-tar-cut", "image/invalid", "8 of 21 bytes"),
        ("bad-compat-wasm-as-targz", "image/invalid", "not an intact tar archive"),
    ] {
        let error = layout.get(name).map(|i| i.shape).expect_err(name);
        assert_eq!(error.rule().name(), rule, "{name}: {error}");
        assert!(error.is_verdict(), "{name}");
        assert!(error.to_string().contains(part), "{name}: {error}");
        assert!(!error.to_string().contains('\n'), "{name}");
        assert!(!error.help().is_empty(), "{name}");
    }
}

#[test]
fn a_damaged_trailer_behind_the_module_is_a_remark() {
    let (layout, _) = layout();
    let image = layout.get("bad-compat-gzip-cut").unwrap();
    assert_eq!(image.wasm.len(), 21);
}

#[test]
fn every_runtime_config_is_found() {
    let (layout, _) = layout();
    let mut found = 0;
    for shape in json("shapes.json").as_array().unwrap() {
        let name = shape["name"].as_str().unwrap();
        let expected = &shape["runtimeConfig"];
        if expected.is_null() {
            continue;
        }
        let config = layout.get(name).unwrap().runtime_config.expect(name);
        assert_eq!(&config.raw, expected, "{name}");
        assert_eq!(config.r#type.is_some(), expected.get("type").is_some(), "{name}");
        if name != "wasme-legacy-0.0.8" {
            assert_eq!(config.root_ids, ["hello_root"], "{name}");
        }
        found += 1;
    }
    assert!(found >= 8, "{found}");
}

#[test]
fn a_pinned_index_is_named_with_both_digests() {
    let (layout, _) = layout();
    let index = Digest::sha256(&fs::read(data("manifests/index-buildx-attestation.json")).unwrap());
    let image =
        crate::support::get(&format!("oci:{}@{index}", layout.dir.path().display())).unwrap();
    assert_eq!(image.named_digest, Some(index.to_string()));
    assert_ne!(image.manifest_digest, image.named_digest);
    let manifest = image.manifest_digest.unwrap();
    let note = image.notes.iter().find(|n| n.rule.name() == "image/shape").unwrap();
    assert!(note.message.contains(&manifest), "{}", note.message);
    assert_eq!(note.help, Some(format!("pin {manifest} instead")));
}
