//! Images built, written and copied.

use crate::server::{Answer, Request, Server};
use crate::support::{
    CONFIG, Layout, OCI_MANIFEST, WASM, block_on, data, descriptor, get, manifest, options,
};
use filtergate::image::{
    Consumer, CredentialSource, Destination, Digest, FetchOptions, ImageError, NoProgress, Package,
    Published, PushShape, Source, UserPassword, copy, push,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

const SHAPES: [PushShape; 3] = [PushShape::Spec, PushShape::Compat, PushShape::Cncf];

fn push_to(
    destination: &str,
    shape: PushShape,
    options: &FetchOptions,
) -> Result<Published, ImageError> {
    let annotations = BTreeMap::from([("org.example/team".to_owned(), "edge".to_owned())]);
    let package =
        Package { wasm: WASM, runtime_config: CONFIG.as_bytes(), annotations: &annotations };
    let destination = Destination::parse(destination).unwrap();
    block_on(push(&package, shape, &destination, options, &NoProgress))
}

fn pushed(destination: &str, shape: PushShape) -> Published {
    push_to(destination, shape, &options()).unwrap()
}

fn copied(source: &str, destination: &str) -> Result<Published, ImageError> {
    let from = Source::parse(source).unwrap();
    let to = Destination::parse(destination).unwrap();
    block_on(copy(&from, source, &options(), &to, &options(), &NoProgress))
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(inner, b)| (format!("{name}/{inner}"), b)));
        } else {
            all.insert(name, fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for shape in SHAPES {
        let (one, two) = (path(&format!("{shape}-1")), path(&format!("{shape}-2")));
        let first = pushed(&format!("oci:{}:v1", one.display()), shape);
        let second = pushed(&format!("oci:{}:v1", two.display()), shape);
        assert_eq!(first.digest, second.digest);
        assert_eq!(files(&one), files(&two));
        let archive = path(&format!("{shape}.tar"));
        let third = pushed(&format!("oci-archive:{}:v1", archive.display()), shape);
        assert_eq!(first.digest, third.digest);
        let bytes = fs::read(&archive).unwrap();
        pushed(&format!("oci-archive:{}:v1", archive.display()), shape);
        assert_eq!(fs::read(&archive).unwrap(), bytes);
    }
}

/// What is written is read back whole, and taken by whom it is for.
#[test]
fn who_takes_what_is_pushed() {
    for shape in SHAPES {
        let dir = tempfile::tempdir().unwrap();
        let reference = format!("oci:{}:v1", dir.path().display());
        let digest = pushed(&reference, shape).digest;
        let image = get(&reference).unwrap();
        assert_eq!(image.manifest_digest, digest);
        assert_eq!(image.wasm, WASM);
        let takes: Vec<_> = Consumer::ALL
            .into_iter()
            .filter(|consumer| {
                let mut all = image.consumers.iter();
                all.any(|verdict| verdict.consumer == *consumer && verdict.takes == Some(true))
            })
            .collect();
        use Consumer::{EnvoyGateway, Higress, Istio, SpecV0, Wkg};
        let config = image.runtime_config.unwrap();
        assert_eq!(config.abi_versions, ["0.2.1"]);
        match shape {
            PushShape::Spec => {
                assert_eq!(takes, [Istio, EnvoyGateway, Higress, SpecV0]);
                assert_eq!(config.root_ids, ["one"]);
                assert_eq!(image.notes, []);
            }
            PushShape::Compat => {
                assert!(takes.starts_with(&[Istio, EnvoyGateway, Higress]), "{takes:?}");
                assert_eq!(config.root_ids, ["one"]);
                assert_eq!(image.notes, []);
            }
            // Its runtime config is what the annotations keep of it.
            PushShape::Cncf => assert_eq!(takes, [Wkg]),
        }
    }
}

#[test]
fn annotations_are_in_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let digest =
        pushed(&format!("oci:{}", dir.path().display()), PushShape::Compat).digest.unwrap();
    let blob = dir.path().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let manifest: Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
    let expected = json!({ "module.wasm.image/variant": "compat", "org.example/team": "edge" });
    assert_eq!(manifest["annotations"], expected);
    assert_eq!(manifest["mediaType"], OCI_MANIFEST);
}

#[test]
fn a_layout_is_extended_and_a_tag_replaced() {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let shown = layout.dir.path().display().to_string();
    let before = layout.get("v1").unwrap().manifest_digest;
    // Whatever else is in the index stays.
    let path = layout.dir.path().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["annotations"] = json!({ "kept": "yes" });
    fs::write(&path, index.to_string()).unwrap();
    let added = pushed(&format!("oci:{shown}:v2"), PushShape::Compat);
    assert_eq!(added.reference, format!("oci:{shown}:v2@{}", added.digest.as_deref().unwrap()));
    assert_eq!(get(&added.reference).unwrap().manifest_digest, added.digest);
    assert_eq!(layout.get("v1").unwrap().manifest_digest, before);
    let replaced = pushed(&format!("oci:{shown}:v1"), PushShape::Spec);
    assert_eq!(layout.get("v1").unwrap().manifest_digest, replaced.digest);
    // Without a tag, once.
    for _ in 0..2 {
        pushed(&format!("oci:{shown}"), PushShape::Cncf);
    }
    let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(index["annotations"]["kept"], "yes");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    // A blob that is broken is written anew.
    let module = layout.blob_path(&Digest::sha256(WASM).to_string());
    fs::write(&module, b"broken").unwrap();
    pushed(&format!("oci:{shown}:v1"), PushShape::Spec);
    assert_eq!(fs::read(module).unwrap(), WASM);
}

#[test]
fn writers_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().join("layout").display().to_string();
    pushed(&format!("oci:{shown}:first"), PushShape::Spec);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let destination = format!("oci:{shown}:t{number}");
            scope.spawn(move || pushed(&destination, PushShape::Spec));
        }
    });
    for number in 0..8 {
        assert_eq!(get(&format!("oci:{shown}:t{number}")).unwrap().wasm, WASM);
    }
}

#[test]
fn places_that_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().display().to_string();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let error = push_to(&format!("oci:{shown}:v1"), PushShape::Spec, &options()).unwrap_err();
    assert!(error.to_string().contains("no OCI layout"), "{error}");
    let error = push_to(&format!("oci-archive:{shown}"), PushShape::Spec, &options()).unwrap_err();
    assert!(error.to_string().contains("is a directory"), "{error}");
    let missing = format!("oci-archive:{shown}/missing/x.tar");
    assert!(push_to(&missing, PushShape::Spec, &options()).is_err());
    assert_eq!(files(dir.path()).len(), 1);
    #[cfg(unix)]
    {
        let (outside, layout) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::os::unix::fs::symlink(outside.path(), layout.path().join("blobs")).unwrap();
        let destination = format!("oci:{}:v1", layout.path().display());
        let error = push_to(&destination, PushShape::Spec, &options()).unwrap_err();
        assert!(error.to_string().contains("leads out of the layout"), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_docker_archive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let name = format!("docker-archive:{}:acme/filter:1", path.display());
    let written = pushed(&name, PushShape::Compat);
    assert_eq!(written.digest, None);
    let mut archive = tar::Archive::new(fs::File::open(&path).unwrap());
    let mut all = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        all.insert(name, bytes);
    }
    let manifest: Value = serde_json::from_slice(&all["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["docker.io/acme/filter:1"]));
    let config = &all[manifest[0]["Config"].as_str().unwrap()];
    assert_eq!(written.image_id, Some(Digest::sha256(config).to_string()));
    let layer = &all[manifest[0]["Layers"][0].as_str().unwrap()];
    let config: Value = serde_json::from_slice(config).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], Digest::sha256(layer).to_string());
    assert!(push_to(&name, PushShape::Spec, &options()).is_err());
}

/// Every recorded image goes from layout to layout and keeps each byte.
#[test]
fn copies_are_byte_for_byte() {
    let mut source = Layout::new();
    for blob in fs::read_dir(data("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), source.dir.path().join("blobs/sha256").join(blob.file_name()))
            .unwrap();
    }
    let mut copied_images = 0;
    for entry in fs::read_dir(data("manifests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        let digest = source.tag(&name, &bytes);
        let target = tempfile::tempdir().unwrap();
        let destination = format!("oci:{}:copy", target.path().display());
        let copy = copied(&source.reference(&name), &destination)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(copy.digest.as_deref(), Some(digest.as_str()), "{name}");
        for (file, bytes) in files(&target.path().join("blobs")) {
            assert_eq!(fs::read(source.dir.path().join("blobs").join(&file)).unwrap(), bytes);
        }
        copied_images += 1;
    }
    assert!(copied_images > 60);
}

#[test]
fn what_cannot_be_copied_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = dir.path().join("x.wasm");
    fs::write(&wasm, WASM).unwrap();
    let destination = format!("oci:{}/layout", dir.path().display());
    let error = copied(wasm.to_str().unwrap(), &destination).unwrap_err();
    assert!(error.help().contains("--shape compat"), "{}", error.help());
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let archive = format!("docker-archive:{}/x.tar", dir.path().display());
    assert!(copied(&layout.reference("v1"), &archive).is_err());
    // An index in indexes without end.
    let mut layout = Layout::new();
    let mut bytes = manifest(descriptor("application/vnd.oci.empty.v1+json", b"{}"), Vec::new());
    let index_type = "application/vnd.oci.image.index.v1+json";
    for _ in 0..6 {
        let entry = layout.blob(index_type, &bytes);
        bytes = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
    }
    layout.tag("deep", &bytes);
    let error = copied(&layout.reference("deep"), &destination).unwrap_err();
    assert!(error.to_string().contains("indexes in indexes"), "{error}");
}

#[test]
fn names_of_destinations() {
    for (text, shown) in [
        ("ghcr.io/acme/filter:1.2", "ghcr.io/acme/filter:1.2"),
        ("oci://ghcr.io/acme/filter:1.2", "ghcr.io/acme/filter:1.2"),
        ("oci:build/image:1.2", "oci:build/image:1.2"),
        ("oci:build/image", "oci:build/image"),
        ("oci-archive:x.tar:1.2", "oci-archive:x.tar:1.2"),
        ("docker-archive:x.tar:acme/x:1", "docker-archive:x.tar:docker.io/acme/x:1"),
    ] {
        assert_eq!(Destination::parse(text).unwrap().to_string(), shown);
    }
    let digest = Digest::sha256(WASM);
    for text in
        ["", "oci:", "oci-archive:", "oci-archive:x.tar:", "./x", "x.wasm", "dir:x", "https://x/y"]
    {
        assert!(Destination::parse(text).is_err(), "{text}");
    }
    assert!(Destination::parse(&format!("oci:build/image@{digest}")).is_err());
}

/// What a registry has, by path.
type Stored = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A registry that takes pushes. `place` makes a `Location` of the path of an upload.
fn registry<P>(stored: &Stored, place: P) -> impl Fn(&Request) -> Answer + 'static + use<P>
where
    P: Fn(&Request, &str) -> String + Send + Sync + 'static,
{
    let stored = Arc::clone(stored);
    move |request: &Request| take(request, &stored, &place)
}

fn take(
    request: &Request,
    stored: &Stored,
    place: &(dyn Fn(&Request, &str) -> String + Send + Sync),
) -> Answer {
    let mut stored = stored.lock().unwrap();
    let path = request.path.split('?').next().unwrap();
    match request.method.as_str() {
        "POST" => Answer::new(202, "").header("Location", &place(request, "/v2/acme/filter/up/1")),
        "PUT" => {
            let digest = Digest::sha256(&request.body).to_string();
            let key = match path.contains("/manifests/") {
                true => path.to_owned(),
                false => format!("/v2/acme/filter/blobs/{digest}"),
            };
            if key.contains("/blobs/")
                && !request.path.ends_with(&format!("digest={}", digest.replace(':', "%3A")))
            {
                return Answer::error(400, "DIGEST_INVALID", "another digest");
            }
            if key.contains("/manifests/") {
                stored.insert(format!("/v2/acme/filter/manifests/{digest}"), request.body.clone());
            }
            stored.insert(key, request.body.clone());
            Answer::new(201, "").header("Docker-Content-Digest", &digest)
        }
        _ => match stored.get(path) {
            Some(bytes) if request.method == "GET" => Answer::new(200, bytes),
            Some(_) => Answer::new(200, ""),
            None => Answer::error(404, "NOT_FOUND", "not here"),
        },
    }
}

fn push_to_server(
    server: &Server,
    name: &str,
    options: &FetchOptions,
) -> Result<Published, ImageError> {
    push_to(&format!("{}/{name}", server.host()), PushShape::Spec, options)
}

#[test]
fn a_registry_gets_each_blob_once() {
    for query in ["", "?state=abc%2Fdef"] {
        for absolute in [true, false] {
            let stored = Stored::default();
            let server = Server::start(registry(&stored, move |request, path| {
                let host = request.header("host");
                if absolute {
                    format!("http://{host}{path}{query}")
                } else {
                    format!("{path}{query}")
                }
            }));
            let written = push_to_server(&server, "acme/filter:v1", &options()).unwrap();
            let digest = written.digest.unwrap();
            assert_eq!(written.reference, format!("{}/acme/filter:v1@{digest}", server.host()));
            assert_eq!(get(&written.reference).unwrap().wasm, WASM);
            let puts = |server: &Server| {
                server.requests().iter().filter(|request| request.method == "PUT").count()
            };
            // The config is in two places, and is one blob.
            assert_eq!(puts(&server), 3);
            push_to_server(&server, "acme/filter:v1", &options()).unwrap();
            assert_eq!(puts(&server), 4);
            let requests = server.requests();
            let last = requests.iter().rfind(|request| request.method == "PUT").unwrap();
            assert_eq!(last.header("content-type"), OCI_MANIFEST);
            if !query.is_empty() {
                assert!(requests.iter().any(|r| r.path.contains("state=abc%2Fdef&digest=sha256")));
            }
        }
    }
}

#[test]
fn a_registry_in_trouble_is_asked_again() {
    let (stored, failures) = (Stored::default(), Mutex::new(0));
    let serve = {
        let stored = Arc::clone(&stored);
        move |request: &Request| take(request, &stored, &|_, path| path.to_owned())
    };
    let server = Server::start(move |request| {
        let mut failures = failures.lock().unwrap();
        if request.method == "PUT" && *failures < 2 {
            *failures += 1;
            return Answer::new(503, "");
        }
        serve(request)
    });
    assert!(push_to_server(&server, "acme/filter:v1", &options()).is_ok());
}

/// What registries say, and what to do then.
#[test]
fn refusals() {
    let cases: [(&str, &str, u16, &str); 8] = [
        ("POST", "", 403, "may write to it"),
        ("POST", "", 404, "to be made first"),
        ("POST", "", 405, "to be made first"),
        ("PUT", "/up/", 413, "limits the size"),
        ("PUT", "/manifests/", 400, "--shape compat"),
        ("PUT", "/manifests/", 405, "--shape compat"),
        ("PUT", "/manifests/", 415, "--shape compat"),
        ("POST", "", 401, "docker login"),
    ];
    for (method, path, status, help) in cases {
        let stored = Stored::default();
        let server = Server::start(move |request| {
            match request.method == method && request.path.contains(path) {
                true => Answer::error(status, "DENIED", "not like this"),
                false => take(request, &stored, &|_, path| path.to_owned()),
            }
        });
        let error = push_to_server(&server, "acme/filter:v1", &options()).unwrap_err();
        assert!(error.to_string().contains("not like this"), "{status}: {error}");
        assert!(error.help().contains(help), "{status}: {}", error.help());
        assert!(!error.is_verdict());
    }
}

#[test]
fn a_registry_that_stored_something_else() {
    let stored = Stored::default();
    let server = Server::start(move |request| {
        match request.method == "PUT" && request.path.contains("/manifests/") {
            true => Answer::new(201, "")
                .header("Docker-Content-Digest", &Digest::sha256(b"other").to_string()),
            false => take(request, &stored, &|_, path| path.to_owned()),
        }
    });
    let error = push_to_server(&server, "acme/filter:v1", &options()).unwrap_err();
    assert!(error.to_string().contains("digest mismatch"), "{error}");
}

/// An upload may go to another server, which gets to see no password.
#[test]
fn an_upload_elsewhere() {
    let stored = Stored::default();
    let storage = Server::start(registry(&stored, |_, path| path.to_owned()));
    let elsewhere = storage.host();
    let front = Arc::clone(&stored);
    let server = Server::start(move |request| {
        if request.header("authorization").is_empty() {
            return Answer::error(401, "UNAUTHORIZED", "who are you?")
                .header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        take(request, &front, &|_, path| format!("http://{elsewhere}{path}"))
    });
    let user = UserPassword::new("user", "secret", "a test");
    let options = FetchOptions { credentials: CredentialSource::Given(user), ..options() };
    push_to_server(&server, "acme/filter:v1", &options).unwrap();
    let requests = storage.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.header("authorization").is_empty()));
}

/// A token for writing is asked for.
#[test]
fn a_token_to_push_with() {
    let stored = Stored::default();
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            return Answer::new(200, r#"{"token":"abc"}"#);
        }
        if request.header("authorization") != "Bearer abc" {
            let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host"));
            return Answer::error(401, "UNAUTHORIZED", "no").header("WWW-Authenticate", &realm);
        }
        take(request, &stored, &|_, path| path.to_owned())
    });
    push_to_server(&server, "acme/filter:v1", &options()).unwrap();
    let requests = server.requests();
    let asked = requests.iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert!(
        asked.path.contains("scope=repository%3Aacme%2Ffilter%3Apull%2Cpush"),
        "{}",
        asked.path
    );
}

#[test]
fn a_digest_that_the_image_does_not_have() {
    let stored = Stored::default();
    let server = Server::start(registry(&stored, |_, path| path.to_owned()));
    let name = format!("acme/filter@{}", Digest::sha256(b"other"));
    let error = push_to_server(&server, &name, &options()).unwrap_err();
    assert!(error.to_string().contains("is another"), "{error}");
    assert_eq!(server.requests().len(), 0);
}
