//! What is kept of images, and what is asked of a registry all the same.

use crate::registry::{good, image_manifest, is_wasm_blob, pull_with};
use crate::server::{Answer, Request, Server};
use crate::support::{CONFIG, OCI_MANIFEST, WASM, block_on, manifest, options};
use filtergate::image::{Digest, FetchOptions, ImageError, NoProgress, Source, fetch};
use filtergate::store::{Kind, Prune, Store};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

type Warnings = Arc<Mutex<Vec<String>>>;

/// A store in a folder of its own, and what it warned of.
struct Kept {
    folder: tempfile::TempDir,
    warnings: Warnings,
}

impl Kept {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), warnings: Warnings::default() }
    }

    fn open(&self) -> Arc<Store> {
        let warnings = Arc::clone(&self.warnings);
        let tell = move |text: &str| warnings.lock().unwrap().push(text.to_owned());
        Arc::new(Store::open(self.folder.path(), tell).unwrap())
    }

    /// Options of a run, which has the store to itself.
    fn options(&self) -> FetchOptions {
        FetchOptions { store: Some(self.open()), ..options() }
    }

    fn path_of(&self, blob: &[u8]) -> PathBuf {
        let hex = Digest::sha256(blob);
        self.folder.path().join("v1/blobs/sha256").join(hex.hex())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }

    /// That everything in the store is whole, and nothing else is there.
    fn assert_intact(&self, entries: usize) {
        let store = self.open();
        let verified = store.verify().unwrap();
        assert_eq!((verified.intact, verified.damaged.len()), (entries, 0));
        let drafts = store.prune(&Prune { older_than: None, max_bytes: Some(u64::MAX) }).unwrap();
        assert_eq!((drafts.unfinished, drafts.entries), (0, 0));
    }
}

fn pinned() -> String {
    format!("acme/filter@{}", Digest::sha256(&image_manifest()))
}

/// The manifest, two configs, the module, and the record of the image.
const ENTRIES: usize = 5;

#[test]
fn a_second_pull_asks_only_for_what_the_tag_names() {
    let (server, kept) = (Server::start(good), Kept::new());
    let first = pull_with(&server, "acme/filter:v1", &kept.options()).unwrap();
    assert_eq!(server.requests().len(), 4);
    kept.assert_intact(ENTRIES);
    let second = pull_with(&server, "acme/filter:v1", &kept.options()).unwrap();
    assert_eq!(server.requests().len(), 5);
    assert_eq!(server.count(|request| request.path.ends_with("/manifests/v1")), 2);
    assert_eq!(second.wasm, first.wasm);
    assert_eq!(second.named_digest, first.named_digest);
    assert_eq!(second.runtime_config.unwrap().root_ids, ["one"]);
    assert_eq!(kept.warnings(), [""; 0]);
}

#[test]
fn what_a_digest_names_needs_no_registry_the_second_time() {
    let (server, kept) = (Server::start(good), Kept::new());
    let host = server.host();
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    let requests = server.requests().len();
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    assert_eq!(server.requests().len(), requests);
    drop(server);
    let reference = format!("{host}/{}", pinned());
    let get = |reference: &str, options: &FetchOptions| {
        let source = Source::parse(reference).unwrap();
        block_on(fetch(&source, reference, options, &NoProgress))
    };
    let image = get(&reference, &kept.options()).unwrap();
    assert_eq!(image.wasm, WASM);
    assert_eq!(image.manifest_digest, Some(Digest::sha256(&image_manifest()).to_string()));
    // Whether a tag has been moved nobody can say any more.
    let error = get(&format!("{host}/acme/filter:v1"), &kept.options()).unwrap_err();
    assert_eq!(error.rule().name(), "image/unreachable");
    // Another repository may not have it.
    let other = reference.replace("acme/filter", "acme/other");
    assert!(matches!(get(&other, &kept.options()), Err(ImageError::Unreachable { .. })));
    assert!(get(&reference, &options()).is_err());
}

#[test]
fn a_tag_that_was_moved_is_followed() {
    let kept = Kept::new();
    let moved = Arc::new(Mutex::new(false));
    let is_moved = Arc::clone(&moved);
    let server = Server::start(move |request| {
        let one = request.path.ends_with("/manifests/v1") && *is_moved.lock().unwrap();
        if one { Answer::error(404, "MANIFEST_UNKNOWN", "gone") } else { good(request) }
    });
    pull_with(&server, "acme/filter:v1", &kept.options()).unwrap();
    *moved.lock().unwrap() = true;
    let error = pull_with(&server, "acme/filter:v1", &kept.options()).unwrap_err();
    assert_eq!(error.rule().name(), "image/not-found");
}

#[test]
fn all_documents_of_an_index_are_kept() {
    let image = image_manifest();
    let entry = json!({
        "mediaType": OCI_MANIFEST,
        "digest": Digest::sha256(&image).to_string(),
        "size": image.len(),
        "platform": { "os": "linux", "architecture": "amd64" },
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let index = serde_json::to_vec(&index).unwrap();
    let digest = Digest::sha256(&index);
    let name = format!("acme/filter@{digest}");
    let server = Server::start(move |request| match request.path.ends_with(digest.hex()) {
        true => Answer::new(200, &index),
        false => good(request),
    });
    let kept = Kept::new();
    pull_with(&server, &name, &kept.options()).unwrap();
    let requests = server.requests().len();
    let image = pull_with(&server, &name, &kept.options()).unwrap();
    assert_eq!(image.manifest_digest, Some(Digest::sha256(&image_manifest()).to_string()));
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn what_is_damaged_is_removed_and_fetched_again() {
    let (server, kept) = (Server::start(good), Kept::new());
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    let path = kept.path_of(WASM);
    for damage in [&b"\0asm\x01\0\0\x01"[..], b"\0asm", b""] {
        let before = (server.count(is_wasm_blob), server.requests().len(), kept.warnings().len());
        fs::write(&path, damage).unwrap();
        let image = pull_with(&server, &pinned(), &kept.options()).unwrap();
        assert_eq!(image.wasm, WASM);
        let after = (server.count(is_wasm_blob), server.requests().len(), kept.warnings().len());
        assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 1));
        let warning = kept.warnings().pop().unwrap();
        assert!(warning.contains(Digest::sha256(WASM).hex()), "{warning}");
        kept.assert_intact(ENTRIES);
    }
    // A manifest, too; and without its record nothing is known of the image.
    fs::write(kept.path_of(&image_manifest()), "{}").unwrap();
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    kept.assert_intact(ENTRIES);
    for record in fs::read_dir(kept.folder.path().join("v1/images")).unwrap() {
        fs::write(record.unwrap().path(), r#"{"repository": 1}"#).unwrap();
    }
    let requests = server.requests().len();
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    assert_eq!(server.requests().len(), requests + 4);
    kept.assert_intact(ENTRIES);
}

#[test]
fn a_registry_that_sends_something_else_fills_no_store() {
    let server = Server::start(|request| match is_wasm_blob(request) {
        true => Answer::new(200, b"\0asm\x01\0\0\x02"),
        false => good(request),
    });
    let kept = Kept::new();
    for _ in 0..2 {
        let error = pull_with(&server, "acme/filter:v1", &kept.options()).unwrap_err();
        assert_eq!(error.rule().name(), "image/digest-mismatch");
    }
    assert!(!kept.path_of(WASM).exists());
    assert_eq!(server.count(is_wasm_blob), 2);
    let store = kept.open();
    assert_eq!(store.verify().unwrap().damaged.len(), 0);
}

#[test]
fn a_body_that_was_cut_at_first_is_kept_whole() {
    let failures = Mutex::new(0);
    let server = Server::start(move |request| {
        let mut failures = failures.lock().unwrap();
        if is_wasm_blob(request) && *failures < 2 {
            *failures += 1;
            return good(request).cut(3);
        }
        good(request)
    });
    let kept = Kept::new();
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    assert_eq!(fs::read(kept.path_of(WASM)).unwrap(), WASM);
    kept.assert_intact(ENTRIES);
}

#[test]
fn a_descriptor_with_another_size_is_an_error_with_the_blob_at_hand_too() {
    let (server, kept) = (Server::start(good), Kept::new());
    pull_with(&server, "acme/filter:v1", &kept.options()).unwrap();
    let mut layer = crate::support::descriptor(crate::support::CONTENT_TYPE, WASM);
    layer["size"] = json!(WASM.len() + 1);
    let config = crate::support::descriptor(crate::support::CONFIG_TYPE, CONFIG.as_bytes());
    let lies = manifest(config, vec![layer]);
    let server = Server::start(move |request| match request.path.ends_with("/manifests/v1") {
        true => Answer::new(200, &lies),
        false => good(request),
    });
    for _ in 0..2 {
        let error = pull_with(&server, "acme/filter:v1", &kept.options()).unwrap_err();
        assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");
    }
    assert_eq!(fs::read(kept.path_of(WASM)).unwrap(), WASM);
}

#[test]
fn a_store_that_cannot_be_written_is_said_once_and_stops_nothing() {
    let (server, kept) = (Server::start(good), Kept::new());
    let options = kept.options();
    let folder = kept.folder.path().join("v1/blobs/sha256");
    fs::remove_dir(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    for _ in 0..2 {
        assert_eq!(pull_with(&server, "acme/filter:v1", &options).unwrap().wasm, WASM);
    }
    drop(options);
    let warnings = kept.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("nothing is kept"), "{warnings:?}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_not_this_users_alone_is_refused() {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    let refused = |folder: &Path, reason: &str| {
        let error = Store::open(folder, |_| {}).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let kept = Kept::new();
    drop(kept.open());
    let (root, inner) = (kept.folder.path(), kept.folder.path().join("v1"));
    for folder in [&inner, &inner.join("blobs/sha256"), &inner.join("artifacts")] {
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    mode(root, 0o777).unwrap();
    refused(root, "others can write to it (mode 777)");
    mode(root, 0o755).unwrap();
    mode(&inner.join("artifacts"), 0o770).unwrap();
    refused(root, "others can write to it (mode 770)");
    mode(&inner.join("artifacts"), 0o700).unwrap();
    drop(kept.open());
    // What the folder holds leads nowhere else.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::remove_dir(inner.join("blobs/sha256")).unwrap();
    symlink(elsewhere.path(), inner.join("blobs/sha256")).unwrap();
    refused(root, "it is a symbolic link");
    fs::remove_file(inner.join("blobs/sha256")).unwrap();
    refused(&root.join("v1/CACHEDIR.TAG"), "File exists");
    // Only root can give files away.
    if chown(&inner, Some(4711), None).is_ok() {
        refused(root, "it belongs to user 4711, and this program runs as user 0");
    }
}

#[cfg(unix)]
#[test]
fn no_link_in_the_store_is_followed() {
    let (server, kept) = (Server::start(good), Kept::new());
    pull_with(&server, &pinned(), &kept.options()).unwrap();
    let (path, elsewhere) = (kept.path_of(WASM), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("module");
    fs::rename(&path, &target).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert_eq!(pull_with(&server, &pinned(), &kept.options()).unwrap().wasm, WASM);
    assert_eq!(server.count(is_wasm_blob), 2);
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read(&target).unwrap(), WASM);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let verified = kept.open().verify().unwrap();
    assert_eq!(verified.damaged.len(), 1);
    assert_eq!(kept.open().prune(&Prune::default()).unwrap().left_bytes, 0);
    assert_eq!(fs::read(&target).unwrap(), WASM);
}

#[test]
fn many_at_once_leave_a_whole_store() {
    let (server, kept) = (Server::start(good), Kept::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for name in ["acme/filter:v1", &pinned()] {
                    assert_eq!(pull_with(&server, name, &kept.options()).unwrap().wasm, WASM);
                }
            });
        }
    });
    kept.assert_intact(ENTRIES);
    assert_eq!(kept.warnings(), [""; 0]);
}

/// The program, with a store and without anything of this machine.
fn program(kept: &Kept, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_filtergate"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let empty = kept.folder.path();
    command.env("FILTERGATE_CACHE", empty).env("HOME", empty).env("DOCKER_CONFIG", empty);
    command.env("NO_PROXY", "*").env_remove("FILTERGATE_NO_CACHE");
    command
}

fn json_of(kept: &Kept, arguments: &[&str]) -> serde_json::Value {
    let output = program(kept, arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn who_is_killed_leaves_only_what_prune_sweeps() {
    let (asked, when_asked) = channel();
    let (asked, hangs) = (Mutex::new(asked), Mutex::new(true));
    let (release, until_released) = channel::<()>();
    let until_released = Mutex::new(until_released);
    let server = Server::start(move |request: &Request| {
        if is_wasm_blob(request) && std::mem::take(&mut *hangs.lock().unwrap()) {
            asked.lock().unwrap().send(()).unwrap();
            // Until the test is over.
            let _ = until_released.lock().unwrap().recv();
        }
        good(request)
    });
    let kept = Kept::new();
    let reference = format!("{}/{}", server.host(), pinned());
    let check: &[&str] = &["inspect", &reference, "--format", "json"];
    let mut child: Child = program(&kept, check).spawn().unwrap();
    when_asked.recv().unwrap();
    // While it runs, its draft is not touched.
    let prune = ["cache", "prune", "--max-size", "1GiB", "--format", "json"];
    assert_eq!(json_of(&kept, &prune)["removed_unfinished"], 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!kept.path_of(WASM).exists());
    assert_eq!(json_of(&kept, &["cache", "verify", "--format", "json"])["damaged"], json!([]));
    // The module's, and those of what had come just then.
    assert!(json_of(&kept, &prune)["removed_unfinished"].as_u64().unwrap() >= 1);
    assert_eq!(json_of(&kept, &prune)["removed_unfinished"], 0);
    let second = json_of(&kept, check);
    assert_eq!(second["module"]["size"], WASM.len());
    kept.assert_intact(ENTRIES);
    drop(release);
}

#[test]
fn the_program_lists_prunes_and_verifies() {
    let (server, kept) = (Server::start(good), Kept::new());
    let reference = format!("{}/acme/filter:v1", server.host());
    assert!(program(&kept, &["inspect", &reference]).status().unwrap().success());
    let list = json_of(&kept, &["cache", "list", "--format", "json"]);
    let entries = list["entries"].as_array().unwrap();
    assert_eq!(entries.len(), ENTRIES);
    for entry in entries {
        assert_eq!(entry["references"], json!([reference]), "{entry}");
    }
    let module = entries.iter().find(|entry| entry["bytes"] == WASM.len());
    assert_eq!(module.unwrap()["digest"], Digest::sha256(WASM).to_string());
    fs::write(kept.path_of(WASM), "damage").unwrap();
    let output = program(&kept, &["cache", "verify"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(Digest::sha256(WASM).short()), "{text}");
    assert!(!kept.path_of(WASM).exists());
    let none = ["cache", "prune", "--older-than", "1d", "--format", "json"];
    assert_eq!(json_of(&kept, &none)["removed"], 0);
    assert_eq!(json_of(&kept, &["cache", "prune", "--format", "json"])["removed"], ENTRIES - 1);
    assert_eq!(json_of(&kept, &["cache", "list", "--format", "json"])["entries"], json!([]));
    // Without the store nothing is kept.
    for off in [&["--no-cache"][..], &[]] {
        let arguments = [&["inspect", &reference], off].concat();
        let mut command = program(&kept, &arguments);
        if off.is_empty() {
            command.env("FILTERGATE_NO_CACHE", "1");
        }
        assert!(command.status().unwrap().success());
        assert_eq!(json_of(&kept, &["cache", "list", "--format", "json"])["bytes"], 0);
    }
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let kept = Kept::new();
    let store = kept.open();
    let blobs: Vec<Vec<u8>> = (0..4).map(|byte| vec![byte; 1000]).collect();
    for (age, blob) in blobs.iter().enumerate() {
        let path = store.keep_blob(&Digest::sha256(blob), blob).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(3600 * age as u64);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    }
    let left = || {
        let entries = store.entries().unwrap();
        assert!(entries.iter().all(|entry| entry.kind == Kind::Blob && entry.bytes == 1000));
        blobs.iter().map(|blob| kept.path_of(blob).exists()).collect::<Vec<_>>()
    };
    let pruned = store.prune(&Prune { older_than: None, max_bytes: Some(3500) }).unwrap();
    assert_eq!((pruned.entries, pruned.bytes, pruned.left_bytes), (1, 1000, 3000));
    assert_eq!(left(), [true, true, true, false]);
    let hour = std::time::Duration::from_secs(3700);
    store.prune(&Prune { older_than: Some(hour), max_bytes: None }).unwrap();
    assert_eq!(left(), [true, true, false, false]);
}

#[test]
fn without_a_folder_there_is_no_store_and_a_warning() {
    let kept = Kept::new();
    let file = kept.folder.path().join("module.wasm");
    fs::write(&file, WASM).unwrap();
    let file = file.to_str().unwrap();
    let mut command = program(&kept, &["inspect", file]);
    for name in ["FILTERGATE_CACHE", "XDG_CACHE_HOME", "HOME"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("warning: no folder for the store").count(), 1, "{text}");
    let mut command = program(&kept, &["inspect", file]);
    command.env_remove("FILTERGATE_CACHE").env("XDG_CACHE_HOME", kept.folder.path().join("xdg"));
    assert!(command.status().unwrap().success());
    assert!(kept.folder.path().join("xdg/filtergate/v1").is_dir());
}

#[test]
fn a_module_by_its_url_and_digest_is_fetched_once() {
    let (server, kept) = (Server::start(|_| Answer::new(200, WASM)), Kept::new());
    let url = format!("http://{}/filter.wasm", server.host());
    let get = |fragment: &str| {
        let reference = format!("{url}{fragment}");
        let source = Source::parse(&reference).unwrap();
        block_on(fetch(&source, &reference, &kept.options(), &NoProgress)).unwrap()
    };
    let pinned = format!("#sha256={}", Digest::sha256(WASM).hex());
    for _ in 0..2 {
        let image = get(&pinned);
        assert_eq!((image.wasm.as_slice(), image.notes.len()), (WASM, 0));
        assert_eq!(server.requests().len(), 1);
    }
    // Without a digest nobody knows what it is now.
    for requests in [2, 3] {
        assert_eq!(get("").wasm, WASM);
        assert_eq!(server.requests().len(), requests);
    }
}
