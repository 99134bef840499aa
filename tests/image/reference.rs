//! What a string names.

use crate::support::Layout;
use filtergate::image::{ReferenceError, Selector, Source};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

const HEX: &str = "d0a165298ae270c5644be8e9938036a3a7a5191f6be03286c40874d761c18abf";

fn registry(s: &str) -> (String, String, Option<String>, Option<String>, bool) {
    match Source::parse(s).unwrap_or_else(|e| panic!("{e}")) {
        Source::Registry(r) => (
            r.registry().into(),
            r.repository().into(),
            r.tag().map(str::to_owned),
            r.digest().map(ToString::to_string),
            r.is_loopback(),
        ),
        other => panic!("{s}: {other:?}"),
    }
}

#[test]
fn registry_references() {
    let digest = format!("sha256:{HEX}");
    for (s, host, name, tag, pinned, loopback) in [
        ("ghcr.io/acme/filter:1.2", "ghcr.io", "acme/filter", Some("1.2"), false, false),
        ("ghcr.io/acme/filter", "ghcr.io", "acme/filter", Some("latest"), false, false),
        ("oci://ghcr.io/acme/filter:1.2", "ghcr.io", "acme/filter", Some("1.2"), false, false),
        ("docker://ghcr.io/acme/filter:1.2", "ghcr.io", "acme/filter", Some("1.2"), false, false),
        ("localhost:5000/x@DIGEST", "localhost:5000", "x", None, true, true),
        ("localhost:5000/x:v1@DIGEST", "localhost:5000", "x", Some("v1"), true, true),
        ("localhost/x", "localhost", "x", Some("latest"), false, true),
        ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000", "a/b/c", Some("v1"), false, true),
        ("127.8.9.10/a:v1", "127.8.9.10", "a", Some("v1"), false, true),
        ("[::1]:5000/x:v1", "[::1]:5000", "x", Some("v1"), false, true),
        ("[::1]/x@DIGEST", "[::1]", "x", None, true, true),
        ("[2001:db8::1]:5000/x", "[2001:db8::1]:5000", "x", Some("latest"), false, false),
        ("10.0.0.1:5000/x", "10.0.0.1:5000", "x", Some("latest"), false, false),
        ("localhost.example.com/x", "localhost.example.com", "x", Some("latest"), false, false),
        ("busybox", "docker.io", "library/busybox", Some("latest"), false, false),
        ("acme/filter:1", "docker.io", "acme/filter", Some("1"), false, false),
        ("ghcr.io/acme/filter.wasm:1", "ghcr.io", "acme/filter.wasm", Some("1"), false, false),
        (
            "oci://ghcr.io/acme/filter.wasm",
            "ghcr.io",
            "acme/filter.wasm",
            Some("latest"),
            false,
            false,
        ),
    ] {
        let expected = (
            host.to_owned(),
            name.to_owned(),
            tag.map(str::to_owned),
            pinned.then(|| digest.clone()),
            loopback,
        );
        assert_eq!(registry(&s.replace("DIGEST", &digest)), expected, "{s}");
    }
}

#[test]
fn wrong_references() {
    for (s, part) in [
        ("", "empty"),
        ("oci://", "empty"),
        ("ghcr.io/acme/Filter:1", "lowercase"),
        ("UPPER/case:v1", "lowercase"),
        ("ghcr.io/acme/filter:", "invalid reference"),
        ("ghcr.io/acme/filter 1", "spaces"),
        ("ghcr.io/acme/filter\n", "spaces"),
        ("ghcr.io/acme/filter@sha256:abc", "not a digest"),
        ("ghcr.io/acme/filter@md5:d41d8cd98f00b204e9800998ecf8427e", "not a digest"),
        ("ghcr.io/acme/filter@", "not a digest"),
        ("ghcr.io:99999/acme/filter", "port"),
        ("[::1/x", "IPv6"),
        ("[localhost]:5000/x", "IPv6"),
        ("https://", "not a URL"),
        ("https://user:hunter2@example.com/x.wasm", "a password"),
        ("https://example.com/x.wasm#sha256=00", "64 hex digits"),
        ("https://example.com/x.wasm#latest", "64 hex digits"),
        ("oci-archive:", "path is missing"),
        ("docker-archive:x.tar:", "tag is missing"),
        ("dir:", "path is missing"),
        ("docker-daemon:x:1", "`docker-daemon`"),
        ("s3://bucket/x", "scheme"),
        ("oci:", "path is missing"),
        ("file:", "path is missing"),
        ("oci:dir:", "tag is missing"),
        ("oci:dir@sha256:../../etc/passwd", "not a digest"),
        ("oci:dir@sha256:00", "not a digest"),
    ] {
        // One with a slash behind its digest is no digest but a path; it does not exist.
        let result = Source::parse(s);
        if s.contains("..") {
            assert!(!matches!(
                &result,
                Ok(Source::OciLayout { selector: Some(Selector::Digest(_)), .. })
            ));
            continue;
        }
        let error = result.expect_err(s);
        assert!(error.to_string().contains(part), "{s:?}: {error}");
        assert!(!error.to_string().contains('\n'), "{s:?}");
        assert!(!error.to_string().contains("hunter2"), "{s:?}");
    }
    let upper = format!("ghcr.io/x@sha256:{}", HEX.to_uppercase());
    assert!(matches!(Source::parse(&upper), Err(ReferenceError::Digest { .. })));
}

#[test]
fn what_looks_like_a_path_is_one() {
    for s in [
        "add-header.wasm",
        "./missing",
        "../missing",
        "/missing/file",
        "target/release/filter.wasm",
        "Upper.WASM",
        "image.tar",
    ] {
        assert_eq!(Source::parse(s), Ok(Source::File(s.into())), "{s}");
    }
    for (s, path) in [("file:x.bin", "x.bin"), ("file:/a/b", "/a/b"), ("file:///a/b", "/a/b")] {
        assert_eq!(Source::parse(s), Ok(Source::File(path.into())), "{s}");
    }
}

#[test]
fn existing_paths_come_first() {
    let layout = Layout::new();
    let dir = layout.dir.path();
    let file = dir.join("module");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(Source::parse(file), Ok(Source::File(file.into())));

    let layout = |path: &Path, selector| Ok(Source::OciLayout { path: path.into(), selector });
    let tag = |tag: &str| Some(Selector::Tag(tag.into()));
    let shown = dir.to_str().unwrap();
    assert_eq!(Source::parse(shown), layout(dir, None));
    assert_eq!(Source::parse(&format!("{shown}:v1")), layout(dir, tag("v1")));
    assert_eq!(Source::parse(&format!("oci:{shown}")), layout(dir, None));
    assert_eq!(Source::parse(&format!("oci:{shown}:v1")), layout(dir, tag("v1")));
    assert_eq!(
        Source::parse(&format!("oci:{shown}:ghcr.io/acme/x:v1")),
        layout(dir, tag("ghcr.io/acme/x:v1"))
    );
    for s in [format!("oci:{shown}@sha256:{HEX}"), format!("oci:{shown}:v1@sha256:{HEX}")] {
        let digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(Source::parse(&s), layout(dir, Some(Selector::Digest(digest))));
    }
    // A directory with a colon in its name.
    let odd = dir.join("a:b");
    fs::create_dir(&odd).unwrap();
    let shown = odd.to_str().unwrap();
    assert_eq!(Source::parse(&format!("oci:{shown}")), layout(&odd, None));
    assert_eq!(Source::parse(&format!("oci:{shown}:v1")), layout(&odd, tag("v1")));
    // One that does not exist: skopeo's rule, the first colon.
    assert_eq!(Source::parse("oci:missing:x:v1"), layout(Path::new("missing"), tag("x:v1")));
}

#[test]
fn archives_and_other_places() {
    let archive = |path: &str, selector: Option<&str>| {
        let selector = selector.map(|tag| Selector::Tag(tag.into()));
        Ok(Source::Archive { path: path.into(), selector })
    };
    assert_eq!(Source::parse("oci-archive:x.tar"), archive("x.tar", None));
    assert_eq!(Source::parse("oci-archive:a/x.tar:v1"), archive("a/x.tar", Some("v1")));
    assert_eq!(
        Source::parse("docker-archive:x.tar:localhost:5000/a/b:v1"),
        archive("x.tar", Some("localhost:5000/a/b:v1"))
    );
    assert_eq!(Source::parse("docker-archive:x.tar:@1"), archive("x.tar", Some("@1")));
    assert_eq!(Source::parse("dir:a/b"), Ok(Source::Directory("a/b".into())));
    assert_eq!(Source::parse("-"), Ok(Source::Stdin));
    let Ok(Source::Url(url)) = Source::parse(&format!("https://example.com/x.wasm#sha256={HEX}"))
    else {
        panic!("no URL");
    };
    assert_eq!(url.url().as_str(), "https://example.com/x.wasm");
    assert_eq!(url.sha256().map(|digest| digest.hex().to_owned()), Some(HEX.to_owned()));
    for (s, network, again) in [
        ("-", false, false),
        ("x.wasm", false, true),
        ("busybox", true, false),
        ("http://a/b", true, false),
    ] {
        let source = Source::parse(s).unwrap();
        assert_eq!((source.needs_network(), source.is_read_again()), (network, again), "{s}");
    }
}

proptest! {
    #[test]
    fn any_string_is_decided(s in "\\PC{0,40}") {
        let _ = Source::parse(&s);
    }

    #[test]
    fn anything_near_a_reference_is_decided(
        s in "(oci:|oci://|docker://|file:|\\[)?[a-zA-Z0-9.:/@\\]\\[-]{0,40}(@sha256:[0-9a-f]{60,66})?"
    ) {
        if let Ok(Source::Registry(reference)) = Source::parse(&s) {
            // What is sent to a registry parses as the same again.
            let again = Source::parse(&format!("oci://{reference}"));
            prop_assert_eq!(again, Ok(Source::Registry(reference)));
        }
    }
}
