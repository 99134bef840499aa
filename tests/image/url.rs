//! Modules by their URL, as Envoy's remote data source fetches them.

use crate::server::{Answer, Server};
use crate::support::{WASM, get, gzip, rules, tar};
use filtergate::image::{Digest, Image, ImageError, SourceKind};
use filtergate::verdict::Severity;

fn fetch(server: &Server, path: &str) -> Result<Image, ImageError> {
    get(&format!("http://{}{path}", server.host()))
}

#[test]
fn a_module_with_its_digest() {
    let server = Server::start(|_| Answer::new(200, WASM));
    let hex = Digest::sha256(WASM).hex().to_owned();
    for fragment in [
        format!("#sha256={hex}"),
        format!("#sha256:{hex}"),
        format!("#sha256={}", hex.to_uppercase()),
    ] {
        let image = fetch(&server, &format!("/a/filter.wasm?v=1{fragment}")).unwrap();
        assert_eq!((image.kind, image.wasm.as_slice()), (SourceKind::Url, WASM));
        assert_eq!(image.shape.name(), "file");
        assert_eq!(image.notes, []);
        assert_eq!(image.consumers, []);
    }
    assert_eq!(server.count(|request| request.path == "/a/filter.wasm?v=1"), 3);
    let image = fetch(&server, "/filter.wasm").unwrap();
    assert_eq!(rules(&image.notes), [("image/shape", Severity::Note)]);
    assert!(image.notes[0].help.as_ref().unwrap().contains(&hex));
}

#[test]
fn another_module_than_the_digest_says() {
    let server = Server::start(|_| Answer::new(200, WASM));
    let error = fetch(&server, &format!("/x.wasm#sha256={}", "0".repeat(64))).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/digest-mismatch", true));
    assert!(error.to_string().contains(Digest::sha256(WASM).hex()), "{error}");
}

#[test]
fn what_envoy_would_not_take_is_said() {
    let archive = tar(&[("plugin.wasm", WASM)]);
    for (body, part) in [
        (gzip(WASM), "compressed with gzip, and Envoy takes a bare module only; Istio would"),
        (archive, "a tar archive, and Envoy takes a bare module only; Istio would"),
    ] {
        let server = Server::start(move |_| Answer::new(200, &body));
        let image = fetch(&server, "/x.wasm").unwrap();
        assert!(image.notes.iter().any(|note| note.message.contains(part)), "{:?}", image.notes);
    }
    let server = Server::start(|request| match request.path.as_str() {
        "/old.wasm" => Answer::new(302, "").header("Location", "/new.wasm"),
        _ => Answer::new(200, WASM),
    });
    let image = fetch(&server, "/old.wasm").unwrap();
    assert_eq!(image.wasm, WASM);
    let note = image.notes.iter().find(|note| note.severity == Severity::Warning).unwrap();
    assert!(note.message.contains("/new.wasm, and Envoy follows no redirect"), "{}", note.message);
}

#[test]
fn a_url_that_has_no_module() {
    for (status, body, rule) in [
        (404, "nothing here", "image/not-found"),
        (200, "<!doctype html>", "image/not-found"),
        (403, "no", "image/unreachable"),
        (500, "trouble", "image/unreachable"),
    ] {
        let server = Server::start(move |_| Answer::new(status, body));
        let error = fetch(&server, "/x.wasm").unwrap_err();
        assert_eq!((error.rule().name(), error.is_verdict()), (rule, false), "{error}");
        assert!(!error.help().is_empty());
        // What may pass is tried again.
        assert_eq!(server.count(|_| true), if status == 500 { 4 } else { 1 }, "{status}");
    }
    let error = get("http://example.com/x.wasm").unwrap_err();
    assert!(error.to_string().contains("plain HTTP is used for this machine only"), "{error}");
}

#[test]
fn a_body_over_the_limit() {
    let server = Server::start(|_| Answer::new(200, WASM));
    let reference = format!("http://{}/x.wasm", server.host());
    let options =
        filtergate::image::FetchOptions { max_module_bytes: 7, ..crate::support::options() };
    let error = crate::support::get_with(&reference, &options).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/too-large", true), "{error}");
}
