//! Registries that answer without end, or would have a client go on without end.

use crate::credentials::{challenge, with_token};
use crate::registry::{good, is_wasm_blob, pull, pull_with};
use crate::server::{Answer, Request, Server};
use crate::support::{WASM, options};
use filtergate::image::{FetchOptions, ImageError};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const PIECE: usize = 64 << 10;
/// More than a socket's buffers hold, and much less than would come in a minute.
const BOUND: usize = 128 << 20;

/// Where a client is to give up, it must not be for the time that it took.
fn patient() -> FetchOptions {
    FetchOptions { timeout: Duration::from_secs(3600), ..options() }
}

fn fails(server: &Server) -> ImageError {
    pull_with(server, "acme/filter:v1", &patient()).unwrap_err()
}

fn assert_bounded(sent: &Receiver<usize>) {
    let pieces = sent.recv().unwrap();
    assert!(pieces * PIECE < BOUND, "{pieces} pieces were taken");
}

fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

/// A sender that can be used on any thread.
fn counter() -> (Mutex<Sender<usize>>, Receiver<usize>) {
    let (sender, receiver) = channel();
    (Mutex::new(sender), receiver)
}

#[test]
fn a_manifest_without_end() {
    let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &[b' '; PIECE], b"\r\n"].concat();
    for is_chunked in [false, true] {
        let (sender, sent) = counter();
        let chunk = chunk.clone();
        let server = Server::start(move |request| match is_manifest(request) {
            true if is_chunked => Answer::new(200, "")
                .header("Transfer-Encoding", "chunked")
                .endless(&chunk, &sender.lock().unwrap()),
            true => Answer::new(200, "").endless([b' '; PIECE], &sender.lock().unwrap()),
            false => good(request),
        });
        let error = fails(&server);
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/too-large", true), "{error}");
        let text = format!(
            "the manifest of {}/acme/filter:v1: larger than the limit of 4194304 bytes",
            server.host()
        );
        assert_eq!(error.to_string(), text);
        assert!(error.help().contains("manifest"), "{}", error.help());
        assert_bounded(&sent);
        assert_eq!(server.count(is_manifest), 1);
    }
}

#[test]
fn a_manifest_that_announces_too_much_is_not_read() {
    let server = Server::start(|request| match is_manifest(request) {
        true => Answer::new(200, "{").header("Content-Length", "52428800").without_length(),
        false => good(request),
    });
    let error = fails(&server);
    assert_eq!(error.rule().name(), "image/too-large");
    let text = "52428800 bytes, larger than the limit of 4194304 bytes";
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_manifest_as_large_as_may_be() {
    let mut manifest = crate::registry::image_manifest();
    manifest.resize(4 << 20, b' ');
    let server = Server::start(move |request| match is_manifest(request) {
        true => Answer::new(200, &manifest).without_length(),
        false => good(request),
    });
    assert_eq!(pull(&server, "acme/filter:v1").unwrap().wasm, WASM);
}

#[test]
fn a_reason_without_end() {
    for part in ["/manifests/", "/blobs/"] {
        let (sender, sent) = counter();
        let server = Server::start(move |request| match request.path.contains(part) {
            true if part == "/manifests/" || is_wasm_blob(request) => {
                Answer::new(404, "nothing here ").endless([b'x'; PIECE], &sender.lock().unwrap())
            }
            _ => good(request),
        });
        let error = fails(&server);
        assert_eq!(error.rule().name(), "image/not-found", "{error}");
        assert!(error.to_string().contains("404: nothing here xxx"), "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
        assert_bounded(&sent);
    }
}

#[test]
fn a_token_without_end() {
    for status in [200, 403] {
        let (sender, sent) = counter();
        let server = Server::start(move |request| match request.path.starts_with("/token") {
            true => {
                Answer::new(status, r#"{"token":""#).endless([b'x'; PIECE], &sender.lock().unwrap())
            }
            false => with_token(request),
        });
        let error = fails(&server);
        let (rule, part) = match status {
            200 => ("image/unreachable", "answered with more than 65536 bytes"),
            _ => ("image/unauthorized", "the token endpoint answered 403"),
        };
        assert_eq!((error.rule().name(), error.is_verdict()), (rule, false), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_bounded(&sent);
        assert_eq!(server.count(|r| r.path.starts_with("/token")), 1);
    }
}

#[test]
fn a_token_answer_without_a_token() {
    for answer in ["{}", "[]", "", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
        let server = Server::start(move |request| match request.path.starts_with("/token") {
            true => Answer::new(200, answer),
            false => with_token(request),
        });
        let error = fails(&server);
        assert_eq!(
            (error.rule().name(), error.is_verdict()),
            ("image/unreachable", false),
            "{answer}"
        );
        assert!(error.to_string().contains("/token answered with"), "{error}");
        assert_eq!(server.count(|r| r.path.starts_with("/token")), 1);
    }
}

#[test]
fn a_registry_says_how_long_to_wait() {
    // Who did not listen would wait for longer than the test may take.
    let options = FetchOptions {
        retry_delay: Duration::from_secs(1 << 20),
        timeout: Duration::from_secs(60),
        ..options()
    };
    for status in [429, 503] {
        for part in ["/manifests/", "/blobs/", "/token"] {
            let failures = Mutex::new(3);
            let server = Server::start(move |request| {
                let mut left = failures.lock().unwrap();
                if request.path.contains(part)
                    && *left > 0
                    && (part != "/blobs/" || is_wasm_blob(request))
                {
                    *left -= 1;
                    return Answer::error(status, "TOOMANYREQUESTS", "not now")
                        .header("Retry-After", "0");
                }
                match part {
                    "/token" if request.path.starts_with("/token") => {
                        Answer::new(200, r#"{"access_token":"t0ken"}"#)
                    }
                    "/token" => with_token(request),
                    _ => good(request),
                }
            });
            let image = pull_with(&server, "acme/filter:v1", &options);
            assert_eq!(image.map(|i| i.wasm).map_err(|e| e.to_string()), Ok(WASM.into()));
        }
    }
}

#[test]
fn a_registry_says_when_to_come_back() {
    let options = FetchOptions { retry_delay: Duration::from_secs(1 << 20), ..patient() };
    let (before, after) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT");
    for (date, requests) in [(before, 4), (after, 1)] {
        let server = Server::start(move |_| Answer::new(503, "").header("Retry-After", date));
        let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
        assert!(error.to_string().contains("it asks to wait"), "{error}");
        assert_eq!(server.count(|_| true), requests, "{date}");
    }
}

#[test]
fn a_registry_that_asks_for_too_much_patience() {
    for delay in ["61", "18446744073709551615"] {
        let server = Server::start(|request| match is_manifest(request) {
            true => Answer::error(429, "TOOMANYREQUESTS", "not today").header("Retry-After", delay),
            false => good(request),
        });
        let error = fails(&server);
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/unreachable", false));
        let text = format!("TOOMANYREQUESTS: not today (it asks to wait {delay} s)");
        assert!(error.to_string().ends_with(&text), "{error}");
        assert_eq!(server.count(is_manifest), 1);
    }
    // What is neither a number of seconds nor a date is not heard.
    let server = Server::start(|request| match is_manifest(request) {
        true => Answer::new(503, "").header("Retry-After", "99999999999999999999"),
        false => good(request),
    });
    fails(&server);
    assert_eq!(server.count(is_manifest), 4);
}

#[test]
fn a_wait_does_not_outlast_the_pull() {
    let server = Server::start(|_| Answer::new(429, "").header("Retry-After", "60"));
    let options = FetchOptions { timeout: Duration::from_millis(200), ..options() };
    let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
    assert!(error.to_string().contains("not complete after 0.2 s"), "{error}");
}

#[test]
fn what_is_refused_is_asked_for_once() {
    for status in [400, 402, 403, 405, 410, 425, 451] {
        let server = Server::start(move |request| match is_manifest(request) {
            true => Answer::error(status, "TOOMANYREQUESTS", "no").header("Retry-After", "0"),
            false => good(request),
        });
        let error = fails(&server);
        assert!(!error.is_verdict(), "{status}");
        assert!(error.to_string().contains(&format!("answered {status}: ")), "{error}");
        assert_eq!(server.count(is_manifest), 1, "{status}");
    }
}

#[test]
fn redirects_without_end() {
    for part in ["/manifests/", "/blobs/", "/token"] {
        let server = Server::start(move |request| {
            let place = request.path.strip_prefix("/loop/").map(|n| n.parse::<u32>().unwrap());
            match place {
                Some(n) => Answer::new(302, "").header("Location", &format!("/loop/{}", n + 1)),
                None if request.path.contains(part)
                    && (part != "/blobs/" || is_wasm_blob(request)) =>
                {
                    Answer::new(307, "").header("Location", "/loop/1")
                }
                None if part == "/token" => with_token(request),
                None => good(request),
            }
        });
        let error = fails(&server);
        assert_eq!(
            (error.rule().name(), error.is_verdict()),
            ("image/unreachable", false),
            "{error}"
        );
        assert!(error.to_string().contains("more than 5 redirects"), "{error}");
        assert_eq!(server.count(|r| r.path.starts_with("/loop/")), 5);
    }
}

#[test]
fn redirects_to_nowhere() {
    for location in ["file:///etc/passwd", "http://", "ftp://127.0.0.1/"] {
        let server = Server::start(move |request| match is_manifest(request) {
            true => Answer::new(307, "").header("Location", location),
            false => good(request),
        });
        let error = fails(&server);
        assert_eq!(error.rule().name(), "image/unreachable");
        assert!(error.to_string().contains("redirects to what is no http URL"), "{error}");
        assert_eq!(server.count(is_manifest), 1);
    }
}

#[test]
fn refusals_without_end() {
    let tokens = Mutex::new(0);
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            let mut tokens = tokens.lock().unwrap();
            *tokens += 1;
            return Answer::new(200, format!(r#"{{"token":"t{tokens}"}}"#));
        }
        challenge(request.header("host"))
    });
    let error = fails(&server);
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/unauthorized", false));
    let text = "the registry answered 401: UNAUTHORIZED: authentication required";
    assert!(error.to_string().ends_with(text), "{error}");
    assert_eq!(server.count(|r| r.path.starts_with("/token")), 1);
    assert_eq!(server.count(is_manifest), 2);
}
