//! Images pushed to a real registry, and pulled from it.
//!
//! These tests need a registry on loopback that takes pushes from anybody: set `FILTERGATE_REGISTRY`
//! to its `HOST:PORT`. Some copy with `skopeo`, which `FILTERGATE_SKOPEO` may name. `private` needs two
//! more registries, and `published` these and a Python. Without them the tests are skipped, and say so.

mod images;
mod private;
mod published;
mod push;

#[path = "../support/check.rs"]
mod check;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use filtergate::{
    CheckOptions,
    image::{Consumer, CredentialSource, Digest, FetchOptions, NoProgress, Source},
    verdict::{Outcome, Rule, Severity, Verdict},
};
use serde_json::{Value, json};

use crate::{
    images::{OCI_INDEX, Pushable},
    push::Registry,
};

fn registry() -> Option<Registry> {
    let host = support::needs("FILTERGATE_REGISTRY", "the HOST:PORT of a registry on loopback")?;
    Some(Registry::new(host))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn module() -> Vec<u8> {
    std::fs::read(root().join("filters/prebuilt/add-header.wasm")).unwrap()
}

fn options() -> CheckOptions {
    let fetch =
        FetchOptions { credentials: CredentialSource::Anonymous, ..FetchOptions::default() };
    CheckOptions { fetch, ..CheckOptions::default() }
}

fn check(reference: &str) -> Verdict {
    check::check(reference, &options())
}

/// Pushes an image index, tagged `v1`, of an image for amd64 and one for arm64; its digest.
fn push_index(registry: &Registry, repository: &str, amd64: &Pushable, arm64: &Pushable) -> String {
    let entry = |image: &Pushable, architecture: &str| {
        json!({
            "mediaType": image.media_type,
            "digest": registry.push(repository, architecture, image),
            "size": image.manifest.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry(arm64, "arm64"), entry(amd64, "amd64")],
    });
    let index = Pushable {
        manifest: index.to_string().into_bytes(),
        media_type: OCI_INDEX.to_owned(),
        blobs: Vec::new(),
    };
    registry.push(repository, "v1", &index)
}

/// The rules of a verdict's errors and warnings.
fn complaints(verdict: &Verdict) -> Vec<Rule> {
    let all = verdict.findings.iter();
    all.filter(|finding| finding.severity != Severity::Note).map(|finding| finding.rule).collect()
}

/// That `reference` leads to add-header, in an image of this shape and with these digests.
fn assert_pulls(reference: &str, shape: &str, named_digest: &str, manifest_digest: &str) {
    assert_pulls_with(reference, &options(), shape, named_digest, manifest_digest);
}

fn assert_pulls_with(
    reference: &str,
    options: &CheckOptions,
    shape: &str,
    named_digest: &str,
    manifest_digest: &str,
) {
    let verdict = check::check(reference, options);
    assert_eq!(verdict.outcome, Outcome::Pass, "{reference}: {:?}", verdict.findings);
    // Istio and Envoy Gateway refuse an index that is pinned.
    let pins_an_index = named_digest != manifest_digest && reference.contains('@');
    let expected = if pins_an_index { vec![Rule::ImageShape] } else { Vec::new() };
    assert_eq!(complaints(&verdict), expected, "{reference}");
    assert_eq!(verdict.loads, Some(true), "{reference}");
    let image = verdict.image.as_ref().unwrap();
    assert_eq!(image.shape, shape, "{reference}");
    assert_eq!(image.named_digest.as_deref(), Some(named_digest), "{reference}");
    assert_eq!(image.manifest_digest.as_deref(), Some(manifest_digest), "{reference}");
    let sha256 = Digest::sha256(&module()).hex().to_owned();
    assert_eq!(verdict.module.unwrap().sha256, sha256, "{reference}");
    let roots: Vec<_> =
        verdict.roots.iter().map(|root| (root.root_id.as_str(), root.accepted)).collect();
    assert_eq!(roots, [("add_request_header", true), ("add_response_header", true)], "{reference}");
}

/// By tag, by digest, and by both.
fn assert_pulls_every_way(registry: &Registry, image: &Pushable, repository: &str, shape: &str) {
    assert_pulls_every_way_with(registry, &options(), image, repository, shape);
}

fn assert_pulls_every_way_with(
    registry: &Registry,
    options: &CheckOptions,
    image: &Pushable,
    repository: &str,
    shape: &str,
) {
    let digest = registry.push(repository, "v1", image);
    for name in [
        format!("{repository}:v1"),
        format!("{repository}@{digest}"),
        format!("{repository}:v1@{digest}"),
    ] {
        assert_pulls_with(&registry.reference(&name), options, shape, &digest, &digest);
    }
}

#[test]
fn an_image_of_the_specification() {
    let Some(registry) = registry() else { return };
    let image = images::specification(&module());
    assert_pulls_every_way(&registry, &image, "filtergate-test/spec", "spec-v0.0.0");
}

#[test]
fn a_compat_image_with_oci_types() {
    let Some(registry) = registry() else { return };
    let image = images::compat_oci(&module());
    assert_pulls_every_way(&registry, &image, "filtergate-test/compat-oci", "compat-oci");
}

#[test]
fn a_compat_image_with_docker_types() {
    let Some(registry) = registry() else { return };
    let image = images::compat_docker(&module());
    assert_pulls_every_way(&registry, &image, "filtergate-test/compat-docker", "compat-docker");
}

#[test]
fn an_index_of_two_platforms() {
    let Some(registry) = registry() else { return };
    let repository = "filtergate-test/index";
    let (ours, other) = (images::compat_oci(&module()), images::specification(&module()));
    let digest = push_index(&registry, repository, &ours, &other);
    let child = Digest::sha256(&ours.manifest).to_string();
    for name in [format!("{repository}:v1"), format!("{repository}@{digest}")] {
        assert_pulls(&registry.reference(&name), "compat-oci", &digest, &child);
    }
    // Past the index.
    let reference = registry.reference(&format!("{repository}@{child}"));
    assert_pulls(&reference, "compat-oci", &child, &child);
}

/// The verdict on a module does not depend on how it was had.
#[test]
fn the_verdict_is_that_on_the_layout() {
    let Some(registry) = registry() else { return };
    let here = check(&format!("oci:{}", root().join("examples/images/add-header").display()));
    let (image, digest) = images::example(root());
    let pushed = registry.push("filtergate-test/example", "1.0", &image);
    assert_eq!(pushed, digest);
    let there = check(&registry.reference("filtergate-test/example:1.0"));
    assert_eq!(there.findings, here.findings);
    assert_eq!(there.outcome, here.outcome);
    let digests = |verdict: &Verdict| {
        let image = verdict.image.as_ref().unwrap();
        let module = verdict.module.as_ref().unwrap();
        (
            image.named_digest.clone(),
            image.manifest_digest.clone(),
            image.shape,
            module.sha256.clone(),
        )
    };
    assert_eq!(digests(&there), digests(&here));
    let logs = |verdict: &Verdict| -> Vec<_> {
        verdict.roots.iter().map(|root| (root.root_id.clone(), root.logs.clone())).collect()
    };
    assert_eq!(logs(&there), logs(&here));
}

#[test]
fn what_is_not_there_is_not_found() {
    let Some(registry) = registry() else { return };
    let repository = "filtergate-test/absent";
    registry.push(repository, "v1", &images::specification(&module()));
    let other = Digest::sha256(b"another manifest");
    for name in [
        format!("{repository}:v2"),
        "filtergate-test/no-such-repository:v1".to_owned(),
        format!("{repository}@{other}"),
        // What the tag leads to is not what is pinned.
        format!("{repository}:v1@{other}"),
    ] {
        let reference = registry.reference(&name);
        let verdict = check(&reference);
        assert_eq!(verdict.outcome, Outcome::Undecided, "{name}");
        assert_eq!(verdict.loads, None, "{name}");
        let rules: Vec<_> = verdict.findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, [Rule::ImageNotFound], "{name}");
        let finding = &verdict.findings[0];
        assert!(finding.message.contains(&reference), "{name}: {}", finding.message);
        assert!(finding.help.is_some(), "{name}");
    }
}

/// Every recorded image, on its way through a registry, by tag and by digest: the verdict is that of
/// Istio's own fetcher, and the module is the one that it took out of it.
#[test]
fn every_recorded_image() {
    let Some(registry) = registry() else { return };
    let data = root().join("tests/data/oci");
    let json = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(data.join(path)).unwrap()).unwrap()
    };
    let (shapes, verdicts) = (json("shapes.json"), json("consumer-verdicts.json"));
    let mut compared = 0;
    // One is of a kind that no registry takes any more.
    let taken = |shape: &&Value| shape["putStatus"] == 201;
    for shape in shapes.as_array().unwrap().iter().filter(taken) {
        let name = shape["name"].as_str().unwrap();
        let media_type = shape["contentType"].as_str().unwrap();
        let repository = format!("filtergate-test/recorded/{}", name.to_lowercase());
        let manifest = std::fs::read(data.join(format!("manifests/{name}.json"))).unwrap();
        let digest = registry.push_with_blobs_of(&repository, "v1", manifest, media_type, &data);
        assert_eq!(shape["digest"], digest, "{name}");
        let istio = &verdicts["shapes"][name]["istio"];
        for id in [":v1".to_owned(), format!("@{digest}")] {
            let reference = registry.reference(&format!("{repository}{id}"));
            let source = Source::parse(&reference).unwrap();
            let inspection = push::block_on(filtergate::image::inspect(
                &source,
                &reference,
                &options().fetch,
                &NoProgress,
            ));
            assert_eq!(inspection.named_digest.as_deref(), Some(digest.as_str()), "{name}");
            // Who pins an index is refused.
            let is_pinned_index = id.starts_with('@') && name.contains("index-");
            let verdict = &inspection.consumers[0];
            assert_eq!(verdict.consumer, Consumer::Istio);
            let takes = istio["ok"] == true && !is_pinned_index;
            assert_eq!(verdict.takes, Some(takes), "{name}: {:?}", verdict.log);
            if let (Some(log), Some(theirs)) = (&verdict.log, istio["error"].as_str()) {
                let of_image = |text: &str| text.split(" in index ").next().unwrap().to_owned();
                assert_eq!(of_image(log), of_image(theirs), "{name}");
            }
            if istio["ok"] == true {
                compared += 1;
                let image = inspection.image.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(istio["wasm"], Digest::sha256(&image.wasm).to_string(), "{name}");
            }
        }
    }
    assert_eq!(compared, 2 * 27);
}

#[test]
fn an_image_that_skopeo_copied() {
    let Some(registry) = registry() else { return };
    let Some(skopeo) = skopeo() else { return };
    let layout = root().join("examples/images/add-header");
    let reference = registry.reference("filtergate-test/skopeo:1.0");
    let output = std::process::Command::new(skopeo)
        .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:1.0", layout.display()))
        .arg(format!("docker://{reference}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    let (_, digest) = images::example(root());
    assert_pulls(&reference, "spec-v0.0.0", &digest, &digest);
}

/// The one that is named, else the one on the path.
fn skopeo() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("skopeo")).find(|p| p.is_file())
    });
    match (std::env::var_os("FILTERGATE_SKOPEO"), on_path) {
        (Some(named), _) => Some(named.into()),
        (None, Some(found)) => Some(found),
        (None, None) => support::needs("FILTERGATE_SKOPEO", "the path of skopeo").map(Into::into),
    }
}
