//! Images that are damaged, or made to harm their reader.

use crate::support::{
    CONFIG, CONFIG_TYPE, CONTENT_TYPE, Layout, OCI_MANIFEST, WASM, get, get_with, gzip, manifest,
    options, rules, tar,
};
use filtergate::image::{FetchOptions, Image, ImageError};
use filtergate::verdict::Severity;
use serde_json::json;
use std::fs;

fn limited(layout: &Layout, max_module_bytes: u64) -> Result<Image, ImageError> {
    let options = FetchOptions { max_module_bytes, ..options() };
    get_with(&layout.reference("v1"), &options)
}

fn assert_verdict(error: &ImageError, rule: &str, part: &str) {
    assert_eq!((error.rule().name(), error.is_verdict()), (rule, true), "{error}");
    let text = error.to_string();
    assert!(text.contains(part), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn every_blob_is_verified() {
    let wasm = crate::support::descriptor(CONTENT_TYPE, WASM);
    let config = crate::support::descriptor(CONFIG_TYPE, CONFIG.as_bytes());
    for blob in [&wasm, &config] {
        let path = |layout: &Layout| layout.blob_path(blob["digest"].as_str().unwrap());
        let content = |layout: &Layout| fs::read(path(layout)).unwrap();

        let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
        let mut changed = content(&layout);
        changed[5] ^= 1;
        fs::write(path(&layout), &changed).unwrap();
        let error = layout.get("v1").unwrap_err();
        assert_verdict(&error, "image/digest-mismatch", "digest mismatch: expected");
        assert!(error.to_string().contains(blob["digest"].as_str().unwrap()));

        // Size comes before digest.
        let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
        let mut cut = content(&layout);
        cut.pop();
        fs::write(path(&layout), &cut).unwrap();
        let error = layout.get("v1").unwrap_err();
        assert_verdict(&error, "image/digest-mismatch", "size mismatch");

        let mut long = content(&layout);
        long.extend_from_slice(b"more");
        fs::write(path(&layout), &long).unwrap();
        let error = layout.get("v1").unwrap_err();
        assert_verdict(&error, "image/digest-mismatch", "size mismatch");

        let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
        fs::remove_file(path(&layout)).unwrap();
        let error = layout.get("v1").unwrap_err();
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/not-found", false));
    }
}

#[test]
fn a_config_that_nobody_reads_is_verified_too() {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let unknown = crate::support::descriptor("", b"{}");
    fs::write(layout.blob_path(unknown["digest"].as_str().unwrap()), "[]").unwrap();
    let error = layout.get("v1").unwrap_err();
    assert_verdict(&error, "image/digest-mismatch", "digest mismatch");
}

#[test]
fn manifests_are_verified() {
    let mut layout = Layout::new();
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    let module = layout.blob(CONTENT_TYPE, WASM);
    let digest = layout.tag("v1", &manifest(config.clone(), vec![module]));
    let path = layout.blob_path(&digest);
    let good = fs::read(&path).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() = b' ';
    fs::write(&path, changed).unwrap();
    let by_digest = format!("oci:{}@{digest}", layout.dir.path().display());
    for reference in [layout.reference("v1"), by_digest] {
        let error = get(&reference).unwrap_err();
        assert_verdict(&error, "image/digest-mismatch", "digest mismatch");
    }
    fs::write(&path, &good[1..]).unwrap();
    assert_verdict(&layout.get("v1").unwrap_err(), "image/digest-mismatch", "size mismatch");
}

#[test]
fn broken_manifests_are_verdicts() {
    let mut layout = Layout::new();
    let config = layout.blob(CONFIG_TYPE, CONFIG.as_bytes());
    let bad_digest =
        json!({ "mediaType": CONTENT_TYPE, "digest": "sha256:../../../etc/passwd", "size": 1 });
    for (at, (document, part)) in [
        ("not json".into(), "is not valid"),
        ("[]".into(), "is not valid"),
        ("{}".into(), "neither layers nor a config"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "schema 1"),
        (r#"{"schemaVersion":2,"layers":[{"digest":"x","size":-1}]}"#.into(), "is not valid"),
        ("[".repeat(100_000), "is not valid"),
        (String::from_utf8(manifest(config, vec![bad_digest])).unwrap(), "is not a digest"),
    ]
    .into_iter()
    .enumerate()
    {
        let tag = format!("v{at}");
        layout.tag(&tag, document.as_bytes());
        assert_verdict(&layout.get(&tag).unwrap_err(), "image/invalid", part);
    }
}

#[test]
fn limits_hold_before_anything_is_read() {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    assert!(limited(&layout, 8).is_ok());
    assert_verdict(&limited(&layout, 7).unwrap_err(), "image/too-large", "8 bytes");

    let mut layout = Layout::new();
    let huge = json!({ "mediaType": CONFIG_TYPE, "digest": crate::support::descriptor("", b"x")["digest"], "size": u64::MAX });
    let module = layout.blob(CONTENT_TYPE, WASM);
    layout.tag("v1", &manifest(huge, vec![module]));
    assert_verdict(&layout.get("v1").unwrap_err(), "image/too-large", "4194304");

    let mut entry = crate::support::descriptor(OCI_MANIFEST, b"x");
    entry["size"] = json!(5 << 20);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v2" });
    layout.push_entry(entry);
    assert_verdict(&layout.get("v2").unwrap_err(), "image/too-large", "4194304");
}

#[test]
fn a_large_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse.wasm");
    // It would take a terabyte of memory.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = get(path.to_str().unwrap()).unwrap_err();
    assert_verdict(&error, "image/too-large", "1099511627776 bytes");
}

#[cfg(unix)]
#[test]
fn special_files_neither_hang_nor_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    for path in ["/dev/zero", fifo.to_str().unwrap()] {
        let error = get(path).unwrap_err();
        assert_eq!((error.rule().name(), error.is_verdict()), ("image/invalid", false));
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
    let error = get(dir.path().to_str().unwrap()).unwrap_err();
    assert_eq!((error.rule().name(), error.is_verdict()), ("image/invalid", false));
    assert!(error.to_string().contains("`oci-layout`"), "{error}");
}

#[cfg(unix)]
#[test]
fn no_link_leads_out_of_a_layout() {
    use std::os::unix::fs::symlink;
    let wasm = crate::support::descriptor(CONTENT_TYPE, WASM);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("wasm"), WASM).unwrap();
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let blob = layout.blob_path(wasm["digest"].as_str().unwrap());

    fs::remove_file(&blob).unwrap();
    symlink(outside.path().join("wasm"), &blob).unwrap();
    let error = layout.get("v1").unwrap_err();
    assert_verdict(&error, "image/invalid", "leads out of the layout");

    // Within it, links are how some tools share blobs.
    fs::remove_file(&blob).unwrap();
    fs::write(layout.dir.path().join("shared"), WASM).unwrap();
    symlink("../../shared", &blob).unwrap();
    assert_eq!(layout.get("v1").unwrap().wasm, WASM);

    fs::remove_file(&blob).unwrap();
    symlink(&blob, &blob).unwrap();
    assert!(layout.get("v1").is_err());

    let index = layout.dir.path().join("index.json");
    fs::rename(&index, outside.path().join("index.json")).unwrap();
    symlink(outside.path().join("index.json"), &index).unwrap();
    let error = layout.get("v1").unwrap_err();
    assert_verdict(&error, "image/invalid", "leads out of the layout");
}

#[test]
fn an_index_is_not_followed_for_ever() {
    let mut layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let first = fs::read(layout.dir.path().join("index.json")).unwrap();
    let first: serde_json::Value = serde_json::from_slice(&first).unwrap();
    let mut entry = first["manifests"][0].clone();
    for depth in 1..=6 {
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        layout.tag(&format!("d{depth}"), index.to_string().as_bytes());
        entry = crate::support::descriptor(
            "application/vnd.oci.image.index.v1+json",
            index.to_string().as_bytes(),
        );
        let result = layout.get(&format!("d{depth}"));
        match depth {
            1..=3 => assert_eq!(result.unwrap().wasm, WASM),
            _ => assert_verdict(&result.unwrap_err(), "image/invalid", "nested"),
        }
    }
}

#[test]
fn names_in_an_archive_are_never_paths() {
    for name in ["../../plugin.wasm", "/plugin.wasm", "a/../plugin.wasm"] {
        let layout = Layout::compat_image(&gzip(&tar(&[(name, WASM)])));
        let image = layout.get("v1").unwrap();
        assert_eq!(image.wasm, WASM);
        assert!(rules(&image.notes).contains(&("image/shape", Severity::Warning)), "{name}");
    }
    let layout = Layout::compat_image(&gzip(&tar(&[("./plugin.wasm", WASM)])));
    let image = layout.get("v1").unwrap();
    assert_eq!(rules(&image.notes), [("config/missing", Severity::Note)]);
}

#[test]
fn the_config_may_be_on_either_side_of_the_module() {
    let config = ("runtime-config.json", CONFIG.as_bytes());
    let module = ("plugin.wasm", WASM);
    for files in [[config, module], [module, config]] {
        let image = Layout::compat_image(&gzip(&tar(&files))).get("v1").unwrap();
        assert_eq!(image.wasm, WASM);
        assert_eq!(image.runtime_config.unwrap().root_ids, ["one"]);
        assert_eq!(image.notes, []);
    }
}

#[test]
fn a_gzip_bomb_is_too_large() {
    // 100 MiB of zeros are 100 KB of gzip.
    let zeros = vec![0; 100 << 20];
    let bomb = gzip(&tar(&[("zeros", &zeros), ("plugin.wasm", WASM)]));
    let layout = Layout::compat_image(&bomb);
    let error = limited(&layout, 1 << 20).unwrap_err();
    assert_verdict(&error, "image/too-large", "unpacked layer");
    assert!(error.to_string().contains("68157440"), "{error}");

    // The consumers stop at the module, and so does the harm.
    let layout = Layout::compat_image(&gzip(&tar(&[("plugin.wasm", WASM), ("zeros", &zeros)])));
    let image = limited(&layout, 1 << 20).unwrap();
    assert_eq!(image.wasm, WASM);
    assert_eq!(image.notes[0].severity, Severity::Warning);

    let layout = Layout::compat_image(&gzip(&tar(&[("plugin.wasm", &zeros)])));
    let error = limited(&layout, 1 << 20).unwrap_err();
    assert_verdict(&error, "image/too-large", "104857600 bytes");
}

#[test]
fn a_size_in_a_header_allocates_nothing() {
    let mut archive = tar(&[("plugin.wasm", WASM)]);
    let mut header = tar::Header::new_ustar();
    header.set_path("plugin.wasm").unwrap();
    header.set_size(200 << 20);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    let error = Layout::compat_image(&gzip(&archive)).get("v1").unwrap_err();
    assert_verdict(&error, "image/invalid", "ends inside plugin.wasm");
}

#[test]
fn an_archive_with_too_many_entries_is_given_up() {
    let files = vec![("x", &b""[..]); 10_001];
    let layer = gzip(&tar(&files));
    let error = Layout::compat_image(&layer).get("v1").unwrap_err();
    assert_verdict(&error, "image/invalid", "more than 10000 entries");
}

#[test]
fn a_layer_may_be_anything() {
    for layer in [&b""[..], b"x", b"\x1f\x8b", &[0; 2048], b"\x1f\x8b\x08\0\0\0\0\0\0\0xxxx"] {
        let error = Layout::compat_image(layer).get("v1").unwrap_err();
        assert!(error.is_verdict(), "{error}");
        assert!(error.to_string().contains("layer"), "{error}");
    }
}
