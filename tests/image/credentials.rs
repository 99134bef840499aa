//! Tokens, and where the credentials for them come from.

use crate::registry::{good, is_wasm_blob, pull, pull_with};
use crate::server::{Answer, Request, Server};
use crate::support::{WASM, options};
use filtergate::image::{CredentialSource, FetchOptions};
use serde_json::json;
use std::sync::Mutex;

/// A registry that wants a token, and gives one to `user:secret`.
pub fn with_token(request: &Request) -> Answer {
    let host = request.header("host");
    if request.path.starts_with("/token") {
        return match request.header("authorization") == "Basic dXNlcjpzZWNyZXQ=" {
            true => Answer::new(200, r#"{"token":"t0ken"}"#),
            false => Answer::error(403, "DENIED", "this package is private"),
        };
    }
    if request.header("authorization") == "Bearer t0ken" {
        return good(request);
    }
    challenge(host)
}

/// What a registry answers that wants a token from `host`.
pub fn challenge(host: &str) -> Answer {
    let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
    Answer::error(401, "UNAUTHORIZED", "authentication required")
        .header("WWW-Authenticate", &challenge)
}

#[test]
fn the_token_endpoint_s_reason_is_kept() {
    let server = Server::start(with_token);
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!(error.rule().name(), "image/unauthorized");
    assert!(error.to_string().contains("this package is private"), "{error}");
}

fn with_config(text: &str) -> (tempfile::TempDir, FetchOptions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    let options = FetchOptions { credentials: CredentialSource::ConfigFile(path), ..options() };
    (dir, options)
}

#[test]
fn credentials_come_from_the_docker_config() {
    let server = Server::start(with_token);
    let host = &server.host();
    for auths in [
        json!({ host: { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ host: { "username": "user", "password": "secret", "auth": "" } }),
        json!({ format!("http://{host}"): { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ format!("{host}/acme/filter"): { "auth": "dXNlcjpzZWNyZXQ=" }, host: { "auth": "eDp5" } }),
        json!({ format!("{host}/acme"): { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ format!("{host}/acme/filter/"): { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ format!("{host}/v2/"): { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ format!("https://{host}/v1/"): { "auth": "dXNlcjpzZWNyZXQ=" } }),
        // Of others, in one way or another.
        json!({ format!("{host}/acme/filt"): { "auth": "eDp5" }, format!("{host}0"): { "auth": "eDp5" }, host: { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ format!("{host}/acme"): {}, host: { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ format!("{host}/acme"): null, host: { "auth": "dXNlcjpzZWNyZXQ=" } }),
        json!({ host: { "registrytoken": "t0ken" } }),
    ] {
        let (_dir, options) = with_config(&json!({ "auths": auths, "credsStore": "" }).to_string());
        let image = pull_with(&server, "acme/filter:v1", &options);
        assert_eq!(image.map(|i| i.wasm).map_err(|e| e.to_string()), Ok(WASM.into()), "{auths}");
    }
}

#[test]
fn wrong_credentials_are_named_and_never_shown() {
    let server = Server::start(with_token);
    let text = json!({ "auths": { server.host(): { "username": "user", "password": "hunter2" } } });
    let (dir, options) = with_config(&text.to_string());
    let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
    assert_eq!(error.rule().name(), "image/unauthorized");
    let text = error.to_string();
    assert!(text.contains(&dir.path().join("config.json").display().to_string()), "{text}");
    assert!(text.contains(&format!("key {}", server.host())), "{text}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn a_broken_docker_config_is_not_anonymous() {
    let server = Server::start(good);
    for (text, part) in [
        ("{", "config.json is not valid"),
        (r#"{"auths":{"HOST":{"auth":"%%"}}}"#, "`auth` is not the base64 of"),
        (
            r#"{"credHelpers":{"HOST":"does-not-exist-anywhere"}}"#,
            "docker-credential-does-not-exist-anywhere",
        ),
    ] {
        let (_dir, options) = with_config(&text.replace("HOST", &server.host()));
        let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/unauthorized", false));
        assert!(error.to_string().contains(part), "{error}");
    }
    let (_dir, options) = with_config(r#"{"auths":{"other.example":{"auth":"eDp5"}}}"#);
    assert!(pull_with(&server, "acme/filter:v1", &options).is_ok());
}

#[test]
fn a_blob_may_be_elsewhere() {
    let storage = Server::start(|_| Answer::new(200, WASM));
    let location = format!("http://{}/storage", storage.host());
    let server = Server::start(move |request| match is_wasm_blob(request) {
        true => Answer::new(307, "").header("Location", &location),
        false => with_token(request),
    });
    let text = json!({ "auths": { server.host(): { "auth": "dXNlcjpzZWNyZXQ=" } } });
    let (_dir, options) = with_config(&text.to_string());
    let image = pull_with(&server, "acme/filter:v1", &options).unwrap();
    assert_eq!(image.wasm, WASM);
    assert_eq!(storage.requests()[0].header("authorization"), "");
}

/// The config of a user whom `with_token` knows.
fn user(server: &Server) -> (tempfile::TempDir, FetchOptions) {
    with_config(&json!({ "auths": { server.host(): { "auth": "dXNlcjpzZWNyZXQ=" } } }).to_string())
}

fn is_token(request: &Request) -> bool {
    request.path.starts_with("/token")
}

#[test]
fn a_token_is_asked_for_once_and_for_this_repository() {
    let server = Server::start(with_token);
    let (_dir, options) = user(&server);
    pull_with(&server, "acme/filter:v1", &options).unwrap();
    let requests = server.requests();
    let tokens: Vec<_> = requests.iter().filter(|r| is_token(r)).map(|r| r.path.as_str()).collect();
    assert_eq!(tokens, ["/token?scope=repository%3Aacme%2Ffilter%3Apull&service=test"]);
    // The password is for the token endpoint.
    let others = requests.iter().filter(|r| !is_token(r));
    assert!(others.into_iter().all(|r| !r.header("authorization").starts_with("Basic")));
}

#[test]
fn a_token_that_expires_is_renewed_once() {
    let tokens = Mutex::new(0);
    let server = Server::start(move |request| {
        if is_token(request) {
            let mut tokens = tokens.lock().unwrap();
            *tokens += 1;
            return Answer::new(200, format!(r#"{{"token":"t{tokens}"}}"#));
        }
        let valid = match request.path.contains("/blobs/") {
            true => "Bearer t2",
            false => "Bearer t1",
        };
        match request.header("authorization") == valid {
            true => good(request),
            false => challenge(request.header("host")),
        }
    });
    assert_eq!(pull(&server, "acme/filter:v1").unwrap().wasm, WASM);
    assert_eq!(server.count(is_token), 2);
}

#[test]
fn a_registry_that_wants_a_password_gets_it() {
    let server = Server::start(|request| {
        match request.header("authorization") == "Basic dXNlcjpzZWNyZXQ=" {
            true => good(request),
            false => Answer::error(401, "UNAUTHORIZED", "who is there")
                .header("WWW-Authenticate", r#"Basic realm="test",service="test""#),
        }
    });
    let (_dir, options) = user(&server);
    assert_eq!(pull_with(&server, "acme/filter:v1", &options).unwrap().wasm, WASM);
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!(error.rule().name(), "image/unauthorized");
    assert!(error.to_string().contains("401: UNAUTHORIZED: who is there"), "{error}");
}

#[test]
fn a_token_from_elsewhere() {
    // Both are this machine's loopback.
    let server = Server::start(|request| match request.header("authorization") {
        "" if !is_token(request) => {
            challenge(&request.header("host").replace("127.0.0.1", "localhost"))
        }
        _ => with_token(request),
    });
    let (_dir, options) = user(&server);
    assert_eq!(pull_with(&server, "acme/filter:v1", &options).unwrap().wasm, WASM);

    for (host, part) in [
        ("tokens.example", "http://tokens.example/token, which is plain HTTP on another host"),
        ("192.0.2.1:5000", "http://192.0.2.1:5000/token, which is plain HTTP on another host"),
        ("127.0.0.1.example", "plain HTTP on another host"),
        ("127.0.0.1@tokens.example", "plain HTTP on another host"),
        ("[::", "is no URL"),
    ] {
        let server = Server::start(move |_| challenge(host));
        let (_dir, options) = user(&server);
        let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
        assert_eq!(
            (error.rule().name(), error.is_verdict()),
            ("image/unreachable", false),
            "{error}"
        );
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.help().contains("https"), "{}", error.help());
        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].header("authorization"), "");
    }
}

#[test]
fn other_hosts_get_no_credentials() {
    // The second request to the other host is no more for it than the first.
    let elsewhere = |request: &Request, path: &str| {
        let host = request.header("host").replace("127.0.0.1", "localhost");
        Answer::new(307, "").header("Location", &format!("http://{host}{path}"))
    };
    let server = Server::start(move |request| {
        let is_elsewhere = request.header("host").starts_with("localhost");
        match request.path.strip_prefix("/again") {
            Some(path) if path.starts_with("/token") => Answer::new(200, r#"{"token":"t0ken"}"#),
            Some(path) => good(&request.with_path(path)),
            None if is_elsewhere => elsewhere(request, &format!("/again{}", request.path)),
            None if request.header("authorization").is_empty() => challenge(request.header("host")),
            None => elsewhere(request, &request.path),
        }
    });
    let (_dir, options) = user(&server);
    assert_eq!(pull_with(&server, "acme/filter:v1", &options).unwrap().wasm, WASM);
    let (there, here): (Vec<_>, Vec<_>) =
        server.requests().into_iter().partition(|r| r.header("host").starts_with("localhost"));
    assert_eq!(there.len(), 2 * 5);
    assert!(there.iter().all(|r| r.header("authorization").is_empty()), "{there:?}");
    assert!(here.iter().any(|r| r.header("authorization") == "Basic dXNlcjpzZWNyZXQ="));
    assert!(here.iter().any(|r| r.header("authorization") == "Bearer t0ken"));
}

#[test]
fn other_hosts_cannot_ask_for_credentials() {
    let storage = Server::start(|request| match is_token(request) {
        true => Answer::new(200, r#"{"token":"other"}"#),
        false => challenge(request.header("host")),
    });
    let location = format!("http://{}/storage", storage.host());
    let server = Server::start(move |request| match is_wasm_blob(request) {
        true => Answer::new(307, "").header("Location", &location),
        false => with_token(request),
    });
    let (_dir, options) = user(&server);
    let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
    assert_eq!(error.rule().name(), "image/unauthorized");
    assert_eq!(storage.count(|_| true), 1);
    assert_eq!(server.count(is_token), 1);
}
