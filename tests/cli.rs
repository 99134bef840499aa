//! The command line, against the cases of tests/cli.

#[path = "support/scrub.rs"]
mod scrub;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

const BLESS: &str = "FILTERGATE_BLESS";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with everything that the cases name.
struct Fixtures {
    folder: tempfile::TempDir,
}

impl Fixtures {
    fn new() -> Self {
        let fixtures = Self { folder: tempfile::tempdir().unwrap() };
        for path in files_of("wat") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned() + ".wasm";
            let wasm = wat::parse_file(&path).unwrap_or_else(|error| panic!("{error}"));
            fixtures.write(&name, &wasm);
        }
        let passes = fixtures.read("passes.wasm");
        fixtures.write("empty.wasm", b"");
        fixtures.write("truncated.wasm", &passes[..passes.len() - 20]);
        fixtures.write("text.wasm", &fs::read(root().join("tests/cli/passes.wat")).unwrap());
        fixtures.write("config.json", br#"{"any": "thing"}"#);
        fs::create_dir(fixtures.path("folder")).unwrap();
        copy_folder(&root().join("examples/images/add-header"), &fixtures.path("add-header"));
        fixtures.image("config-not-json", b"type: envoy_proxy\n", &passes);
        fixtures.image(
            "config-type-opa",
            br#"{"type": "opa", "abiVersions": ["v0.2.1"], "config": {"root_ids": ["policy"]}}"#,
            &passes,
        );
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", fixtures.path("add-header")).unwrap();
        fixtures.write("add-header.tar", &archive.into_inner().unwrap());
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_path_with_name(fixtures.path("passes.wasm"), "plugin.wasm").unwrap();
        fixtures.write("files.tar", &archive.into_inner().unwrap());
        let config = br#"{"type": "envoy_proxy", "abiVersions": ["v0.2.1"], "config": {"root_ids": ["one"]}}"#;
        let module = fixtures.image("blob-digest", config, &passes);
        fixtures.signed_image();
        let mut changed = passes;
        *changed.last_mut().unwrap() ^= 1;
        fixtures.write(&format!("blob-digest/blobs/sha256/{module}"), &changed);
        fixtures
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// An OCI layout with an image of the specification's shape; answers the module's digest.
    fn image(&self, name: &str, config: &[u8], module: &[u8]) -> String {
        let blob = |content: &[u8]| {
            let digest = sha256_hex(content);
            self.write(&format!("{name}/blobs/sha256/{digest}"), content);
            digest
        };
        let descriptor = |media_type: &str, content: &[u8]| {
            serde_json::json!({
                "mediaType": media_type,
                "digest": format!("sha256:{}", blob(content)),
                "size": content.len(),
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.module.wasm.config.v1+json", config),
            "layers": [descriptor("application/vnd.module.wasm.content.layer.v1+wasm", module)],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)],
        });
        self.write(&format!("{name}/index.json"), &serde_json::to_vec(&index).unwrap());
        self.write(&format!("{name}/oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        blob(module)
    }

    /// The example image with a signature, as cosign attaches it, by the key `signed.pub`; the key
    /// `other.pub` has signed nothing.
    fn signed_image(&self) {
        copy_folder(&root().join("examples/images/add-header"), &self.path("signed"));
        let key = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let signer = key();
        for (name, key) in [("signed.pub", &signer), ("other.pub", &key())] {
            let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
            let pem = format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                STANDARD.encode(der.as_ref())
            );
            self.write(name, pem.as_bytes());
        }
        let json =
            |path: &str| -> serde_json::Value { serde_json::from_slice(&self.read(path)).unwrap() };
        let write_blob = |content: &serde_json::Value| {
            let content = content.to_string();
            let hex = sha256_hex(content.as_bytes());
            self.write(&format!("signed/blobs/sha256/{hex}"), content.as_bytes());
            serde_json::json!({ "digest": format!("sha256:{hex}"), "size": content.len() })
        };
        let mut index = json("signed/index.json");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let payload = serde_json::json!({ "critical": {
            "type": "cosign container image signature",
            "image": { "docker-manifest-digest": digest },
        } });
        let signature = signer.sign(&SystemRandom::new(), payload.to_string().as_bytes()).unwrap();
        let mut layer = write_blob(&payload);
        layer["mediaType"] = "application/vnd.dev.cosign.simplesigning.v1+json".into();
        layer["annotations"] = serde_json::json!({
            "dev.cosignproject.cosign/signature": STANDARD.encode(signature),
        });
        let mut entry = write_blob(&serde_json::json!({ "schemaVersion": 2, "layers": [layer] }));
        entry["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
        entry["annotations"] = serde_json::json!({
            "org.opencontainers.image.ref.name": format!("{}.sig", digest.replace(':', "-")),
        });
        index["manifests"].as_array_mut().unwrap().push(entry);
        self.write("signed/index.json", index.to_string().as_bytes());
    }

    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_filtergate"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in [
            "FILTERGATE_LOG",
            "RUST_LOG",
            "NO_COLOR",
            "COLUMNS",
            "DOCKER_AUTH_CONFIG",
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "FILTERGATE_USERNAME",
            "FILTERGATE_PASSWORD",
        ] {
            command.env_remove(name);
        }
        // Nobody's logins.
        command.env("HOME", self.folder.path());
        // What one case keeps must not change what another one prints.
        let cache = self.path("cache");
        let _ = fs::remove_dir_all(&cache);
        command.env("FILTERGATE_CACHE", "cache").env_remove("FILTERGATE_NO_CACHE");
        // The registry of the cases is this machine.
        command.env("NO_PROXY", "*").env("no_proxy", "*");
        command
    }
}

fn sha256_hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files_of(extension: &str) -> Vec<PathBuf> {
    let folder = root().join("tests/cli");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// The words of a command line, where '…' keeps one together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A case as its file has it, with what the command does now in place of what it should.
fn run_case(fixtures: &Fixtures, case: &str) -> String {
    let line = case.lines().find(|line| line.starts_with("$ ")).expect("a case has a `$ ` line");
    let head: String =
        case.split_inclusive('\n').take_while(|line| line.starts_with('#')).collect();
    let words = words(&line[2..]);
    assert_eq!(words[0], "filtergate", "{line}");
    let output = fixtures.command(&words[1..]).output().unwrap();
    let code = output.status.code().map_or("by a signal".to_owned(), |code| code.to_string());
    let mut actual = format!("{head}{line}\nexit {code}\n");
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            let text = String::from_utf8_lossy(bytes);
            let folder = fixtures.folder.path().canonicalize().unwrap();
            let text = scrub::normalized(&text.replace(&folder.display().to_string(), "[folder]"));
            // Escape sequences are for the terminal, not for the file.
            let text = text.replace('\u{1b}', "[ESC]");
            actual.push_str(&format!("--- {name}\n{text}"));
        }
    }
    actual
}

#[test]
fn cases() {
    let fixtures = Fixtures::new();
    let bless = std::env::var_os(BLESS).is_some();
    let mut failures = Vec::new();
    let cases = files_of("case");
    assert!(!cases.is_empty());
    for path in cases {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = run_case(&fixtures, &expected);
        if actual == expected {
            continue;
        }
        if bless {
            fs::write(&path, actual).unwrap();
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            failures.push(format!("=== {name}\n{}", difference(&expected, &actual)));
        }
    }
    assert!(
        failures.is_empty(),
        "{} cases differ; {BLESS}=1 accepts what is new (marked +)\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The lines between the first and the last that differ.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[start..]
        .iter()
        .rev()
        .zip(new[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let mut out = String::new();
    for line in &old[start..old.len() - end] {
        out.push_str(&format!("- {line}\n"));
    }
    for line in &new[start..new.len() - end] {
        out.push_str(&format!("+ {line}\n"));
    }
    out
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fixtures = Fixtures::new();
    let arguments = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (list, code) in [
        (arguments(&["check", "passes.wasm"]), 0),
        (arguments(&["check", "no-marker.wasm"]), 1),
        (arguments(&["explain"]), 0),
        (arguments(&["--help"]), 0),
    ] {
        let mut child =
            fixtures.command(&list).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Nobody reads what it prints.
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{list:?}: {stderr}");
        assert_eq!(stderr, "", "{list:?}");
    }
}

#[test]
fn nothing_of_a_module_reaches_the_output_raw() {
    let fixtures = Fixtures::new();
    for format in ["human", "json"] {
        let words = ["check", "logs-escape-sequences.wasm", "-v", "--format", format];
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let output = fixtures.command(&words).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let bad = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(bad, None, "{format}: {text}");
        assert!(!text.contains("##["), "{format}: {text}");
        assert!(!text.lines().any(|line| line.trim_start().starts_with("::")), "{format}: {text}");
    }
}

#[test]
fn the_help_fits_a_terminal() {
    let fixtures = Fixtures::new();
    for command in
        ["check", "inspect", "push", "copy", "bench", "explain", "targets", "cache", "envoy-config"]
    {
        for flag in ["-h", "--help"] {
            let output = fixtures.command(&[command.to_owned(), flag.to_owned()]).output().unwrap();
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                assert!(line.chars().count() <= 79, "{command} {flag}: {line}");
            }
        }
    }
}

#[test]
fn bench_keeps_nothing() {
    fn files(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, all) } else { all.push(path) }
        }
    }
    let fixtures = Fixtures::new();
    fs::create_dir(fixtures.path("temporary")).unwrap();
    let words = ["bench", "passes.wasm", "--runs", "1", "--format", "json"];
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = fixtures.command(&words).env("TMPDIR", "temporary").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stored = json["measured"][0]["from_store"]["phases"].as_array().unwrap();
    assert!(stored.iter().any(|phase| phase["name"] == "artifact"));
    let mut left = Vec::new();
    files(&fixtures.path("temporary"), &mut left);
    files(&fixtures.path("cache"), &mut left);
    // What marks the folder of a store.
    left.retain(|path| path.file_name().is_none_or(|name| name != "CACHEDIR.TAG"));
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn several_images_make_json_lines() {
    let fixtures = Fixtures::new();
    let words = ["check", "passes.wasm", "empty.wasm", "absent.wasm", "--format", "json"];
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = fixtures.command(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |field: &str| verdicts.iter().map(|v| v[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("verdict"), ["pass", "fail", "undecided"]);
    assert_eq!(of("loads"), [true.into(), false.into(), serde_json::Value::Null]);
    assert!(verdicts[2]["image"].is_null() && verdicts[2]["module"].is_null());
}
