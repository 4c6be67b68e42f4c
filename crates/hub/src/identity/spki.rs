//! Public keys: taken out of certificates, named by their fingerprint, and certified.

use bytes::Bytes;
use rcgen::{PublicKeyData, SignatureAlgorithm};
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 as lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// A host's public key, as the TLS handshake proved it. Derefs to its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// SHA-256 of the public key, lower-case hex.
    pub fingerprint: String,
    /// The public key (SPKI, DER).
    pub spki: Bytes,
}

impl std::ops::Deref for HostKey {
    type Target = str;

    fn deref(&self) -> &str {
        &self.fingerprint
    }
}

impl HostKey {
    /// The key in a certificate; `None` where it is not a certificate.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let spki = Bytes::from(parsed.subject_public_key_info().to_vec());
        Some(Self { fingerprint: sha256_hex(&spki), spki })
    }
}

/// Kinds of keys that a host may have, by the DER that comes before the key itself.
static KINDS: [(&[u8], usize, &SignatureAlgorithm); 3] = [
    // ecPublicKey with prime256v1, uncompressed point.
    (
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        65,
        &rcgen::PKCS_ECDSA_P256_SHA256,
    ),
    // ecPublicKey with secp384r1, uncompressed point.
    (
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
        97,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ),
    // Ed25519.
    (b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32, &rcgen::PKCS_ED25519),
];

/// A public key of a kind that hosts may have, ready to be certified.
pub(super) struct PublicKey<'a> {
    key: &'a [u8],
    algorithm: &'static SignatureAlgorithm,
}

impl<'a> PublicKey<'a> {
    /// Reads an SPKI; `None` for kinds that are not supported.
    pub(super) fn parse(spki: &'a [u8]) -> Option<Self> {
        KINDS.iter().find_map(|(prefix, length, algorithm)| {
            let key = spki.strip_prefix(*prefix)?;
            (key.len() == *length).then_some(Self { key, algorithm })
        })
    }
}

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}
