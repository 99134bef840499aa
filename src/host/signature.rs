//! The foreign functions `verify_signature` and `sign` (Envoy `source/extensions/common/wasm/foreign.cc`
//! and `source/common/crypto/utility_impl.cc`).
//!
//! RSA with PKCS #1 padding, and ECDSA on P-256, P-384 and P-521. Envoy's library has more hash functions
//! for each than the one here; a report says when a module asked for one of those.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, ParsedPublicKey, RsaKeyPair,
        RsaSignatureEncoding, VerificationAlgorithm,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::abi::Status;

use super::{
    foreign::Produced,
    state::HostState,
    wire::{self, Value},
};

/// The kinds of keys, by the object identifiers that stand in their DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    /// One that Envoy's library signs with, and this one does not.
    P224,
}

const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const CURVES: &[(&[u8], Kind)] = &[
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", Kind::P256),
    (b"\x06\x05\x2b\x81\x04\x00\x22", Kind::P384),
    (b"\x06\x05\x2b\x81\x04\x00\x23", Kind::P521),
    (b"\x06\x05\x2b\x81\x04\x00\x21", Kind::P224),
];

/// How far into a key its algorithm may stand.
const ALGORITHM_BYTES: usize = 40;

fn kind(der: &[u8]) -> Option<Kind> {
    let head = &der[..der.len().min(ALGORITHM_BYTES)];
    let has = |oid: &[u8]| head.windows(oid.len()).any(|window| window == oid);
    if has(RSA) {
        return Some(Kind::Rsa);
    }
    CURVES.iter().find(|(oid, _)| has(oid)).map(|(_, kind)| *kind)
}

/// The value that `bytes` begin with; what stands behind it is nobody's business.
fn first_der(bytes: &[u8]) -> Option<&[u8]> {
    let (length, head) = match *bytes.get(1)? {
        short @ 0..=0x7f => (usize::from(short), 2),
        0x81 => (usize::from(*bytes.get(2)?), 3),
        0x82 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        _ => return None,
    };
    bytes.get(..head + length)
}

/// The DER in a PEM text with one of these labels.
fn pem(text: &[u8], labels: &[&str]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    labels.iter().find_map(|label| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
        let (body, _) = rest.split_once("-----END ")?;
        let body: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(body).ok()
    })
}

/// The fields of an argument, which are numbered from 1, and whether all of them are well formed.
fn fields<const N: usize>(arguments: &[u8]) -> Option<[&[u8]; N]> {
    let mut found = [&[][..]; N];
    let mut valid = true;
    wire::fields(arguments, |number, value| {
        if let Value::Bytes(bytes) = value
            && let Some(field) = (number as usize).checked_sub(1).and_then(|at| found.get_mut(at))
        {
            // The name of the hash function is a string.
            valid &= number != 1 || wire::is_text(value);
            *field = bytes;
        }
    })?;
    valid.then_some(found)
}

/// Keys may be PEM since Envoy 1.37, and exactly one key has to be there since then.
const PEM_SINCE: u8 = 37;

/// The key's DER; empty where what is given is no key.
fn key(minor: u8, der: &[u8], text: &[u8], labels: &[&str]) -> Result<Vec<u8>, Status> {
    if minor >= PEM_SINCE {
        match (der.is_empty(), text.is_empty()) {
            (true, true) | (false, false) => return Err(Status::BadArgument),
            (true, false) => return Ok(pem(text, labels).unwrap_or_default()),
            (false, true) => {}
        }
    }
    Ok(first_der(der).unwrap_or_default().to_vec())
}

const HASHES: [&str; 5] = ["sha1", "sha224", "sha256", "sha384", "sha512"];

/// The hash function of a name in any case, or what is said of one that there is not.
fn hash(name: &[u8]) -> Result<&'static str, String> {
    let name = String::from_utf8_lossy(name);
    let known = HASHES.iter().find(|hash| hash.eq_ignore_ascii_case(&name));
    known.copied().ok_or_else(|| format!("{name} is not supported."))
}

fn verification(kind: Kind, hash: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, hash) {
        (Kind::Rsa, "sha1") => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (Kind::Rsa, "sha256") => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        (Kind::Rsa, "sha384") => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Kind::Rsa, "sha512") => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        (Kind::P256, "sha1") => &signature::ECDSA_P256_SHA1_ASN1,
        (Kind::P256, "sha256") => &signature::ECDSA_P256_SHA256_ASN1,
        (Kind::P256, "sha384") => &signature::ECDSA_P256_SHA384_ASN1,
        (Kind::P256, "sha512") => &signature::ECDSA_P256_SHA512_ASN1,
        (Kind::P384, "sha256") => &signature::ECDSA_P384_SHA256_ASN1,
        (Kind::P384, "sha384") => &signature::ECDSA_P384_SHA384_ASN1,
        (Kind::P384, "sha512") => &signature::ECDSA_P384_SHA512_ASN1,
        (Kind::P521, "sha1") => &signature::ECDSA_P521_SHA1_ASN1,
        (Kind::P521, "sha224") => &signature::ECDSA_P521_SHA224_ASN1,
        (Kind::P521, "sha256") => &signature::ECDSA_P521_SHA256_ASN1,
        (Kind::P521, "sha384") => &signature::ECDSA_P521_SHA384_ASN1,
        (Kind::P521, "sha512") => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

/// What stops a function before it has a result.
enum Failure {
    /// It is told to the module.
    Said(String),
    /// Envoy would have a result.
    NotModelled,
}

/// `verify_signature`: the argument's fields are the hash function, the public key as DER, the
/// signature, the text, and the public key as PEM. The result is a flag or an error in words.
pub fn verify_signature(state: &mut HostState, arguments: &[u8]) -> Produced {
    let [name, der, signed, text, pem] = fields(arguments).ok_or(Status::BadArgument)?;
    let key = key(state.release.minor, der, pem, &["PUBLIC KEY"])?;
    let outcome = hash(name).map_err(Failure::Said).and_then(|hash| {
        let unusable = || Failure::Said("Failed to initialize digest verify.".to_owned());
        let kind = kind(&key).ok_or_else(unusable)?;
        let algorithm = verification(kind, hash).ok_or(Failure::NotModelled)?;
        let key = ParsedPublicKey::new(algorithm, &key).map_err(|_| unusable())?;
        let wrong = |_| Failure::Said("Failed to verify digest. Error code: 0".to_owned());
        key.verify_sig(text, signed).map_err(wrong)
    });
    match outcome {
        Ok(()) => Ok(Some(TRUE.to_vec())),
        Err(Failure::Said(error)) => Ok(Some(wire::bytes_field(2, error.as_bytes()))),
        Err(Failure::NotModelled) => not_modelled(state, "verify_signature"),
    }
}

/// The first field of a result, set.
const TRUE: [u8; 2] = [0x08, 0x01];

fn not_modelled(state: &mut HostState, function: &'static str) -> Produced {
    state.foreign_not_modelled.insert(function);
    Err(Status::NotFound.into())
}

fn rsa_signing(hash: &str) -> Option<&'static RsaSignatureEncoding> {
    Some(match hash {
        "sha256" => &signature::RSA_PKCS1_SHA256,
        "sha384" => &signature::RSA_PKCS1_SHA384,
        "sha512" => &signature::RSA_PKCS1_SHA512,
        _ => return None,
    })
}

fn ecdsa_signing(kind: Kind, hash: &str) -> Option<&'static EcdsaSigningAlgorithm> {
    Some(match (kind, hash) {
        (Kind::P256, "sha256") => &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        (Kind::P384, "sha384") => &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        (Kind::P521, "sha224") => &signature::ECDSA_P521_SHA224_ASN1_SIGNING,
        (Kind::P521, "sha256") => &signature::ECDSA_P521_SHA256_ASN1_SIGNING,
        (Kind::P521, "sha384") => &signature::ECDSA_P521_SHA384_ASN1_SIGNING,
        (Kind::P521, "sha512") => &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
        _ => return None,
    })
}

/// The object identifier of Ed25519, which signs without a hash function.
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

fn signature_of(hash: &str, key: &[u8], text: &[u8]) -> Result<Vec<u8>, Failure> {
    let said = |text: &str| Failure::Said(text.to_owned());
    let no_key = || said("Invalid key type: private key required for signing operation.");
    if key.windows(ED25519.len()).any(|window| window == ED25519) {
        return Err(said("Invalid private key: key data is corrupted or malformed."));
    }
    let (kind, random) = (kind(key).ok_or_else(no_key)?, SystemRandom::new());
    if kind == Kind::Rsa {
        let encoding = rsa_signing(hash).ok_or(Failure::NotModelled)?;
        let pair = RsaKeyPair::from_pkcs8(key).map_err(|_| no_key())?;
        let mut made = vec![0; pair.public_modulus_len()];
        let signed = pair.sign(encoding, &random, text, &mut made);
        return signed.map(|()| made).map_err(|_| Failure::NotModelled);
    }
    let algorithm = ecdsa_signing(kind, hash).ok_or(Failure::NotModelled)?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, key).map_err(|_| no_key())?;
    let signed = pair.sign(&random, text).map_err(|_| Failure::NotModelled)?;
    Ok(signed.as_ref().to_vec())
}

/// `sign` (1.37 and later): the argument's fields are the hash function, the private key as DER, the
/// text, and the private key as PEM. The result is a flag and the signature, or an error in words.
pub fn sign(state: &mut HostState, arguments: &[u8]) -> Produced {
    let [name, der, text, pem] = fields(arguments).ok_or(Status::BadArgument)?;
    let key = key(state.release.minor, der, pem, &["PRIVATE KEY"])?;
    let outcome = hash(name).map_err(Failure::Said).and_then(|hash| signature_of(hash, &key, text));
    match outcome {
        Ok(made) => {
            let mut result = TRUE.to_vec();
            result.extend(wire::bytes_field(2, &made));
            Ok(Some(result))
        }
        Err(Failure::Said(error)) => Ok(Some(wire::bytes_field(3, error.as_bytes()))),
        Err(Failure::NotModelled) => not_modelled(state, "sign"),
    }
}
