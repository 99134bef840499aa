//! What the program takes from its environment: logins, proxies and CAs.

use crate::credentials::with_token;
use crate::registry::good;
use crate::server::{Answer, Request, Server};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The base64 of `user:secret`, which [`with_token`] knows.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";
/// The base64 of `user:hunter2`, which nobody knows.
const WRONG: &str = "dXNlcjpodW50ZXIy";

/// The program in a home of its own.
struct Program {
    home: tempfile::TempDir,
    command: Command,
    stdin: String,
}

impl Program {
    /// Pulls the image that [`good`] has from a host.
    fn pulls_from(host: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_filtergate"));
        command
            .args(["check", "-v", &format!("{host}/acme/filter:v1")])
            .current_dir(home.path())
            .env_clear()
            .env("PATH", home.path())
            .env("HOME", home.path())
            .env("FILTERGATE_CACHE", home.path().join("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { home, command, stdin: String::new() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn file(self, name: &str, content: &Value) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
        self
    }

    /// A file that would do if it were asked: it is not the one that is to be used.
    fn wrong(self, name: &str, host: &str) -> Self {
        self.file(name, &auths(host, WRONG))
    }

    /// A credential helper, as a shell script.
    fn helper(self, name: &str, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(&format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    fn stdin(mut self, text: &str) -> Self {
        self.stdin = text.to_owned();
        self
    }

    /// The exit code, and all that was printed.
    fn run(mut self) -> (i32, String) {
        let mut child = self.command.spawn().unwrap();
        // A program that wants nothing from it may be gone by then.
        let _ = child.stdin.take().unwrap().write_all(self.stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!printed.contains("hunter2") && !printed.contains(AUTH), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
        (output.status.code().unwrap(), printed)
    }

    /// That the image was had, with these credentials. It has no filter in it, but it is one.
    fn assert_pulls(self, origin: &str) {
        let (exit, printed) = self.run();
        assert!(printed.contains("shape spec-v0.0.0"), "{printed}");
        assert!(printed.contains(&format!("credentials: {origin}")), "{origin}: {printed}");
        assert_eq!(exit, 1, "{printed}");
    }

    /// That the image was not had.
    fn assert_fails(self, exit: i32, parts: &[&str]) {
        let (code, printed) = self.run();
        for part in parts {
            assert!(printed.contains(part), "{part}: {printed}");
        }
        assert_eq!(code, exit, "{printed}");
    }
}

fn auths(host: &str, auth: &str) -> Value {
    json!({ "auths": { host: { "auth": auth } } })
}

fn pulls(server: &Server) -> Program {
    Program::pulls_from(&server.host())
}

#[test]
fn what_is_given_comes_first() {
    let server = Server::start(with_token);
    let host = &server.host();
    let program = || pulls(&server).wrong(".docker/config.json", host);
    for text in ["secret", "secret\n", "secret\r\n"] {
        program()
            .args(&["--username", "user", "--password-stdin"])
            .stdin(text)
            .env("FILTERGATE_USERNAME", "another")
            .env("FILTERGATE_PASSWORD", "hunter2")
            .assert_pulls("--username and --password-stdin");
    }
    program()
        .env("FILTERGATE_USERNAME", "user")
        .env("FILTERGATE_PASSWORD", "secret")
        .assert_pulls("FILTERGATE_USERNAME and FILTERGATE_PASSWORD");
    program()
        .args(&["--username", "user"])
        .env("FILTERGATE_PASSWORD", "secret")
        .assert_pulls("--username and FILTERGATE_PASSWORD");
    program()
        .args(&["--username", "user", "--password-stdin"])
        .stdin("hunter2")
        .assert_fails(3, &["image/unauthorized", "(--username and --password-stdin)"]);
}

#[test]
fn half_a_login_is_wrong_usage() {
    let server = Server::start(good);
    let program = || pulls(&server);
    program().args(&["--username", "user"]).assert_fails(2, &["give --password-stdin"]);
    program().args(&["--password-stdin"]).stdin("hunter2").assert_fails(2, &["give --username"]);
    program().env("FILTERGATE_PASSWORD", "hunter2").assert_fails(2, &["FILTERGATE_USERNAME"]);
    for text in ["", "\n"] {
        program()
            .args(&["--username", "user", "--password-stdin"])
            .stdin(text)
            .assert_fails(2, &["standard input is empty"]);
    }
    assert_eq!(server.count(|_| true), 0);
}

#[test]
fn what_is_given_is_for_one_registry() {
    let (server, other) = (Server::start(with_token), Server::start(with_token));
    let second = format!("{}/acme/filter:v1", other.host());
    let program = pulls(&server).args(&[&second]).env("FILTERGATE_USERNAME", "user");
    program.env("FILTERGATE_PASSWORD", "secret").assert_fails(
        2,
        &[&format!("the images are in {} and {}; use `docker login`", server.host(), other.host())],
    );
    assert_eq!(server.count(|_| true), 0);
    assert_eq!(other.count(|_| true), 0);
}

#[test]
fn a_variable_may_be_the_config() {
    let server = Server::start(with_token);
    let host = &server.host();
    let program = || pulls(&server).wrong(".docker/config.json", host);
    program()
        .env("DOCKER_AUTH_CONFIG", auths(host, AUTH).to_string())
        .assert_pulls(&format!("DOCKER_AUTH_CONFIG, key {host}"));
    // It falls back to the file.
    let program = || pulls(&server).file(".docker/config.json", &auths(host, AUTH));
    for text in [auths("other.example", WRONG).to_string(), "{}".into(), String::new()] {
        program().env("DOCKER_AUTH_CONFIG", text).assert_pulls("/");
    }
    program()
        .env("DOCKER_AUTH_CONFIG", r#"{"auths": "hunter2"}"#)
        .assert_fails(3, &["DOCKER_AUTH_CONFIG is not valid: `auths`"]);
    program().env("DOCKER_AUTH_CONFIG", "{").assert_fails(3, &["DOCKER_AUTH_CONFIG is not valid"]);
}

#[test]
fn docker_s_file_comes_before_podman_s() {
    let server = Server::start(with_token);
    let host = &server.host();
    // Each with all that come after it, which would be wrong.
    let files = [
        ("DOCKER_CONFIG", "docker", "docker/config.json"),
        ("REGISTRY_AUTH_FILE", "podman.json", "podman.json"),
        ("XDG_RUNTIME_DIR", "run", "run/containers/auth.json"),
        ("XDG_CONFIG_HOME", "etc", "etc/containers/auth.json"),
    ];
    for at in 0..files.len() {
        let mut program = pulls(&server).file(files[at].2, &auths(host, AUTH));
        for (_, _, file) in &files[at + 1..] {
            program = program.wrong(file, host);
        }
        for (variable, value, _) in files {
            let path = program.path(value);
            program = program.env(variable, path);
        }
        let path = program.path(files[at].2);
        program.assert_pulls(&format!("{}, key {host}", path.display()));
    }
    let program = pulls(&server).file(".config/containers/auth.json", &auths(host, AUTH));
    let path = program.path(".config/containers/auth.json");
    program.assert_pulls(&format!("{}, key {host}", path.display()));
    pulls(&server).assert_fails(
        3,
        &["anonymous: there is neither a docker config nor an auth file of podman"],
    );
}

#[test]
fn helpers_come_before_the_file() {
    let server = Server::start(with_token);
    let host = &server.host();
    let answer = r#"echo '{"ServerURL":"","Username":"user","Secret":"secret"}'"#;
    let asked = format!(r#"read server; [ "$server" = {host} ] || exit 3; {answer}"#);
    let no = "echo 'credentials not found in native keychain'; exit 1";
    let config = |helpers: Value| {
        let mut config = auths(host, WRONG);
        for (key, value) in helpers.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let file = ".docker/config.json";
    let program = |helpers: Value| pulls(&server).file(file, &config(helpers));

    let both = json!({ "credHelpers": { host: "good" }, "credsStore": "bad" });
    program(both.clone())
        .helper("good", &asked)
        .helper("bad", "exit 1")
        .assert_pulls("docker-credential-good, named in ");
    program(json!({ "credsStore": "good" }))
        .helper("good", &asked)
        .assert_pulls("docker-credential-good, named in ");
    // One that has nothing leaves it to the next.
    program(both.clone())
        .helper("good", no)
        .helper("bad", &asked)
        .assert_pulls("docker-credential-bad");
    let neither = json!({ "credsStore": "good", "auths": { host: { "auth": AUTH } } });
    pulls(&server).file(file, &neither).helper("good", no).assert_pulls("/");

    for (script, part) in [
        ("echo broken >&2; exit 1", "docker-credential-good, named in "),
        ("echo broken >&2; exit 1", "failed (exit status: 1): broken"),
        ("echo '{}'", "did not answer as credential helpers do"),
        ("echo hunter2", "did not answer as credential helpers do"),
    ] {
        program(both.clone()).helper("good", script).assert_fails(3, &["credentials for", part]);
    }
    program(both).assert_fails(3, &["is not a program on the path"]);
    // Those of other hosts are not asked.
    program(json!({ "auths": { host: { "auth": AUTH } }, "credHelpers": { "ghcr.io": "bad" } }))
        .assert_pulls("/");
}

#[test]
fn an_identity_token_buys_a_token() {
    let server = Server::start(|request: &Request| {
        if request.path.starts_with("/token") && request.method == "POST" {
            let form = String::from_utf8(request.body.clone()).unwrap();
            let known = "scope=repository%3Aacme%2Ffilter%3Apull&service=test&grant_type=refresh_token&client_id=filtergate&refresh_token=ident%26ity";
            let is_form = request.header("content-type") == "application/x-www-form-urlencoded";
            return match form == known && is_form && request.path == "/token" {
                true => Answer::new(200, r#"{"access_token":"t0ken"}"#),
                false => Answer::error(400, "UNAUTHORIZED", "unknown refresh token"),
            };
        }
        with_token(request)
    });
    let host = &server.host();
    let file =
        |token: &str| json!({ "auths": { host: { "auth": "dXNlcjo=", "identitytoken": token } } });
    pulls(&server).file(".docker/config.json", &file("ident&ity")).assert_pulls("/");
    pulls(&server)
        .file(".docker/config.json", &file("expired"))
        .assert_fails(3, &["the token endpoint answered 400: UNAUTHORIZED: unknown refresh token"]);
    // A helper says so by the user.
    let answer = r#"echo '{"ServerURL":"","Username":"<token>","Secret":"ident&ity"}'"#;
    pulls(&server)
        .file(".docker/config.json", &json!({ "credsStore": "acr" }))
        .helper("acr", answer)
        .assert_pulls("docker-credential-acr");
}

#[test]
fn an_identity_token_is_not_sent_elsewhere() {
    let other = Server::start(|_| Answer::new(200, r#"{"access_token":"t0ken"}"#));
    let location = format!("http://{}/token", other.host());
    let server = Server::start(move |request| match request.path.starts_with("/token") {
        true => Answer::new(307, "").header("Location", &location),
        false => with_token(request),
    });
    let file = json!({ "auths": { server.host(): { "identitytoken": "hunter2" } } });
    pulls(&server)
        .file(".docker/config.json", &file)
        .assert_fails(3, &["/token redirects to http://", "; nothing was sent there"]);
    assert_eq!(other.count(|_| true), 0);
}

/// A proxy that is asked for everything, by the host that is asked for.
fn proxy() -> Server {
    Server::start(|request| match request.path.strip_prefix("http://registry.example:5000") {
        Some(path) => good(&request.with_path(path)),
        None => Answer::new(502, "the proxy knows no such host"),
    })
}

#[test]
fn proxies_come_from_the_environment() {
    let proxy = proxy();
    let url = format!("http://{}", proxy.host());
    let program = || Program::pulls_from("registry.example:5000").args(&["--plain-http"]);
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let before = proxy.count(|_| true);
        program().env(variable, &url).assert_pulls("anonymous");
        assert_eq!(proxy.count(|_| true), before + 4, "{variable}");
    }
    let before = proxy.count(|_| true);
    for variable in ["NO_PROXY", "no_proxy"] {
        for hosts in ["*", "registry.example", "a.b,.example"] {
            program()
                .args(&["--timeout", "200ms"])
                .env("HTTP_PROXY", &url)
                .env(variable, hosts)
                .assert_fails(3, &["image/unreachable"]);
        }
    }
    // This machine's loopback is not reached through a proxy.
    let server = Server::start(good);
    pulls(&server).env("HTTP_PROXY", &url).assert_pulls("anonymous");
    assert_eq!(proxy.count(|_| true), before);
}

#[test]
fn https_goes_through_a_tunnel() {
    // The proxy refuses, so that nothing but its own answer comes of it.
    let proxy = Server::start(|_| Answer::new(407, "who are you"));
    let url = format!("http://user:hunter2@{}", proxy.host());
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let before = proxy.count(|_| true);
        Program::pulls_from("registry.example")
            .args(&["--timeout", "200ms"])
            .env(variable, &url)
            .assert_fails(3, &["image/unreachable"]);
        let requests = proxy.requests();
        assert!(requests.len() > before, "{variable}");
        assert_eq!(requests[before].method, "CONNECT");
        assert_eq!(requests[before].path, "registry.example:443");
        assert!(requests[before].header("proxy-authorization").starts_with("Basic "));
    }
}

#[test]
fn a_registry_elsewhere_cannot_lead_to_this_machine() {
    let own = Server::start(|_| Answer::new(200, "{}"));
    let (realm, location) =
        (format!("https://{}/token", own.host()), format!("http://{}/blob", own.host()));
    let challenge = format!(r#"Bearer realm="{realm}""#);
    let proxy = Server::start(move |request| match request.path.contains("challenge.example") {
        true => Answer::new(401, "").header("WWW-Authenticate", &challenge),
        false => Answer::new(307, "").header("Location", &location),
    });
    let url = format!("http://{}", proxy.host());
    for (host, part) in [
        ("challenge.example", "which is an address of this machine alone; nothing was sent there"),
        ("redirect.example", "/blob, an address of this machine alone"),
    ] {
        Program::pulls_from(host)
            .args(&["--plain-http"])
            .env("HTTP_PROXY", &url)
            .assert_fails(3, &["image/unreachable", part]);
    }
    assert_eq!(own.count(|_| true), 0);
}

#[test]
fn a_broken_ca_file_is_an_error() {
    let server = Server::start(good);
    let file = |text: &str| {
        let program = pulls(&server).args(&["--ca-file", "ca.pem"]);
        fs::write(program.path("ca.pem"), text).unwrap();
        program
    };
    let armoured =
        |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    for (text, part) in [
        ("", "the CA file ca.pem: has no certificate in PEM form"),
        ("not a certificate", "the CA file ca.pem: has no certificate in PEM form"),
        (&armoured("%%%"), "the CA file ca.pem: is no file of PEM certificates"),
        (&armoured("aGVsbG8="), "the CA file ca.pem: "),
    ] {
        file(text).assert_fails(3, &[part, "give --ca-file a PEM file"]);
    }
    pulls(&server)
        .args(&["--ca-file", "absent.pem"])
        .assert_fails(3, &["the CA file absent.pem: No such file"]);
    assert_eq!(server.count(|_| true), 0);
}

#[test]
fn a_machine_without_certificates() {
    let nowhere = |program: Program| {
        program.env("SSL_CERT_FILE", "/nowhere/ca.pem").env("SSL_CERT_DIR", "/nowhere")
    };
    // Plain HTTP needs none.
    let server = Server::start(good);
    nowhere(pulls(&server)).assert_pulls("anonymous");
    nowhere(Program::pulls_from("registry.example")).assert_fails(
        3,
        &["image/unreachable", "No CA certificates were loaded", "--ca-file or SSL_CERT_FILE"],
    );
    assert!(!Path::new("/nowhere").exists());
}

/// Some registries say "not found" to whoever does not say who he is, and ask for nothing.
#[test]
fn a_registry_that_hides_what_it_has() {
    for (status, asks) in [(404, true), (403, true), (404, false)] {
        let server = Server::start(move |request| {
            let is_known = request.header("authorization") == format!("Basic {AUTH}");
            match request.path.as_str() {
                "/v2/" if asks && !is_known => {
                    Answer::new(401, "").header("WWW-Authenticate", r#"Basic realm="test""#)
                }
                _ if is_known => good(request),
                "/v2/" => Answer::new(200, "{}"),
                _ => Answer::error(status, "NAME_UNKNOWN", "no such repository"),
            }
        });
        pulls(&server).file(".docker/config.json", &auths(&server.host(), AUTH)).assert_pulls("/");
        // Nobody else asks twice.
        let before = server.count(|_| true);
        pulls(&server).assert_fails(3, &["no such repository"]);
        assert_eq!(server.count(|_| true), before + 1);
    }
}
