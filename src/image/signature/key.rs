//! Public keys, as `cosign generate-key-pair` and `openssl` write them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::image::Digest;

/// What cosign signs with. It hashes with SHA-256 whatever the curve is, and since its version 3 with
/// the hash function that goes with the curve.
static ALGORITHMS: [&dyn VerificationAlgorithm; 7] = [
    &ECDSA_P256_SHA256_ASN1,
    &ECDSA_P384_SHA256_ASN1,
    &ECDSA_P384_SHA384_ASN1,
    &ECDSA_P521_SHA256_ASN1,
    &ECDSA_P521_SHA512_ASN1,
    &RSA_PKCS1_2048_8192_SHA256,
    &ED25519,
];

/// A public key that signatures of images are verified with.
#[derive(Clone)]
pub struct PublicKey {
    name: String,
    fingerprint: Digest,
    /// The key under each algorithm that can use it.
    parsed: Arc<[ParsedPublicKey]>,
}

/// Why a file is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// A private key where its public half belongs.
    #[error("is a private key, where a public key is expected: never hand that out")]
    Private,
    /// Not PEM, or PEM of something else.
    #[error("has no public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    NotPem,
    /// Which of them is meant?
    #[error("has {0} public keys, where one is expected")]
    Several(usize),
    /// A key of a kind that images are not signed with.
    #[error(
        "is no key that can be used: ECDSA on P-256, P-384 or P-521, RSA of 2048 bits or more, or Ed25519 is expected"
    )]
    Unusable,
}

impl PublicKey {
    /// Reads a key in PEM. `name` is what messages call it.
    pub fn from_pem(name: impl Into<String>, pem: &[u8]) -> Result<Self, InvalidKey> {
        if pem.windows(12).any(|text| text == b"PRIVATE KEY-") {
            return Err(InvalidKey::Private);
        }
        let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| InvalidKey::NotPem)?;
        let der = match keys.as_slice() {
            [] => return Err(InvalidKey::NotPem),
            [der] => der,
            several => return Err(InvalidKey::Several(several.len())),
        };
        let parse = |algorithm: &&'static _| ParsedPublicKey::new(*algorithm, der).ok();
        let parsed: Arc<[_]> = ALGORITHMS.iter().filter_map(parse).collect();
        if parsed.is_empty() {
            return Err(InvalidKey::Unusable);
        }
        Ok(Self { name: name.into(), fingerprint: Digest::sha256(der), parsed })
    }

    /// Whether `signature` is one of `message` by this key.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.iter().any(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.name, self.fingerprint)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
