//! Every image that a real registry took, against what Istio's and Envoy Gateway's own fetchers said
//! of it.

use crate::support::{Layout, data, inspect};
use filtergate::image::{Consumer, Digest};
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

/// What a consumer said of a vector, and what filtergate says that it would: whether it takes the
/// image, and its words if not.
#[derive(Debug, PartialEq)]
struct Said {
    takes: Option<bool>,
    log: Option<String>,
}

/// Of the name of the image, which is another one in a layout.
fn without_name(text: &str) -> String {
    text.split_once(" in index ").map_or(text, |(text, _)| text).to_owned()
}

#[test]
fn every_image_is_judged_as_its_consumers_judge_it() {
    let (layout, names) = layout();
    let verdicts = json("consumer-verdicts.json");
    let mut compared = 0;
    for name in names {
        let inspection = inspect(&layout.reference(&name));
        for (consumer, key) in
            [(Consumer::Istio, "istio"), (Consumer::EnvoyGateway, "envoyGateway")]
        {
            let theirs = &verdicts["shapes"][&name][key];
            let Some(ok) = theirs["ok"].as_bool() else { continue };
            let said = Said { takes: Some(ok), log: theirs["error"].as_str().map(without_name) };
            let ours = inspection.consumers.iter().find(|v| v.consumer == consumer).unwrap();
            let would_say = Said { takes: ours.takes, log: ours.log.as_deref().map(without_name) };
            assert_eq!(would_say, said, "{name}, {key}");
            compared += 1;
            if !ok {
                continue;
            }
            let image = inspection.image.as_ref().unwrap_or_else(|e| panic!("{name}: {e}"));
            let wasm = Digest::sha256(&image.wasm);
            assert_eq!(wasm.to_string(), theirs["wasm"].as_str().unwrap(), "{name}");
            assert_eq!(image.wasm_sha256, wasm.hex());
            let checked = format!("sha256:{}", theirs["checkedDigest"].as_str().unwrap());
            assert_eq!(image.manifest_digest.as_ref(), Some(&checked), "{name}");
        }
        // Whose fetcher is another's says what that says.
        let log = |consumer| {
            let all = &inspection.consumers;
            all.iter().find(|v| v.consumer == consumer).map(|v| (v.takes, v.log.clone()))
        };
        assert_eq!(log(Consumer::Higress), log(Consumer::Istio), "{name}");
    }
    assert_eq!(compared, 2 * 63);
}

/// The module is found wherever it is, also where no consumer looks for it.
#[test]
fn every_module_is_found() {
    let (layout, _) = layout();
    let mut found = 0;
    for shape in json("shapes.json").as_array().unwrap() {
        let name = shape["name"].as_str().unwrap();
        let Some(wasm) = shape["wasmDigest"].as_str() else { continue };
        match layout.get(name) {
            Ok(image) => {
                found += 1;
                assert_eq!(format!("sha256:{}", image.wasm_sha256), wasm, "{name}");
            }
            // What is deleted is not in the image, and of what is cut there is not enough.
            Err(error) => {
                let gone = ["bad-compat-whiteout", "bad-compat-tar-cut"];
                assert!(gone.contains(&name), "{name}: {error}");
            }
        }
    }
    assert_eq!(found, 60);
}

/// Vector, where its module is, and what is said of that.
#[test]
fn a_module_where_consumers_do_not_look_is_explained() {
    let (layout, _) = layout();
    for (name, layer, path, part) in [
        ("bad-compat-plugin-not-last", 1, Some("plugin.wasm"), "only LICENSE; layer 1 of 2 has it"),
        (
            "boe-three-copies",
            1,
            Some("plugin.wasm"),
            "only config.schema.json; layer 1 of 3 has it",
        ),
        ("maistra-servicemeshextension", 1, Some("extension.wasm"), "`manifest.yaml` names"),
        ("bad-compat-wrong-name", 1, Some("filter.wasm"), "`filter.wasm` in layer 1 of 1 is a"),
        ("bad-compat-symlink", 1, Some("real.wasm"), "a symbolic link to real.wasm, not a file"),
        ("bad-compat-hardlink", 1, Some("real.wasm"), "a hard link to real.wasm, not a file"),
        ("bad-compat-zstd", 1, Some("plugin.wasm"), "is compressed with zstd, where gzip is"),
        ("bad-compat-zstd-as-gzip", 1, Some("plugin.wasm"), "is compressed with zstd"),
        ("bad-compat-plain-as-gzip", 1, Some("plugin.wasm"), "the layer is not compressed"),
        ("bad-compat-uncompressed", 1, Some("plugin.wasm"), "the layer is not compressed"),
        ("bad-compat-wasm-as-targz", 1, None, "a module that is compressed with gzip"),
        ("bad-higress-tar-first", 1, Some("plugin.wasm"), "layer 1 of 4 has it"),
        ("bad-oci-artifact-manifest", 1, None, "which OCI withdrew"),
    ] {
        let image = layout.get(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let place = image.module_place.unwrap();
        assert_eq!((place.layer, place.path.as_deref()), (layer, path), "{name}");
        let found = image.notes.iter().find(|note| note.message.contains(part));
        let note = found.unwrap_or_else(|| panic!("{name}: {:?}", image.notes));
        assert_eq!((note.rule.name(), note.severity), ("image/shape", Severity::Warning), "{name}");
        assert!(note.help.is_some(), "{name}");
    }
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
    ("bad-index-differs", "compat-oci", Some("image/shape")),
    ("boe-three-copies", "built-on-envoy-build", Some("image/shape")),
    ("maistra-servicemeshextension", "maistra", Some("image/shape")),
    ("bad-oci-artifact-manifest", "oci-artifact", Some("image/shape")),
    ("bad-higress-tar-first", "higress", Some("image/shape")),
    ("bad-compat-zstd", "compat-oci", Some("image/shape")),
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
        ("bad-compat-whiteout", "image/shape", "layer 1 of 2 has it, and a layer above deletes it"),
        ("bad-no-layers", "image/shape", "no layers"),
        ("bad-empty-layer-artifact", "image/shape", "application/vnd.oci.empty.v1+json"),
        ("bad-compat-tar-cut", "image/invalid", "8 of 21 bytes"),
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
