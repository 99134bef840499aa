//! Images in tar files, as Docker, skopeo and buildah write them, and as nobody should.

use crate::support::{
    CONFIG, CONFIG_TYPE, CONTENT_TYPE, Layout, TAR_GZIP, WASM, get, gzip, inspect, manifest,
    options, tar,
};
use filtergate::image::{Consumer, Digest, FetchOptions, Image, ImageError, SourceKind};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A file in a directory of its own.
struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(content: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        fs::write(&path, content).unwrap();
        Self { _dir: dir, path }
    }

    fn get(&self, prefix: &str, selector: &str) -> Result<Image, ImageError> {
        get(&format!("{prefix}{}{selector}", self.path.display()))
    }
}

/// A layout as an archive, with `index.json` last, as some tools write it.
fn oci(layout: &Layout) -> Vec<u8> {
    let root = layout.dir.path();
    let blobs: Vec<_> = fs::read_dir(root.join("blobs/sha256"))
        .unwrap()
        .map(|blob| {
            let path = blob.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (format!("./blobs/sha256/{name}"), fs::read(path).unwrap())
        })
        .collect();
    let read = |name: &str| fs::read(Path::new(root).join(name)).unwrap();
    let (layout, index) = (read("oci-layout"), read("index.json"));
    let mut files: Vec<(&str, &[u8])> =
        blobs.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    files.push(("oci-layout", &layout));
    files.push(("index.json", &index));
    tar(&files)
}

/// What `docker save` writes: layers by names, their digests in the config.
fn docker(layers: &[(&str, &[u8], &[u8])], tags: &[Value]) -> Vec<u8> {
    let diff_ids: Vec<_> =
        layers.iter().map(|(_, _, plain)| Digest::sha256(plain).to_string()).collect();
    let config = json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string();
    let names: Vec<_> = layers.iter().map(|(name, ..)| *name).collect();
    let images: Vec<_> = tags
        .iter()
        .map(|tags| json!({ "Config": "config.json", "RepoTags": tags, "Layers": names }))
        .collect();
    let manifest = Value::from(images).to_string();
    let mut files: Vec<(&str, &[u8])> =
        layers.iter().map(|(name, stored, _)| (*name, *stored)).collect();
    files.push(("config.json", config.as_bytes()));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}

fn plain_layer() -> Vec<u8> {
    tar(&[("plugin.wasm", WASM), ("runtime-config.json", CONFIG.as_bytes())])
}

#[test]
fn a_layout_in_an_archive() {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let plain = oci(&layout);
    // Neither the name nor the compression says what it is.
    for content in [plain.clone(), gzip(&plain)] {
        let file = File::new(&content);
        for (prefix, selector) in
            [("oci-archive:", ""), ("oci-archive:", ":v1"), ("", ""), ("docker-archive:", "")]
        {
            let image = file.get(prefix, selector).unwrap();
            assert_eq!(image.wasm, WASM);
            assert_eq!(image.kind, SourceKind::OciArchive);
            assert_eq!(image.manifest_digest, layout.get("v1").unwrap().manifest_digest);
            assert_eq!(image.runtime_config.unwrap().root_ids, ["one"]);
        }
        let error = file.get("oci-archive:", ":v2").unwrap_err();
        assert_eq!(error.rule().name(), "image/not-found");
        assert!(error.to_string().contains("the layout has v1"), "{error}");
    }
}

#[test]
fn an_archive_of_docker_save() {
    let layer = plain_layer();
    let file = File::new(&docker(
        &[
            ("base/layer.tar", &tar(&[("bin/sh", b"x")]), &tar(&[("bin/sh", b"x")])),
            ("l.tar", &layer, &layer),
        ],
        &[json!(["acme/filter:v1", "localhost:5000/x:2"])],
    ));
    for selector in
        ["", ":acme/filter:v1", ":docker.io/acme/filter:v1", ":localhost:5000/x:2", ":@0"]
    {
        let image = file.get("docker-archive:", selector).unwrap();
        assert_eq!(image.wasm, WASM, "{selector}");
        assert_eq!(image.kind, SourceKind::DockerArchive);
        assert_eq!(image.shape.name(), "compat-docker");
        assert_eq!(image.runtime_config.as_ref().unwrap().root_ids, ["one"]);
        // Its digests are those of no registry.
        assert_eq!((&image.named_digest, &image.manifest_digest), (&None, &None));
        // What is pushed is compressed.
        let takes =
            |verdict: &&filtergate::image::ConsumerVerdict| verdict.consumer == Consumer::Istio;
        assert_eq!(image.consumers.iter().find(takes).unwrap().takes, Some(true));
        assert!(image.notes.iter().any(|note| note.message.contains("docker push")));
    }
    let error = file.get("docker-archive:", ":acme/filter:v2").unwrap_err();
    assert_eq!(error.rule().name(), "image/not-found");
    assert!(error.to_string().contains("acme/filter:v1, localhost:5000/x:2"), "{error}");
}

#[test]
fn several_images_in_an_archive_have_to_be_told_apart() {
    let layer = plain_layer();
    let content =
        docker(&[("l.tar", &layer, &layer)], &[json!(["a:1"]), json!(["b:1"]), Value::Null]);
    let file = File::new(&content);
    let error = file.get("docker-archive:", "").unwrap_err();
    assert!(!error.is_verdict());
    assert!(error.to_string().contains("3 images: a:1, b:1, one without a name"), "{error}");
    assert!(error.help().contains("docker-archive:FILE:NAME:TAG"), "{}", error.help());
    assert_eq!(file.get("docker-archive:", ":b:1").unwrap().wasm, WASM);
    assert_eq!(file.get("docker-archive:", ":@2").unwrap().wasm, WASM);
}

/// Docker 25 and later write both layouts; with its own store the layers in both are uncompressed.
#[test]
fn an_archive_with_both_layouts() {
    let layer = plain_layer();
    let docker_files = docker(&[("l.tar", &layer, &layer)], &[json!(["a:1"])]);
    // Two archives in a row are one, but for the end between them.
    let joined =
        |layout: &Layout| [&oci(layout)[..oci(layout).len() - 1024], &docker_files].concat();
    let mut pushed = Layout::new();
    let layers = vec![pushed.blob(TAR_GZIP, &gzip(&layer))];
    let config = pushed.blob("application/vnd.oci.image.config.v1+json", b"{}");
    pushed.tag("v1", &manifest(config, layers));
    let image = File::new(&joined(&pushed)).get("docker-archive:", "").unwrap();
    assert_eq!((image.kind, image.wasm.as_slice()), (SourceKind::OciArchive, WASM));
    assert!(image.manifest_digest.is_some());

    let mut saved = Layout::new();
    let layers = vec![saved.blob("application/vnd.oci.image.layer.v1.tar", &layer)];
    let config = saved.blob("application/vnd.oci.image.config.v1+json", b"{}");
    saved.tag("v1", &manifest(config, layers));
    let image = File::new(&joined(&saved)).get("docker-archive:", "").unwrap();
    assert_eq!((image.kind, image.wasm.as_slice()), (SourceKind::DockerArchive, WASM));
}

#[test]
fn layers_of_an_archive_are_verified() {
    let layer = plain_layer();
    // Compressed ones, too: what counts is the digest of what is in them.
    let packed = gzip(&layer);
    let file = File::new(&docker(&[("l.tar", &packed, &layer)], &[json!(["a:1"])]));
    assert_eq!(file.get("", "").unwrap().wasm, WASM);
    let other = tar(&[("plugin.wasm", b"\0asm\x01\0\0\x01")]);
    for stored in [other.clone(), gzip(&other)] {
        let file = File::new(&docker(&[("l.tar", &stored, &layer)], &[json!(["a:1"])]));
        let error = file.get("", "").unwrap_err();
        assert_eq!(
            (error.rule().name(), error.is_verdict()),
            ("image/digest-mismatch", true),
            "{error}"
        );
    }
}

#[test]
fn links_stay_within_an_archive() {
    let layer = plain_layer();
    let with_link = |kind: tar::EntryType, target: &str| {
        let content = docker(&[("a/layer.tar", &layer, &layer)], &[json!(["a:1"])]);
        // The layer is there under another name, and `a/layer.tar` is a link.
        let mut builder = tar::Builder::new(Vec::new());
        let mut archive = tar::Archive::new(content.as_slice());
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let mut header = entry.header().clone();
            if entry.path_bytes().as_ref() == b"a/layer.tar" {
                header.set_path("layers/1.tar").unwrap();
                header.set_cksum();
            }
            builder.append(&header, entry).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path("a/layer.tar").unwrap();
        header.set_link_name(target).unwrap();
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        File::new(&builder.into_inner().unwrap())
    };
    assert_eq!(
        with_link(tar::EntryType::Symlink, "../layers/1.tar").get("", "").unwrap().wasm,
        WASM
    );
    assert_eq!(with_link(tar::EntryType::Link, "layers/1.tar").get("", "").unwrap().wasm, WASM);
    for target in ["/etc/passwd", "../../../../etc/passwd", "layer.tar", "missing"] {
        let error = with_link(tar::EntryType::Symlink, target).get("", "").unwrap_err();
        assert_eq!(error.rule().name(), "image/not-found", "{target}: {error}");
    }
}

#[test]
fn an_archive_may_be_cut_anywhere() {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let layer = plain_layer();
    for whole in [oci(&layout), docker(&[("l.tar", &layer, &layer)], &[json!(["a:1"])])] {
        for content in [whole.clone(), gzip(&whole)] {
            // The two blocks of zeros at its end are nobody's loss.
            let lost = content.len() - content.len() / 8;
            for length in (600.min(lost / 2)..lost).step_by(lost / 40) {
                let file = File::new(&content[..length]);
                if let Err(error) = file.get("oci-archive:", "") {
                    assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'));
                    assert!(!error.help().is_empty());
                }
            }
            let error = File::new(&content[..lost / 2]).get("oci-archive:", "").unwrap_err();
            assert!(error.to_string().contains("image.tar"), "{error}");
        }
    }
}

#[test]
fn an_archive_may_be_anything() {
    let mut huge = tar::Header::new_ustar();
    huge.set_path("index.json").unwrap();
    huge.set_size(1 << 40);
    huge.set_cksum();
    let mut sparse = tar::Header::new_gnu();
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    sparse.set_path("index.json").unwrap();
    sparse.as_gnu_mut().unwrap().realsize = *b"77777777777\0";
    sparse.set_size(0);
    sparse.set_cksum();
    let not_json = tar(&[("manifest.json", b"{")]);
    let no_config = tar(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]);
    let empty = tar(&[("manifest.json", b"[]")]);
    let of_files = tar(&[("plugin.wasm", WASM)]);
    let no_index = tar(&[("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)]);
    for (content, part) in [
        (huge.as_bytes().to_vec(), "image.tar"),
        (sparse.as_bytes().to_vec(), "image.tar"),
        (not_json, "is not a list of images"),
        (no_config, "has no such file"),
        (empty, "has no images"),
        (of_files, "is an archive of files, not of an image"),
        (no_index, "an archive without an image"),
        (b"text".to_vec(), "image.tar"),
        (Vec::new(), "image.tar"),
    ] {
        let error = File::new(&content).get("oci-archive:", "").unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.help().is_empty());
    }
}

#[test]
fn what_is_unpacked_of_an_archive_is_limited() {
    let zeros = vec![0; 64 << 20];
    let bomb = gzip(&tar(&[("a", &zeros), ("b", &zeros), ("index.json", b"{}")]));
    let file = File::new(&bomb);
    let reference = format!("oci-archive:{}", file.path.display());
    let small = FetchOptions { max_module_bytes: 1 << 20, ..options() };
    let error = crate::support::get_with(&reference, &small).unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}

#[test]
fn a_directory_of_skopeo() {
    let dir = tempfile::tempdir().unwrap();
    let blob = |media_type: &str, content: &[u8]| {
        let descriptor = crate::support::descriptor(media_type, content);
        let digest = descriptor["digest"].as_str().unwrap();
        fs::write(dir.path().join(&digest["sha256:".len()..]), content).unwrap();
        descriptor
    };
    let layers = vec![blob(CONFIG_TYPE, CONFIG.as_bytes()), blob(CONTENT_TYPE, WASM)];
    let config = blob("application/vnd.unknown.config.v1+json", b"{}");
    let manifest = manifest(config, layers);
    fs::write(dir.path().join("manifest.json"), &manifest).unwrap();
    let image = get(&format!("dir:{}", dir.path().display())).unwrap();
    assert_eq!((image.kind, image.wasm.as_slice()), (SourceKind::Directory, WASM));
    assert_eq!(image.manifest_digest, Some(Digest::sha256(&manifest).to_string()));
    let tree = inspect(&format!("dir:{}", dir.path().display())).tree.unwrap();
    assert!(tree.is_selected);
}
