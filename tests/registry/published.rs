//! What the program pushes and copies to each of the registries, and what skopeo and the ORAS client
//! for Python make of it, and it of theirs. `FILTERGATE_ORAS_PYTHON` names a Python that has the
//! package `oras`.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    images::{self, Pushable},
    module, private,
    push::Registry,
    push_index, registry, root, skopeo, support,
};

const SHAPES: [&str; 3] = ["spec", "compat", "cncf"];

/// One of the registries, what opens it, and a folder for the programs.
struct Place {
    registry: Registry,
    login: Option<(String, String)>,
    ca: Option<PathBuf>,
    home: TempDir,
}

impl Place {
    fn new(registry: Registry) -> Self {
        Self { registry, login: None, ca: None, home: tempfile::tempdir().unwrap() }
    }

    fn anonymous() -> Option<Self> {
        registry().map(Self::new)
    }

    fn with_login() -> Option<Self> {
        let (registry, user, password) = private::needs_basic()?;
        Some(Self { login: Some((user, password)), ..Self::new(registry) })
    }

    fn with_ca() -> Option<Self> {
        let (registry, ca) = private::needs_tls()?;
        Some(Self { ca: Some(ca), ..Self::new(registry) })
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// A program that knows nothing of whoever runs the tests.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for name in ["HOME", "FILTERGATE_CACHE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"] {
            command.env(name, self.home.path());
        }
        command
    }

    /// Runs filtergate with what opens the registry.
    fn filtergate(&self, args: &[&str]) -> Output {
        let password = self.login.as_ref().map(|(_, password)| password.as_str());
        self.filtergate_with(password, args)
    }

    fn filtergate_with(&self, password: Option<&str>, args: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_filtergate"));
        command.args(args);
        if let Some((user, _)) = &self.login {
            command.args(["--username", user, "--password-stdin"]);
        }
        if let Some(ca) = &self.ca {
            command.arg("--ca-file").arg(ca);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        if let Some(password) = password {
            writeln!(stdin, "{password}").unwrap();
        }
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// The digest of what was written, from the name that is printed.
    fn written(&self, args: &[&str]) -> String {
        let output = self.filtergate(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        let printed = text(&output.stdout);
        let (_, digest) = printed.trim_end().split_once('@').unwrap();
        digest.to_owned()
    }

    fn push(&self, destination: &str, shape: &str) -> String {
        let module = root().join("filters/prebuilt/add-header.wasm").display().to_string();
        let mut args = vec!["push", &module, destination, "--shape", shape];
        for root_id in ["add_request_header", "add_response_header"] {
            args.extend(["--root-id", root_id]);
        }
        self.written(&args)
    }

    /// That the program lets the image pass, and that it has the module. The verdict, as JSON.
    fn assert_passes(&self, reference: &str) -> Value {
        let output = self.filtergate(&["check", reference, "--format", "json"]);
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{reference}: {printed}{}", text(&output.stderr));
        let verdict: Value = serde_json::from_str(&printed).unwrap();
        let sha256 = filtergate::image::Digest::sha256(&module()).hex().to_owned();
        assert_eq!(verdict["module"]["sha256"], sha256, "{reference}");
        verdict
    }

    /// What the name leads to, as read from there.
    fn named_digest(&self, reference: &str) -> String {
        let output = self.filtergate(&["inspect", reference, "--format", "json"]);
        assert!(output.status.success(), "{reference}: {}", text(&output.stderr));
        let inspection: Value = serde_json::from_slice(&output.stdout).unwrap();
        inspection["digests"]["named"].as_str().unwrap().to_owned()
    }

    fn skopeo(&self, program: &Path, from: &str, to: &str, more: &[&str]) {
        let mut command = self.command(program);
        command.args(["--insecure-policy", "copy", "--quiet"]).args(more);
        let side = if from.starts_with("docker://") { "src" } else { "dest" };
        if let Some((user, password)) = &self.login {
            command.arg(format!("--{side}-creds={user}:{password}"));
        }
        match &self.ca {
            None => command.arg(format!("--{side}-tls-verify=false")),
            Some(ca) => {
                let folder = self.home.path().join("certs");
                fs::create_dir_all(&folder).unwrap();
                fs::copy(ca, folder.join("ca.crt")).unwrap();
                command.arg(format!("--{side}-cert-dir={}", folder.display()))
            }
        };
        succeeds(command.args([from, to]));
    }

    fn oras(&self, python: &str, args: &[&str]) {
        let mut command = self.command(python);
        command.arg(root().join("tests/registry/oras_client.py")).args(args);
        if let Some((user, password)) = &self.login {
            command.env("ORAS_USER", user).env("ORAS_PASS", password);
        }
        if let Some(ca) = &self.ca {
            command.env("ORAS_CA", ca);
        }
        succeeds(&mut command);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

fn oras_python() -> Option<String> {
    support::needs("FILTERGATE_ORAS_PYTHON", "a Python with the package oras")
}

/// The rules of a verdict's errors and warnings.
fn complaints(verdict: &Value) -> Vec<&str> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    let all = findings.filter(|finding| finding["severity"] != "note");
    all.map(|finding| finding["rule"].as_str().unwrap()).collect()
}

/// That a folder has the module, in a file of its own, or as `plugin.wasm` of a layer.
fn assert_has_module(folder: &str) {
    let has_module = fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        bytes == module() || plugin_of(&bytes) == Some(module())
    });
    assert!(has_module, "{folder} has no module");
}

fn plugin_of(layer: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer));
    let mut entries = archive.entries().ok()?;
    let mut plugin = entries.find_map(|entry| {
        entry.ok().filter(|entry| entry.path().is_ok_and(|path| path == Path::new("plugin.wasm")))
    })?;
    let mut bytes = Vec::new();
    plugin.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Each shape, twice; the digest is the same wherever it is written.
fn assert_pushes_every_shape(place: &Place) {
    for shape in SHAPES {
        let registry = place.registry.reference(&format!("filtergate-test/pushed-{shape}:v1"));
        let layout = format!("oci:{}:v1", place.path(shape));
        let archive = format!("oci-archive:{}:v1", place.path(&format!("{shape}.tar")));
        let digest = place.push(&registry, shape);
        for destination in [&registry, &layout, &archive] {
            assert_eq!(place.push(destination, shape), digest, "{destination}");
            let verdict = place.assert_passes(destination);
            assert_eq!(verdict["image"]["digest"], digest, "{destination}");
            let expected: &[&str] = if shape == "cncf" { &["image/shape"] } else { &[] };
            assert_eq!(complaints(&verdict), expected, "{destination}");
        }
    }
    let archive = place.path("docker.tar");
    let docker = format!("docker-archive:{archive}:acme/filter:1");
    let module = place.registry.reference("filtergate-test/pushed-spec:v1");
    let output = place.filtergate(&["push", &module, &docker, "--shape", "compat"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in [&docker, &archive] {
        let verdict = place.assert_passes(name);
        assert_eq!(complaints(&verdict), [""; 0], "{name}");
        assert_eq!(verdict["roots"].as_array().unwrap().len(), 2, "{name}");
    }
}

/// After [`assert_pushes_every_shape`].
fn assert_skopeo_understands(place: &Place) {
    let Some(skopeo) = skopeo() else { return };
    for shape in SHAPES {
        let pushed = place.registry.reference(&format!("filtergate-test/pushed-{shape}:v1"));
        let folder = place.path(&format!("skopeo-{shape}"));
        place.skopeo(&skopeo, &format!("docker://{pushed}"), &format!("dir:{folder}"), &[]);
        assert_has_module(&folder);
        place.assert_passes(&format!("dir:{folder}"));

        let back = place.registry.reference(&format!("filtergate-test/skopeo-{shape}:v1"));
        let archive = format!("oci-archive:{}:v1", place.path(&format!("{shape}.tar")));
        place.skopeo(&skopeo, &archive, &format!("docker://{back}"), &["--preserve-digests"]);
        let digest = place.push(&pushed, shape);
        assert_eq!(place.assert_passes(&back)["image"]["digest"], digest, "{back}");
    }
    let docker = format!("docker-archive:{}:acme/filter:1", place.path("docker.tar"));
    for (format, shape) in [("v2s2", "compat-docker"), ("oci", "compat-oci")] {
        let back = place.registry.reference(&format!("filtergate-test/skopeo-{format}:v1"));
        place.skopeo(&skopeo, &docker, &format!("docker://{back}"), &["--format", format]);
        let verdict = place.assert_passes(&back);
        assert_eq!(verdict["image"]["shape"], shape);
        assert_eq!(complaints(&verdict), [""; 0], "{back}");
    }
}

/// After [`assert_pushes_every_shape`].
fn assert_oras_understands(place: &Place) {
    let Some(python) = oras_python() else { return };
    for shape in SHAPES {
        let pushed = place.registry.reference(&format!("filtergate-test/pushed-{shape}:v1"));
        let folder = place.path(&format!("oras-{shape}"));
        place.oras(&python, &["pull", &pushed, &folder]);
        assert_has_module(&folder);
    }
    let spec = place.path("oras-spec");
    let content = format!("{spec}/filter.wasm:application/vnd.module.wasm.content.layer.v1+wasm");
    let config = format!("{spec}/runtime-config.json:application/vnd.module.wasm.config.v1+json");
    let back = place.registry.reference("filtergate-test/oras-spec:v1");
    place.oras(&python, &["push", &back, &config, &config, &content]);
    let verdict = place.assert_passes(&back);
    assert_eq!(complaints(&verdict), [""; 0], "{:?}", verdict["findings"]);
    assert_eq!(verdict["image"]["shape"], "spec-v0.0.0");
    assert_eq!(verdict["roots"].as_array().unwrap().len(), 2);

    // What wasm-to-oci makes, and an image of it that Istio takes.
    let old = place.registry.reference("filtergate-test/oras-old:v1");
    let content = format!("{spec}/filter.wasm:application/vnd.wasm.content.layer.v1+wasm");
    let empty = place.path("empty.json");
    fs::write(&empty, "{}").unwrap();
    let config = format!("{empty}:application/vnd.wasm.config.v1+json");
    place.oras(&python, &["push", &old, &config, &content]);
    let verdict = place.assert_passes(&old);
    assert_eq!(complaints(&verdict), ["image/shape"], "{:?}", verdict["findings"]);
    let new = place.registry.reference("filtergate-test/oras-new:v1");
    place.written(&["copy", &old, &new, "--shape", "compat"]);
    let verdict = place.assert_passes(&new);
    assert_eq!(complaints(&verdict), [""; 0], "{:?}", verdict["findings"]);
    assert_eq!(verdict["image"]["shape"], "compat-oci");
}

/// From a registry to a layout, to the registry, to an archive.
fn assert_copies(place: &Place, name: &str, children: &[&Pushable], digest: &str) {
    let reference = |repository: &str| {
        place.registry.reference(&format!("filtergate-test/{repository}-{name}:v1"))
    };
    let layout = format!("oci:{}:v1", place.path(&format!("copied-{name}")));
    let archive = format!("oci-archive:{}:v1", place.path(&format!("copied-{name}.tar")));
    let stops = [reference("copy"), layout, reference("copied"), archive];
    for way in stops.windows(2) {
        let [from, to] = way else { unreachable!("pairs") };
        assert_eq!(place.written(&["copy", from, to]), digest, "{from} to {to}");
        place.assert_passes(to);
        assert_eq!(place.named_digest(to), digest, "{to}");
    }
    for child in children {
        let digest = filtergate::image::Digest::sha256(&child.manifest);
        let repository = reference("copied");
        let repository = repository.strip_suffix(":v1").unwrap();
        place.assert_passes(&format!("{repository}@{digest}"));
    }
}

fn assert_copies_images(place: &Place) {
    let image = images::compat_docker(&module());
    let digest = place.registry.push("filtergate-test/copy-image", "v1", &image);
    assert_copies(place, "image", &[], &digest);

    let (ours, other) = (images::compat_oci(&module()), images::specification(&module()));
    let digest = push_index(&place.registry, "filtergate-test/copy-index", &ours, &other);
    assert_copies(place, "index", &[&ours, &other], &digest);
}

fn assert_all(place: &Place) {
    assert_pushes_every_shape(place);
    assert_copies_images(place);
    assert_skopeo_understands(place);
    assert_oras_understands(place);
}

#[test]
fn to_a_registry_for_everybody() {
    let Some(place) = Place::anonymous() else { return };
    assert_all(&place);
}

#[test]
fn to_one_with_a_login() {
    let Some(place) = Place::with_login() else { return };
    assert_all(&place);

    let destination = place.registry.reference("filtergate-test/refused:v1");
    let module = root().join("filters/prebuilt/add-header.wasm").display().to_string();
    let args = ["push", &module, &destination, "--root-id", "add_request_header"];
    let output = place.filtergate_with(Some("hunter2"), &args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(text(&output.stdout), "");
    let help = format!("docker login {}", place.registry.host);
    for part in ["error[image/unauthorized]", "answered 401", "--username", &help] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn to_one_with_an_own_ca() {
    let Some(place) = Place::with_ca() else { return };
    assert_all(&place);
}
