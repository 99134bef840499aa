//! What is signed: that a manifest with some digest is approved. cosign has written it in two ways,
//! as a payload of its own and, since its version 3, as an in-toto statement in a sigstore bundle.
//!
//! The signature is verified before anything of what it signs is believed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::image::{Digest, error::one_line};

use super::PublicKey;

const COSIGN_TYPE: &str = "cosign container image signature";
/// The type of an approval in a statement; other types are of attestations, which approve nothing.
const COSIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: SignedImage,
    r#type: String,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
    #[serde(default)]
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: std::collections::BTreeMap<String, String>,
}

const BY_ANOTHER_KEY: &str = "is not by this key, or what it signs was changed";

/// Whether `signature`, in base64, is one by `key` of a payload that approves of one of `digests`.
/// If not, why not.
pub(super) fn verify_payload(
    payload: &[u8],
    signature: &str,
    key: &PublicKey,
    digests: &[&Digest],
) -> Result<(), String> {
    let signature = STANDARD.decode(signature.trim()).map_err(|_| "is not base64".to_owned())?;
    if !key.verifies(payload, &signature) {
        return Err(BY_ANOTHER_KEY.into());
    }
    let Payload { critical } = serde_json::from_slice(payload).map_err(|error| {
        format!("signs no payload of cosign's: {}", one_line(&error.to_string()))
    })?;
    if ![COSIGN_TYPE, COSIGN_PREDICATE].contains(&critical.r#type.as_str()) {
        return Err(format!("signs a payload of the type {:?}", one_line(&critical.r#type)));
    }
    let signed = critical.image.docker_manifest_digest;
    if digests.iter().any(|digest| digest.to_string() == signed) {
        return Ok(());
    }
    Err(format!("is of another image, {}", one_line(&signed)))
}

/// The same of a sigstore bundle.
pub(super) fn verify_bundle(
    bundle: &[u8],
    key: &PublicKey,
    digests: &[&Digest],
) -> Result<(), String> {
    let bundle: Bundle = serde_json::from_slice(bundle)
        .map_err(|error| format!("is no sigstore bundle: {}", one_line(&error.to_string())))?;
    let Some(envelope) = bundle.dsse_envelope else {
        return Err("is a bundle without a statement on what is signed".into());
    };
    let not_base64 = |_| "is a bundle whose envelope is not base64".to_owned();
    let payload = STANDARD.decode(&envelope.payload).map_err(not_base64)?;
    let message = pre_authentication_encoding(&envelope.payload_type, &payload);
    let mut is_signed = false;
    for signature in &envelope.signatures {
        is_signed |= key.verifies(&message, &STANDARD.decode(&signature.sig).map_err(not_base64)?);
    }
    if !is_signed {
        return Err(BY_ANOTHER_KEY.into());
    }
    if envelope.payload_type != IN_TOTO {
        return Err(format!("signs {:?}", one_line(&envelope.payload_type)));
    }
    let statement: Statement = serde_json::from_slice(&payload)
        .map_err(|error| format!("signs no statement: {}", one_line(&error.to_string())))?;
    if statement.predicate_type != COSIGN_PREDICATE {
        return Err(format!(
            "is an attestation ({}), which approves nothing",
            one_line(&statement.predicate_type)
        ));
    }
    let is_subject = |digest: &&Digest| {
        let mut subjects = statement.subject.iter();
        subjects.any(|subject| {
            subject.digest.get(digest.algorithm().name()).is_some_and(|hex| hex == digest.hex())
        })
    };
    if digests.iter().any(is_subject) {
        return Ok(());
    }
    Err("is of another image".into())
}

/// What is signed of an envelope (<https://github.com/secure-systems-lab/dsse>).
pub(super) fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}
