//! The reader of runtime configs.

use crate::support::{CONFIG, Layout, WASM, rules};
use filtergate::image::RuntimeConfig;
use filtergate::verdict::Severity;
use proptest::prelude::*;
use serde_json::json;

const NOTE: Severity = Severity::Note;
const WARNING: Severity = Severity::Warning;
const ERROR: Severity = Severity::Error;
const ABI: &str = "config/abi-version";
const ROOTS: &str = "config/root-ids";
const TYPE: &str = "config/type";
const INVALID: &str = "config/invalid";

type Rules = &'static [(&'static str, Severity)];

/// Config, ABI versions, root ids, notes.
const TABLE: &[(&str, &[&str], &[&str], Rules)] = &[
    // As the specification's table has it.
    (CONFIG, &["0.2.1"], &["one"], &[]),
    (
        "\u{feff} \n{\"type\":\"envoy_proxy\",\"abiVersions\":[\"a\"],\"config\":{\"root_ids\":[\"r\"]}}\n\n",
        &["a"],
        &["r"],
        &[],
    ),
    // Spellings.
    (
        r#"{"type":"envoy_proxy","abi_version":"a","config":{"root_ids":["r"]}}"#,
        &["a"],
        &["r"],
        &[(ABI, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersion":"a","config":{"root_ids":["r"]}}"#,
        &["a"],
        &["r"],
        &[(ABI, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abi_versions":["a","b"],"config":{"root_ids":["r"]}}"#,
        &["a", "b"],
        &["r"],
        &[(ABI, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":"a","config":{"root_ids":["r"]}}"#,
        &["a"],
        &["r"],
        &[(ABI, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"abi_version":"b","config":{"root_ids":["r"]}}"#,
        &["a", "b"],
        &["r"],
        &[(ABI, NOTE), (ABI, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"config":{"rootIds":["r","s"]}}"#,
        &["a"],
        &["r", "s"],
        &[(ROOTS, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"rootIds":["r"]}"#,
        &["a"],
        &["r"],
        &[(ROOTS, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"root_ids":["r"]}"#,
        &["a"],
        &["r"],
        &[(ROOTS, NOTE)],
    ),
    // Less than it has.
    (
        r#"{"type":"envoy_proxy","abiVersions":[],"config":{"root_ids":[]}}"#,
        &[],
        &[],
        &[(ABI, NOTE), (ROOTS, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":null,"config":null}"#,
        &[],
        &[],
        &[(ABI, NOTE), (ROOTS, NOTE)],
    ),
    (r#"{"type":"envoy_proxy"}"#, &[], &[], &[(ABI, NOTE), (ROOTS, NOTE)]),
    ("{}", &[], &[], &[(TYPE, WARNING), (ABI, NOTE), (ROOTS, NOTE)]),
    (
        r#"{"rootIds":["r"],"abiVersion":"a"}"#,
        &["a"],
        &["r"],
        &[(TYPE, WARNING), (ABI, NOTE), (ROOTS, NOTE)],
    ),
    (r#"{"roots":[{"id":"r"}]}"#, &[], &["r"], &[(TYPE, WARNING), (ABI, NOTE), (ROOTS, NOTE)]),
    // More than once.
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"config":{"root_ids":["r","s","r","r"]}}"#,
        &["a"],
        &["r", "s"],
        &[(ROOTS, NOTE)],
    ),
    // Another runtime.
    (
        r#"{"type":"opa","abiVersions":["a"],"config":{"root_ids":["r"]}}"#,
        &["a"],
        &["r"],
        &[(TYPE, ERROR)],
    ),
    // Wrong JSON types.
    (
        r#"{"type":7,"abiVersions":["a"],"config":{"root_ids":["r"]}}"#,
        &["a"],
        &["r"],
        &[(INVALID, ERROR)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":{"a":1},"config":{"root_ids":["r"]}}"#,
        &[],
        &["r"],
        &[(INVALID, ERROR), (ABI, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a",2],"config":{"root_ids":["r"]}}"#,
        &["a"],
        &["r"],
        &[(INVALID, ERROR)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"config":{"root_ids":3}}"#,
        &["a"],
        &[],
        &[(INVALID, ERROR), (ROOTS, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"config":{"root_ids":"r"}}"#,
        &["a"],
        &[],
        &[(INVALID, ERROR), (ROOTS, NOTE)],
    ),
    (
        r#"{"type":"envoy_proxy","abiVersions":["a"],"config":[]}"#,
        &["a"],
        &[],
        &[(INVALID, ERROR), (ROOTS, NOTE)],
    ),
];

#[test]
fn configs_are_read_as_the_field_writes_them() {
    for (text, abi, roots, notes) in TABLE {
        let (config, found) = RuntimeConfig::read(Some(text.as_bytes()));
        let config = config.expect(text);
        assert_eq!(config.abi_versions, *abi, "{text}");
        assert_eq!(config.root_ids, *roots, "{text}");
        assert_eq!(rules(&found), *notes, "{text}: {found:?}");
    }
}

#[test]
fn the_type_is_named() {
    let (config, notes) = RuntimeConfig::read(Some(br#"{"type":"opa"}"#));
    assert_eq!(config.unwrap().r#type.as_deref(), Some("opa"));
    assert!(notes[0].message.contains("\"opa\""), "{:?}", notes[0]);
}

#[test]
fn what_is_no_config_is_none() {
    let many = "[".repeat(10_000);
    for (text, part) in [
        (&b"{\"type\":\n\"envoy_proxy\",,}"[..], "line 2 column 15, near `\"envoy_proxy\",,}`"),
        (b"not json", "line 1 column 2, near `not json`"),
        (b"\xff\xfe{}", "line 1 column 1"),
        (b"[]", "an array, not an object"),
        (b"\"x\"", "a string, not an object"),
        (many.as_bytes(), "recursion limit"),
    ] {
        let (config, notes) = RuntimeConfig::read(Some(text));
        assert_eq!(config, None);
        assert_eq!(rules(&notes), [(INVALID, ERROR)]);
        assert!(notes[0].message.contains(part), "{}", notes[0].message);
        assert!(notes[0].message.len() < 300 && !notes[0].message.contains('\n'));
    }
    for text in [None, Some(&b""[..]), Some(b" \n\t"), Some(b"\xef\xbb\xbf\n")] {
        let (config, notes) = RuntimeConfig::read(text);
        assert_eq!(config, None);
        assert_eq!(rules(&notes), [("config/missing", NOTE)]);
    }
}

#[test]
fn a_broken_config_does_not_keep_the_module_back() {
    let image = Layout::spec_image(b"{\"type\"", WASM).get("v1").unwrap();
    assert_eq!(image.wasm, WASM);
    assert_eq!(image.runtime_config, None);
    assert_eq!(rules(&image.notes), [(INVALID, ERROR)]);
}

#[test]
fn two_configs_that_differ_are_a_warning() {
    use crate::support::{CONFIG_TYPE, CONTENT_TYPE, manifest};
    let other = CONFIG.replace("one", "two");
    for (in_config, expected, notes) in
        [(CONFIG.to_owned(), "one", &[][..]), (other.clone(), "two", &[(INVALID, WARNING)][..])]
    {
        let mut layout = Layout::new();
        let layers = vec![
            layout.blob(CONTENT_TYPE, WASM),
            layout.blob(CONFIG_TYPE, other.replace("two", expected).as_bytes()),
        ];
        let in_config = match expected {
            "one" => in_config,
            _ => CONFIG.to_owned(),
        };
        let config = layout.blob(CONFIG_TYPE, in_config.as_bytes());
        layout.tag("v1", &manifest(config, layers));
        let image = layout.get("v1").unwrap();
        // The layer is the one that counts.
        assert_eq!(image.runtime_config.unwrap().root_ids, [expected]);
        assert_eq!(rules(&image.notes), notes);
    }
}

#[test]
fn annotations_fill_the_gaps() {
    use crate::support::{CONTENT_TYPE, manifest};
    let mut layout = Layout::new();
    let layers = vec![layout.blob(CONTENT_TYPE, WASM)];
    let config = layout.blob("application/vnd.unknown.config.v1+json", b"{}");
    let mut document: serde_json::Value =
        serde_json::from_slice(&manifest(config, layers)).unwrap();
    document["annotations"] = json!({
        "module.wasm.runtime/abi_version": "a, b,,a",
        "module.wasm.runtime/type": "envoy_proxy",
    });
    layout.tag("v1", document.to_string().as_bytes());
    let image = layout.get("v1").unwrap();
    let config = image.runtime_config.unwrap();
    assert_eq!(config.abi_versions, ["a", "b"]);
    assert_eq!(config.r#type.as_deref(), Some("envoy_proxy"));
    assert!(rules(&image.notes).contains(&(ABI, NOTE)));
    assert!(rules(&image.notes).contains(&("config/missing", NOTE)));
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let key = prop_oneof![
        "type|abiVersions|abi_version|abiVersion|abi_versions|config|root_ids|rootIds|roots|id",
        "[a-z]{1,3}"
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        ".{0,8}".prop_map(|s| json!(s)),
        Just(json!("envoy_proxy")),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| json!(v)),
            prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|m| json!(m)),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read(value in value()) {
        let text = value.to_string();
        let (config, notes) = RuntimeConfig::read(Some(text.as_bytes()));
        prop_assert_eq!(config.is_some(), value.is_object());
        if let Some(config) = config {
            prop_assert_eq!(config.raw, value);
        }
        for note in notes {
            prop_assert!(!note.message.contains('\n'));
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_, notes) = RuntimeConfig::read(Some(&bytes));
        for note in notes {
            prop_assert!(!note.message.contains('\n'));
        }
    }
}
