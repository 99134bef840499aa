//! Registries that want a login, or have a certificate of an own CA.
//!
//! `FILTERGATE_REGISTRY_BASIC` and `FILTERGATE_REGISTRY_TLS` name them by `HOST:PORT`,
//! `FILTERGATE_REGISTRY_LOGIN` is the `USER:PASSWORD` of the first, and `FILTERGATE_REGISTRY_CA` the
//! PEM file of the second's CA. Its certificate is also for the host `registry.example`.

use std::{
    io::{BufRead as _, BufReader, Write as _, copy},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
};

use filtergate::{
    CheckOptions,
    image::{CredentialSource, FetchOptions, UserPassword},
    verdict::{Outcome, Rule},
};

use crate::{assert_pulls_every_way_with, check, images, module, options, push::Registry, support};

pub fn needs_basic() -> Option<(Registry, String, String)> {
    let host = support::needs("FILTERGATE_REGISTRY_BASIC", "the HOST:PORT of one with basic auth")?;
    let login = support::needs("FILTERGATE_REGISTRY_LOGIN", "its USER:PASSWORD")?;
    let (user, password) = login.split_once(':').unwrap();
    let registry = Registry::new(host).with_login(user, password);
    Some((registry, user.to_owned(), password.to_owned()))
}

pub fn needs_tls() -> Option<(Registry, PathBuf)> {
    let host = support::needs("FILTERGATE_REGISTRY_TLS", "the HOST:PORT of one with an own CA")?;
    let ca = PathBuf::from(support::needs("FILTERGATE_REGISTRY_CA", "the PEM file of its CA")?);
    Some((Registry::new(host).with_ca(std::fs::read(&ca).unwrap()), ca))
}

fn with_fetch(change: impl FnOnce(&mut FetchOptions)) -> CheckOptions {
    let mut options = options();
    change(&mut options.fetch);
    options
}

/// Each shape, under names of its own, by tag and by digest.
fn assert_pulls_every_shape(registry: &Registry, options: &CheckOptions) {
    for (name, image) in [
        ("spec-v0.0.0", images::specification(&module())),
        ("compat-oci", images::compat_oci(&module())),
        ("compat-docker", images::compat_docker(&module())),
    ] {
        let repository = format!("filtergate-test/{name}");
        assert_pulls_every_way_with(registry, options, &image, &repository, name);
    }
}

/// The rule, message and help of the one finding on an image that cannot be had.
fn refusal(reference: &str, options: &CheckOptions) -> (Rule, String, String) {
    let verdict = check::check(reference, options);
    assert_eq!(verdict.outcome, Outcome::Undecided, "{reference}: {:?}", verdict.findings);
    let [finding] = verdict.findings.as_slice() else { panic!("{:?}", verdict.findings) };
    (finding.rule, finding.message.clone(), finding.help.clone().unwrap())
}

#[test]
fn with_a_login() {
    let Some((registry, user, password)) = needs_basic() else { return };
    let given = |user: &str, password: &str| {
        let login = UserPassword::new(user, password, "the test");
        with_fetch(|fetch| fetch.credentials = CredentialSource::Given(login))
    };
    assert_pulls_every_shape(&registry, &given(&user, &password));

    let reference = registry.reference("filtergate-test/spec-v0.0.0:v1");
    let wrong = given(&user, "hunter2");
    for (options, who) in [(&wrong, "(the test)"), (&options(), "(anonymous: as asked for)")] {
        let (rule, message, help) = refusal(&reference, options);
        assert_eq!(rule, Rule::ImageUnauthorized, "{message}");
        assert!(message.contains(who), "{message}");
        assert!(message.contains("the registry answered 401: UNAUTHORIZED"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        assert!(help.contains(&format!("docker login {}", registry.host)), "{help}");
        assert!(help.contains("--password-stdin"), "{help}");
    }
}

#[test]
fn with_a_login_in_the_docker_config() {
    let Some((registry, user, password)) = needs_basic() else { return };
    registry.push("filtergate-test/config", "v1", &images::specification(&module()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let entry = serde_json::json!({ "username": user, "password": password });
    let config = serde_json::json!({ "auths": { registry.host.as_str(): entry } });
    std::fs::write(&path, config.to_string()).unwrap();
    let options = with_fetch(|fetch| fetch.credentials = CredentialSource::ConfigFile(path));
    let verdict = check::check(&registry.reference("filtergate-test/config:v1"), &options);
    assert_eq!(verdict.outcome, Outcome::Pass, "{:?}", verdict.findings);
}

#[test]
fn with_an_own_ca() {
    let Some((registry, ca)) = needs_tls() else { return };
    assert_pulls_every_shape(&registry, &with_fetch(|fetch| fetch.ca_file = Some(ca)));

    // A loopback host is talked to without TLS, unless there is a CA file.
    let reference = registry.reference("filtergate-test/spec-v0.0.0:v1");
    let (rule, message, help) = refusal(&reference, &options());
    assert_eq!(rule, Rule::ImageUnreachable);
    assert!(message.contains("HTTP request to an HTTPS server"), "{message}");
    assert!(help.contains("--ca-file"), "{help}");

    // Of another CA.
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/other-ca.pem");
    let options = with_fetch(|fetch| fetch.ca_file = Some(other.into()));
    let (rule, message, help) = refusal(&reference, &options);
    assert_eq!(rule, Rule::ImageUnreachable);
    assert!(message.contains("certificate"), "{message}");
    assert!(!message.contains("tried"), "{message}");
    assert!(help.contains("--ca-file"), "{help}");
}

/// The program, with a host that is not on this machine as far as it knows.
#[test]
fn with_an_own_ca_behind_a_proxy() {
    let Some((registry, ca)) = needs_tls() else { return };
    registry.push("filtergate-test/proxy", "v1", &images::specification(&module()));
    let proxy = tunnel_to(registry.host.clone());
    let home = tempfile::tempdir().unwrap();
    let run = |ca: Option<&PathBuf>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_filtergate"));
        command.args(["check", "registry.example/filtergate-test/proxy:v1"]).env_clear();
        for name in ["HOME", "FILTERGATE_CACHE"] {
            command.env(name, home.path());
        }
        command.env("HTTPS_PROXY", &proxy);
        if let Some(ca) = ca {
            command.arg("--ca-file").arg(ca);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (exit, printed) = run(Some(&ca));
    assert_eq!(exit, Some(0), "{printed}");
    let (exit, printed) = run(None);
    assert_eq!(exit, Some(3), "{printed}");
    for part in ["image/unreachable", "certificate", "by --ca-file"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

/// A proxy whose tunnels all lead to one host, for as long as the test runs.
fn tunnel_to(host: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, host) = (client.unwrap(), host.clone());
            std::thread::spawn(move || tunnel(client, &host));
        }
    });
    proxy
}

/// Whoever goes away first ends both directions.
fn tunnel(client: TcpStream, host: &str) -> Option<()> {
    let mut request = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        request.read_line(&mut line).ok().filter(|read| *read > 0)?;
    }
    let (mut from_client, mut to_client) = (request, client);
    to_client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let mut to_server = TcpStream::connect(host).ok()?;
    let mut from_server = to_server.try_clone().ok()?;
    std::thread::spawn(move || {
        let _ = copy(&mut from_server, &mut to_client);
        to_client.shutdown(std::net::Shutdown::Both)
    });
    let _ = copy(&mut from_client, &mut to_server);
    to_server.shutdown(std::net::Shutdown::Both).ok()
}
