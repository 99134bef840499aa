//! Pulls from a registry on this machine's loopback.

use crate::server::{Answer, Request, Server};
use crate::support::{
    CONFIG, CONFIG_TYPE, CONTENT_TYPE, OCI_MANIFEST, WASM, block_on, descriptor, manifest, options,
};
use filtergate::image::{
    Digest, FetchOptions, Image, ImageError, NoProgress, Source, SourceKind, fetch,
};
use serde_json::json;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

pub fn image_manifest() -> Vec<u8> {
    manifest(
        descriptor("application/vnd.unknown.config.v1+json", b"{}"),
        vec![descriptor(CONFIG_TYPE, CONFIG.as_bytes()), descriptor(CONTENT_TYPE, WASM)],
    )
}

/// The answers of a registry that has one good image.
pub fn good(request: &Request) -> Answer {
    if request.path == "/v2/" {
        return Answer::new(200, "{}");
    }
    let Some((kind, id)) =
        request.path.strip_prefix("/v2/acme/filter/").and_then(|p| p.split_once('/'))
    else {
        return Answer::error(404, "NAME_UNKNOWN", "no such repository here");
    };
    let manifest = image_manifest();
    if kind == "manifests" && (id == "v1" || id == Digest::sha256(&manifest).to_string()) {
        let digest = Digest::sha256(&manifest).to_string();
        return Answer::new(200, manifest)
            .header("Content-Type", OCI_MANIFEST)
            .header("Docker-Content-Digest", &digest);
    }
    if kind == "manifests" {
        return Answer::error(404, "MANIFEST_UNKNOWN", "no such tag here");
    }
    for blob in [WASM, CONFIG.as_bytes(), b"{}"] {
        if Digest::sha256(blob).to_string() == id {
            return Answer::new(200, blob);
        }
    }
    Answer::error(404, "BLOB_UNKNOWN", "no such blob here")
}

pub fn is_wasm_blob(request: &Request) -> bool {
    request.path.ends_with(Digest::sha256(WASM).hex())
}

pub fn pull(server: &Server, name: &str) -> Result<Image, ImageError> {
    pull_with(server, name, &options())
}

pub fn pull_with(server: &Server, name: &str, options: &FetchOptions) -> Result<Image, ImageError> {
    let reference = format!("{}/{name}", server.host());
    let source = Source::parse(&reference).unwrap();
    block_on(fetch(&source, &reference, options, &NoProgress))
}

#[test]
fn by_tag() {
    let server = Server::start(good);
    let image = pull(&server, "acme/filter:v1").unwrap();
    assert_eq!(image.kind, SourceKind::Registry);
    assert_eq!(image.shape.name(), "spec-v0.0.0");
    assert_eq!(image.wasm, WASM);
    assert_eq!(image.runtime_config.unwrap().root_ids, ["one"]);
    assert_eq!(image.notes, []);
    assert_eq!(image.reference, format!("{}/acme/filter:v1", server.host()));
    let digest = Digest::sha256(&image_manifest()).to_string();
    assert_eq!(image.named_digest.as_ref(), Some(&digest));
    assert_eq!(image.manifest_digest, Some(digest));
    let accepts = server.requests();
    let accept = accepts.iter().find(|r| r.path.contains("/manifests/")).unwrap().header("accept");
    for media_type in [
        OCI_MANIFEST,
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ] {
        assert!(accept.contains(media_type), "{accept}");
    }
}

#[test]
fn by_digest() {
    let server = Server::start(good);
    let digest = Digest::sha256(&image_manifest());
    for name in [format!("acme/filter@{digest}"), format!("acme/filter:any@{digest}")] {
        let image = pull(&server, &name).unwrap();
        assert_eq!(image.named_digest, Some(digest.to_string()));
    }
}

#[test]
fn a_manifest_that_is_not_what_the_reference_pins() {
    let pinned = Digest::sha256(b"another");
    let server = Server::start(|request| match request.path.contains("/manifests/") {
        true => Answer::new(200, image_manifest()),
        false => good(request),
    });
    let error = pull(&server, &format!("acme/filter@{pinned}")).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/digest-mismatch", true));
    assert!(error.to_string().contains(&pinned.to_string()), "{error}");
}

#[test]
fn a_manifest_that_is_not_what_the_header_says() {
    let server = Server::start(|request| match request.path.contains("/manifests/") {
        true => Answer::new(200, image_manifest())
            .header("Docker-Content-Digest", &Digest::sha256(b"another").to_string()),
        false => good(request),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!(error.rule().name(), "image/digest-mismatch", "{error}");
}

#[test]
fn an_index_leads_to_its_manifest() {
    let child = descriptor(OCI_MANIFEST, &image_manifest());
    let index = json!({ "schemaVersion": 2, "manifests": [child] }).to_string();
    let named = Digest::sha256(index.as_bytes()).to_string();
    let server = Server::start(move |request| match request.path.ends_with("/manifests/multi") {
        true => Answer::new(200, index.as_str()),
        false => good(request),
    });
    let image = pull(&server, "acme/filter:multi").unwrap();
    assert_eq!(image.wasm, WASM);
    assert_eq!(image.named_digest, Some(named));
    assert_eq!(image.manifest_digest, Some(Digest::sha256(&image_manifest()).to_string()));
}

#[test]
fn what_is_not_there_is_asked_for_once() {
    let server = Server::start(good);
    for (name, part) in [
        ("acme/filter:v2", "MANIFEST_UNKNOWN: no such tag here"),
        ("acme/other:v1", "NAME_UNKNOWN: no such repository here"),
    ] {
        let error = pull(&server, name).unwrap_err();
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/not-found", false));
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let asked = server.count(|r| r.path.contains("/manifests/"));
    assert_eq!(asked, 2);
}

#[test]
fn a_host_that_is_no_registry() {
    let server = Server::start(|_| Answer::new(200, "\n<!DOCTYPE html>"));
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unreachable", false));
    assert!(error.to_string().contains("web page"), "{error}");
}

#[test]
fn a_plain_404_keeps_its_text() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(200, ""),
        _ => Answer::new(404, "page not\nfound"),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!(error.rule().name(), "image/not-found");
    assert!(error.to_string().contains("404: page not found"), "{error}");
}

#[test]
fn a_blob_that_is_not_there() {
    let server = Server::start(|request| match is_wasm_blob(request) {
        true => Answer::error(404, "BLOB_UNKNOWN", "lost"),
        false => good(request),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/not-found", false));
    assert!(error.to_string().contains(Digest::sha256(WASM).hex()), "{error}");
}

#[test]
fn a_refusal_says_what_was_tried() {
    let server = Server::start(|_| Answer::error(401, "UNAUTHORIZED", "no"));
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unauthorized", false));
    assert!(error.to_string().contains("anonymous"), "{error}");
    assert!(error.help().contains(&format!("docker login {}", server.host())));
    assert_eq!(server.count(|r| r.path.contains("/manifests/")), 1);

    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(200, ""),
        _ => Answer::error(403, "DENIED", "requested access is denied"),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!(error.rule().name(), "image/unauthorized");
    assert!(error.to_string().contains("requested access is denied"), "{error}");
}

#[test]
fn a_refused_connection_is_unreachable() {
    // On an address of its own, so that no other test gets the port.
    let listener = TcpListener::bind("127.77.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let reference = format!("{host}/acme/filter:v1");
    let source = Source::parse(&reference).unwrap();
    let error = block_on(fetch(&source, &reference, &options(), &NoProgress)).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unreachable", false));
    // The cause, and not only "error sending request".
    assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
    assert!(error.help().contains(&host));
}

#[test]
fn trouble_that_passes_is_waited_for() {
    for status in [500, 503, 429] {
        for part in ["/manifests/", "/blobs/"] {
            let failures = Mutex::new(2);
            let server = Server::start(move |request| {
                let mut left = failures.lock().unwrap();
                if request.path.contains(part) && *left > 0 {
                    *left -= 1;
                    return Answer::error(status, "TOOMANYREQUESTS", "not now");
                }
                good(request)
            });
            let image = pull(&server, "acme/filter:v1").unwrap();
            assert_eq!(image.wasm, WASM, "{status} {part}");
        }
    }
}

#[test]
fn trouble_that_stays_is_given_up() {
    let server = Server::start(|request| match request.path.contains("/manifests/") {
        true => Answer::new(502, "<html>bad gateway</html>"),
        false => good(request),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unreachable", false));
    assert!(error.to_string().ends_with("the registry answered 502; tried 4 times"), "{error}");
    assert_eq!(server.count(|r| r.path.contains("/manifests/")), 4);
}

#[test]
fn a_blob_that_is_cut_is_fetched_again() {
    let cuts = Mutex::new(1);
    let server = Server::start(move |request| {
        let mut left = cuts.lock().unwrap();
        if is_wasm_blob(request) && *left > 0 {
            *left -= 1;
            return Answer::new(200, WASM).cut(5);
        }
        good(request)
    });
    assert_eq!(pull(&server, "acme/filter:v1").unwrap().wasm, WASM);

    let server = Server::start(|request| match is_wasm_blob(request) {
        true => Answer::new(200, WASM).cut(5),
        false => good(request),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unreachable", false), "{error}");
    assert_eq!(server.count(is_wasm_blob), 4);
}

#[test]
fn a_blob_that_is_not_what_its_descriptor_says() {
    for (blob, with_length, part) in [
        (b"\0asm\x02\0\0\0".to_vec(), true, "digest mismatch"),
        (b"\0asm\x02\0\0\0".to_vec(), false, "digest mismatch"),
        (WASM[..7].to_vec(), true, "size mismatch: the descriptor says 8 bytes, got 7"),
        (WASM[..7].to_vec(), false, "size mismatch: the descriptor says 8 bytes, got 7"),
        ([WASM, b"x"].concat(), true, "size mismatch: the descriptor says 8 bytes, got 9"),
        (vec![0; 1 << 20], false, "size mismatch: the descriptor says 8 bytes"),
    ] {
        let server = Server::start(move |request| match is_wasm_blob(request) {
            true if with_length => Answer::new(200, blob.clone()),
            true => Answer::new(200, blob.clone()).without_length(),
            false => good(request),
        });
        let error = pull(&server, "acme/filter:v1").unwrap_err();
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/digest-mismatch", true));
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(server.count(is_wasm_blob), 1, "{part}");
    }
}

#[test]
fn a_blob_that_is_not_what_its_header_says() {
    let server = Server::start(|request| match is_wasm_blob(request) {
        true => {
            good(request).header("Docker-Content-Digest", &Digest::sha256(b"another").to_string())
        }
        false => good(request),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/digest-mismatch", true));
    assert!(error.to_string().contains("header"), "{error}");
}

#[test]
fn blobs_are_fetched_at_the_same_time() {
    // None is answered before all three are asked for.
    let barrier = std::sync::Barrier::new(3);
    let server = Server::start(move |request| {
        if request.path.contains("/blobs/") {
            barrier.wait();
        }
        good(request)
    });
    let options = FetchOptions { timeout: Duration::from_secs(60), ..options() };
    let image = pull_with(&server, "acme/filter:v1", &options).unwrap();
    assert_eq!(image.wasm, WASM);
}

#[test]
fn from_an_ipv6_host() {
    // Not every machine has IPv6.
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return;
    };
    let server = Server::on(listener, good);
    let image = pull(&server, "acme/filter:v1").unwrap();
    assert_eq!(image.wasm, WASM);
}

#[test]
fn a_large_manifest_is_refused() {
    let server = Server::start(|request| match request.path.contains("/manifests/") {
        true => Answer::new(200, vec![b' '; (4 << 20) + 1]),
        false => good(request),
    });
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/too-large", true));
}

#[test]
fn fetches_with_the_same_options_share_connections() {
    const FETCHES: usize = 5;
    /// Of one image at once: its module, and two places of a runtime config.
    const BLOBS: usize = 3;
    let server = Server::start(|request| good(request).keep_alive());
    let options = options();
    let reference = format!("{}/acme/filter:v1", server.host());
    let source = Source::parse(&reference).unwrap();
    block_on(async {
        for _ in 0..FETCHES {
            fetch(&source, &reference, &options, &NoProgress).await.unwrap();
        }
    });
    assert_eq!(server.count(is_wasm_blob), FETCHES);
    assert!(server.connections() <= BLOBS, "{} connections", server.connections());
}

#[test]
fn connections_that_ended_with_their_runtime_are_not_used_again() {
    let server = Server::start(|request| good(request).keep_alive());
    let options = options();
    for _ in 0..3 {
        pull_with(&server, "acme/filter:v1", &options).unwrap();
    }
    assert_eq!(server.count(is_wasm_blob), 3);
}

#[test]
fn a_registry_that_never_answers_is_given_up() {
    // Bound and listening, and never accepted from.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/acme/filter:v1", listener.local_addr().unwrap());
    let source = Source::parse(&reference).unwrap();
    let options = FetchOptions { timeout: Duration::from_millis(50), ..options() };
    let error = block_on(fetch(&source, &reference, &options, &NoProgress)).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unreachable", false));
    assert!(error.to_string().contains("not complete after 0.05 s"), "{error}");
}
