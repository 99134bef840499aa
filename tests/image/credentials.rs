//! Tokens, and where the credentials for them come from.

use crate::registry::{good, is_wasm_blob, pull, pull_with};
use crate::server::{Answer, Request, Server};
use crate::support::{WASM, options};
use filtergate::image::{CredentialSource, FetchOptions};
use serde_json::json;

/// A registry that wants a token, and gives one to `user:secret`.
fn with_token(request: &Request) -> Answer {
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
    let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
    Answer::error(401, "UNAUTHORIZED", "authentication required")
        .header("WWW-Authenticate", &challenge)
}

#[test]
fn the_token_endpoint_s_reason_is_kept() {
    let server = Server::start(with_token);
    let error = pull(&server, "acme/filter:v1").unwrap_err();
    assert_eq!(error.rule(), "image/unauthorized");
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
    assert_eq!(error.rule(), "image/unauthorized");
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
        (r#"{"auths":{"HOST":{"auth":"%%"}}}"#, "unable to decode credential"),
        (
            r#"{"credHelpers":{"HOST":"does-not-exist-anywhere"}}"#,
            "docker-credential-does-not-exist-anywhere",
        ),
    ] {
        let (_dir, options) = with_config(&text.replace("HOST", &server.host()));
        let error = pull_with(&server, "acme/filter:v1", &options).unwrap_err();
        assert_eq!((error.rule(), error.is_verdict()), ("image/unauthorized", false));
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
