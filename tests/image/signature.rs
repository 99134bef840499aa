//! Signatures by a public key, as cosign makes them.

use crate::registry::{good, image_manifest, pull_with};
use crate::server::{Answer, Request, Server};
use crate::support::{
    CONFIG, Layout, OCI_MANIFEST, WASM, data, descriptor, get_with, manifest, options,
};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use filtergate::image::{Digest, FetchOptions, Image, ImageError, InvalidKey, PublicKey};
use serde_json::{Value, json};
use std::fs;

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

fn pem(der: impl AsRef<[u8]>) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> =
        base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// Who signs.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn key(&self) -> PublicKey {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        PublicKey::from_pem("cosign.pub", pem(der.as_ref()).as_bytes()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), message).unwrap())
    }

    /// A sigstore bundle that says `predicate_type` of the manifest.
    fn bundle(&self, digest: &str, predicate_type: &str) -> Vec<u8> {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": hex } }],
            "predicateType": predicate_type,
            "predicate": {},
        })
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let envelope = json!({
            "payload": STANDARD.encode(&statement),
            "payloadType": kind,
            "signatures": [{ "sig": self.sign(message.as_bytes()) }],
        });
        json!({ "mediaType": BUNDLE, "verificationMaterial": {}, "dsseEnvelope": envelope })
            .to_string()
            .into_bytes()
    }
}

fn payload(digest: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": { "docker-reference": "" },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

fn with(key: PublicKey) -> FetchOptions {
    FetchOptions { verify_key: Some(key), ..options() }
}

/// The tag of what signs a manifest.
fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// A layout with an image, tagged `v1`, and its digest.
fn image() -> (Layout, String) {
    let layout = Layout::spec_image(CONFIG.as_bytes(), WASM);
    let digest = layout.get("v1").unwrap().manifest_digest.unwrap();
    (layout, digest)
}

/// Attaches payloads with signatures to the image, as cosign does.
fn attach(layout: &mut Layout, digest: &str, signatures: &[(&[u8], String)]) {
    let layer = |(payload, signature): &(&[u8], String)| {
        let mut layer = layout.blob(SIMPLE_SIGNING, payload);
        layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
        layer
    };
    let layers = signatures.iter().map(layer).collect();
    let config = layout.blob("application/vnd.oci.image.config.v1+json", b"{}");
    layout.tag(&tag(digest), &manifest(config, layers));
}

/// Attaches a bundle, as cosign 3 does.
fn attach_bundle(layout: &mut Layout, digest: &str, bundle: &[u8]) {
    let layer = layout.blob(BUNDLE, bundle);
    let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": BUNDLE,
        "config": empty, "layers": [layer],
        "subject": { "mediaType": OCI_MANIFEST, "digest": digest, "size": 1 },
    });
    let mut entry = layout.blob(OCI_MANIFEST, manifest.to_string().as_bytes());
    entry["artifactType"] = json!(BUNDLE);
    layout.push_entry(entry);
}

fn get(layout: &Layout, key: PublicKey) -> Result<Image, ImageError> {
    get_with(&layout.reference("v1"), &with(key))
}

/// That the image is taken, and that the report says that it is signed.
fn assert_signed(result: Result<Image, ImageError>) {
    let image = result.unwrap();
    let notes: Vec<_> = image.notes.iter().filter(|n| n.rule.name() == "image/signature").collect();
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].message, "the image is signed with the key cosign.pub");
    assert_eq!(image.wasm, WASM);
}

/// That the image is bad, and that `why` is in the message.
fn assert_unsigned<T: std::fmt::Debug>(result: Result<T, ImageError>, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.rule().name(), "image/signature", "{error}");
    assert!(error.is_verdict(), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert!(!error.help().is_empty());
}

/// A signature and key that openssl made.
#[test]
fn the_recorded_signature() {
    let mut layout = Layout::new();
    for blob in fs::read_dir(data("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), layout.dir.path().join("blobs/sha256").join(blob.file_name()))
            .unwrap();
    }
    let read = |name: &str| fs::read(data(&format!("manifests/{name}"))).unwrap();
    let digest = layout.tag("v1", &read("compat-docker.json"));
    layout.tag(&tag(&digest), &read("cosign-signature.json"));
    let key = PublicKey::from_pem("cosign.pub", &read("cosign-signature.pub")).unwrap();
    let image = get(&layout, key.clone()).unwrap();
    assert!(image.notes.iter().any(|note| note.rule.name() == "image/signature"));
    assert_unsigned(get(&layout, Signer::new().key()), "not by this key");
    // The same module in another image.
    layout.tag("v1-again", &read("compat-oci-buildah.json"));
    let other = get_with(&layout.reference("v1-again"), &with(key));
    assert_unsigned(other, "there is no signature of sha256:");
}

#[test]
fn a_good_signature() {
    let (mut layout, digest) = image();
    let signer = Signer::new();
    let payload = payload(&digest);
    attach(&mut layout, &digest, &[(&payload, signer.sign(&payload))]);
    assert_signed(get(&layout, signer.key()));
    // Whoever does not ask is told nothing.
    assert_eq!(layout.get("v1").unwrap().notes, []);
}

#[test]
fn signatures_that_do_not_count() {
    let signer = Signer::new();
    let (_, digest) = image();
    let good = payload(&digest);
    let other = payload(&Digest::sha256(b"another").to_string());
    let changed = [&good[..], b" "].concat();
    let odd = String::from_utf8(good.clone()).unwrap().replace("cosign container", "atomic");
    let cases: [(&[u8], String, &str); 7] = [
        (&good, Signer::new().sign(&good), "not by this key"),
        (&changed, signer.sign(&good), "what it signs was changed"),
        (&other, signer.sign(&other), "is of another image, sha256:"),
        (&good, "no base64!".into(), "is not base64"),
        (&good, String::new(), "not by this key"),
        (odd.as_bytes(), signer.sign(odd.as_bytes()), "a payload of the type"),
        (b"{}", signer.sign(b"{}"), "no payload of cosign's"),
    ];
    for (payload, signature, why) in &cases {
        let (mut layout, digest) = image();
        attach(&mut layout, &digest, &[(payload, signature.clone())]);
        assert_unsigned(get(&layout, signer.key()), why);
    }
    // All of them, and then one that does.
    let (mut layout, digest) = image();
    let mut all: Vec<_> =
        cases.iter().map(|(payload, signature, _)| (*payload, signature.clone())).collect();
    attach(&mut layout, &digest, &all);
    assert_unsigned(get(&layout, signer.key()), "none of 7 signatures counts");
    let (mut layout, digest) = image();
    all.push((&good, signer.sign(&good)));
    attach(&mut layout, &digest, &all);
    assert_signed(get(&layout, signer.key()));
}

#[test]
fn a_payload_that_is_not_the_one_in_the_manifest() {
    let (mut layout, digest) = image();
    let signer = Signer::new();
    let payload = payload(&digest);
    attach(&mut layout, &digest, &[(&payload, signer.sign(&payload))]);
    let path = layout.blob_path(&Digest::sha256(&payload).to_string());
    fs::write(path, [b"x", &payload[1..]].concat()).unwrap();
    assert_unsigned(get(&layout, signer.key()), "digest mismatch");
}

#[test]
fn no_signature() {
    let (layout, digest) = image();
    let key = Signer::new().key();
    assert_unsigned(get(&layout, key.clone()), &format!("there is no signature of {digest}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.wasm");
    fs::write(&path, WASM).unwrap();
    assert_unsigned(get_with(path.to_str().unwrap(), &with(key)), "a plain file");
}

#[test]
fn more_signatures_than_are_tried() {
    let (mut layout, digest) = image();
    let (signer, payload) = (Signer::new(), payload(&digest));
    let mut many = vec![(&payload[..], String::new()); 64];
    many.push((&payload, signer.sign(&payload)));
    attach(&mut layout, &digest, &many);
    assert_unsigned(get(&layout, signer.key()), "none of the first 64 signatures");
}

#[test]
fn a_sigstore_bundle() {
    let (mut layout, digest) = image();
    let signer = Signer::new();
    let other = Digest::sha256(b"another").to_string();
    for (bundle, why) in [
        (Signer::new().bundle(&digest, SIGN), "not by this key"),
        (signer.bundle(&other, SIGN), "is of another image"),
        (signer.bundle(&digest, "https://cyclonedx.org/bom"), "is an attestation"),
        (b"{}".to_vec(), "a bundle without a statement"),
        (b"[".to_vec(), "no sigstore bundle"),
    ] {
        attach_bundle(&mut layout, &digest, &bundle);
        assert_unsigned(get(&layout, signer.key()), why);
    }
    attach_bundle(&mut layout, &digest, &signer.bundle(&digest, SIGN));
    assert_signed(get(&layout, signer.key()));
}

/// Of an index, cosign signs the index, or with `--recursive` also what it lists.
#[test]
fn an_index_or_its_manifest() {
    let signer = Signer::new();
    for sign_index in [true, false] {
        let (mut layout, child) = image();
        let bytes = fs::read(layout.blob_path(&child)).unwrap();
        let entry = descriptor(OCI_MANIFEST, &bytes);
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        let index_type = "application/vnd.oci.image.index.v1+json";
        let mut entry = layout.blob(index_type, index.as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "multi" });
        let index_digest = entry["digest"].as_str().unwrap().to_owned();
        layout.push_entry(entry);
        let signed = if sign_index { index_digest } else { child };
        let payload = payload(&signed);
        attach(&mut layout, &signed, &[(&payload, signer.sign(&payload))]);
        assert_signed(get_with(&layout.reference("multi"), &with(signer.key())));
    }
}

/// A registry that has the image and `document` at a tag.
fn serve(tag: String, document: Vec<u8>, blob: Vec<u8>) -> impl Fn(&Request) -> Answer {
    move |request: &Request| {
        let name = request.path.strip_prefix("/v2/acme/filter/").unwrap_or_default();
        if name == format!("manifests/{tag}") {
            return Answer::new(200, &document);
        }
        if name == format!("blobs/{}", Digest::sha256(&blob)) {
            return Answer::new(200, &blob);
        }
        good(request)
    }
}

#[test]
fn signatures_in_a_registry() {
    let signer = Signer::new();
    let digest = Digest::sha256(&image_manifest()).to_string();
    let payload = payload(&digest);
    let mut layer = descriptor(SIMPLE_SIGNING, &payload);
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signer.sign(&payload) });
    let document =
        manifest(descriptor("application/vnd.oci.image.config.v1+json", b"{}"), vec![layer]);
    let server = Server::start(serve(tag(&digest), document, payload));
    for name in ["acme/filter:v1".to_owned(), format!("acme/filter@{digest}")] {
        assert_signed(pull_with(&server, &name, &with(signer.key())));
        assert_unsigned(pull_with(&server, &name, &with(Signer::new().key())), "not by this key");
    }
    // Nothing of the module was asked for in vain.
    let wasm = Digest::sha256(WASM).to_string();
    let asked = server.requests().iter().filter(|request| request.path.ends_with(&wasm)).count();
    assert_eq!(asked, 2);
}

/// Where the registry keeps lists of referrers, and where the clients keep them at a tag.
#[test]
fn referrers_in_a_registry() {
    let signer = Signer::new();
    let digest = Digest::sha256(&image_manifest()).to_string();
    let bundle = signer.bundle(&digest, SIGN);
    let referrer = manifest(
        descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        vec![descriptor(BUNDLE, &bundle)],
    );
    let mut entry = descriptor(OCI_MANIFEST, &referrer);
    entry["artifactType"] = json!(BUNDLE);
    // Of another kind, and not there: nobody asks for it.
    let mut report = descriptor(OCI_MANIFEST, b"a report");
    report["artifactType"] = json!("application/vnd.security.vulnerability.report");
    let list = json!({ "schemaVersion": 2, "manifests": [report, entry] }).to_string();
    for listed_by in
        [format!("referrers/{digest}"), format!("manifests/{}", digest.replace(':', "-"))]
    {
        let (list, listed_by, bundle) = (list.clone(), listed_by.clone(), bundle.clone());
        let serve = serve(Digest::sha256(&referrer).to_string(), referrer.clone(), bundle);
        let server = Server::start(move |request| match request.path.ends_with(&listed_by) {
            true => Answer::new(200, &list),
            false => serve(request),
        });
        assert_signed(pull_with(&server, "acme/filter:v1", &with(signer.key())));
    }
}

/// A signature that cannot be had says nothing of the image.
#[test]
fn a_registry_in_trouble() {
    let server = Server::start(|request| match request.path.ends_with(".sig") {
        true => Answer::new(500, "out of order"),
        false => good(request),
    });
    let error = pull_with(&server, "acme/filter:v1", &with(Signer::new().key())).unwrap_err();
    assert_eq!(error.rule().name(), "image/unreachable");
    assert!(!error.is_verdict());
}

#[test]
fn every_kind_of_key() {
    let (mut layout, digest) = image();
    let payload = payload(&digest);
    let random = SystemRandom::new();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let mut by_rsa = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256, &random, &payload, &mut by_rsa).unwrap();
    let signatures = [
        STANDARD.encode(p384.sign(&random, &payload).unwrap()),
        STANDARD.encode(ed25519.sign(&payload)),
        STANDARD.encode(by_rsa),
    ];
    let keys: [PublicKeyX509Der<'_>; 3] = [
        p384.public_key().as_der().unwrap(),
        ed25519.public_key().as_der().unwrap(),
        rsa.public_key().as_der().unwrap(),
    ];
    let layers: Vec<_> =
        signatures.into_iter().map(|signature| (&payload[..], signature)).collect();
    attach(&mut layout, &digest, &layers);
    for key in keys {
        assert_signed(get(
            &layout,
            PublicKey::from_pem("cosign.pub", pem(key.as_ref()).as_bytes()).unwrap(),
        ));
    }
}

#[test]
fn files_that_are_no_key() {
    let good = fs::read_to_string(data("manifests/cosign-signature.pub")).unwrap();
    let private = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    let cases: [(&str, InvalidKey); 6] = [
        ("", InvalidKey::NotPem),
        ("text", InvalidKey::NotPem),
        (private, InvalidKey::Private),
        (&good.replace("PUBLIC KEY", "CERTIFICATE"), InvalidKey::NotPem),
        (&format!("{good}{good}"), InvalidKey::Several(2)),
        (&pem([1, 2, 3]), InvalidKey::Unusable),
    ];
    for (text, error) in cases {
        assert_eq!(PublicKey::from_pem("x", text.as_bytes()).unwrap_err(), error, "{text}");
    }
}

#[test]
fn what_a_layout_lists_is_not_taken_for_signatures() {
    let (mut layout, _) = image();
    let entry: Value = json!({ "mediaType": OCI_MANIFEST, "digest": Digest::sha256(b"gone").to_string(), "size": 4 });
    layout.push_entry(entry);
    // It may have been one, and is broken.
    assert_unsigned(get(&layout, Signer::new().key()), "the layout has no");
}
