//! TLS with pinned keys. A pin names a public key; dates, names and the rest of the chain do not count.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates of one chain that are looked at; a longer one is refused.
const MAX_CHAIN: usize = 8;

/// The one cryptography provider of the project.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// SHA-256 of a public key (its SubjectPublicKeyInfo), written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the public key of a certificate in DER; none where it is not one.
    pub fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Self::of_public_key(certificate.public_key().raw))
    }

    /// Of a SubjectPublicKeyInfo in DER.
    pub fn of_public_key(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text that is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: expected the 64 hex digits that the hub shows")]
pub struct InvalidFingerprint;

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let digits = text.trim().as_bytes();
        if digits.len() != 64 {
            return Err(InvalidFingerprint);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16).ok_or(InvalidFingerprint);
            let [high, low] = pair else { return Err(InvalidFingerprint) };
            *byte = (digit(*high)? * 16 + digit(*low)?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// Whom to trust as the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The server that holds this key.
    Key(Fingerprint),
    /// Any server whose certificate the holder of this key has issued for servers (extended key usage `serverAuth`, so that a
    /// host's certificate of the same CA does not do), or the holder itself. The server must send the CA's certificate.
    Authority(Fingerprint),
}

impl Pin {
    fn fingerprint(self) -> Fingerprint {
        match self {
            Self::Key(fingerprint) | Self::Authority(fingerprint) => fingerprint,
        }
    }
}

/// The server is not the one that was pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's key is {presented}, not the pinned {}", list(.expected))]
pub struct PinMismatch {
    /// What was pinned.
    pub expected: Vec<Fingerprint>,
    /// The key that the server has.
    pub presented: Fingerprint,
}

fn list(fingerprints: &[Fingerprint]) -> String {
    fingerprints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// A client's certificate, self-signed or issued, and its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, then those of its issuers.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate and the key do not fit, or cannot be read.
    #[error("this certificate and key cannot be used for TLS; make or fetch them again")]
    Identity(#[source] rustls::Error),
    /// The provider does not know our protocol versions.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// A client's side of TLS 1.2 and 1.3: the server must match one of `pins`. Sessions are resumed, early data is never sent.
pub fn client_config(
    pins: &[Pin],
    identity: Option<Identity>,
    alpn: &[&str],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = PinVerifier { pins: pins.to_vec(), provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain, identity.key).map_err(TlsError::Identity)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct PinVerifier {
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let encoding = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let presented = Fingerprint::of_certificate(end_entity).ok_or_else(encoding)?;
        let trusted = self.pins.iter().any(|pin| {
            pin.fingerprint() == presented
                || matches!(pin, Pin::Authority(ca) if is_issued(end_entity, intermediates, *ca))
        });
        if trusted {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch =
            PinMismatch { expected: self.pins.iter().map(|pin| pin.fingerprint()).collect(), presented };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the key `ca`, by the certificate among `others` that names it, signed `end_entity` as a server's.
fn is_issued(end_entity: &[u8], others: &[CertificateDer<'_>], ca: Fingerprint) -> bool {
    if others.len() >= MAX_CHAIN {
        return false;
    }
    let Ok((_, leaf)) = X509Certificate::from_der(end_entity) else { return false };
    let for_servers = leaf.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.server_auth);
    for_servers
        && others.iter().any(|other| {
            X509Certificate::from_der(other).is_ok_and(|(_, other)| {
                Fingerprint::of_public_key(other.public_key().raw) == ca
                    && leaf.verify_signature(Some(other.public_key())).is_ok()
            })
        })
}

/// For a server: every client must show a certificate and prove that it holds its key; who that is, the program decides by
/// the key's [`Fingerprint`].
pub fn any_client_certificate() -> Arc<dyn ClientCertVerifier> {
    Arc::new(AnyClient { provider: provider() })
}

#[derive(Debug)]
struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if intermediates.len() >= MAX_CHAIN || Fingerprint::of_certificate(end_entity).is_none() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        PublicKeyData,
    };

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("certificate")
    }

    fn issued(
        ca: &CertifiedIssuer<'static, KeyPair>,
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![usage];
        // Long over, which does not matter.
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        params.signed_by(&KeyPair::generate().expect("key"), ca).expect("certificate").der().clone()
    }

    fn accepts(pin: Pin, end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> bool {
        let verifier = PinVerifier { pins: vec![pin], provider: provider() };
        let name = ServerName::try_from("any.example").expect("name");
        verifier
            .verify_server_cert(
                end_entity,
                others,
                &name,
                &[],
                UnixTime::since_unix_epoch(std::time::Duration::ZERO),
            )
            .is_ok()
    }

    #[test]
    fn a_pinned_authority_vouches_for_servers_only() {
        let (ca, other) = (authority(), authority());
        let pin = Pin::Authority(Fingerprint::of_certificate(ca.der()).expect("fingerprint"));
        let server = issued(&ca, ExtendedKeyUsagePurpose::ServerAuth);
        let host = issued(&ca, ExtendedKeyUsagePurpose::ClientAuth);
        let foreign = issued(&other, ExtendedKeyUsagePurpose::ServerAuth);
        assert!(accepts(pin, &server, &[other.der().clone(), ca.der().clone()]));
        assert!(accepts(pin, ca.der(), &[]));
        assert!(!accepts(pin, &server, &[]), "the CA's certificate must be there");
        assert!(!accepts(pin, &host, &[ca.der().clone()]), "a host of the same CA is no hub");
        assert!(!accepts(pin, &foreign, &[ca.der().clone()]), "naming the CA is not enough");
        assert!(!accepts(pin, &foreign, &[other.der().clone()]));
        let key = Pin::Key(Fingerprint::of_certificate(&server).expect("fingerprint"));
        assert!(accepts(key, &server, &[]));
        assert!(!accepts(key, &foreign, std::slice::from_ref(&server)));
    }

    #[test]
    fn fingerprints_read_back_and_garbage_is_refused() {
        let key = KeyPair::generate().expect("key");
        let print = Fingerprint::of_public_key(&key.subject_public_key_info());
        assert_eq!(print.to_string().parse(), Ok(print));
        assert_eq!(print.to_string().to_uppercase().parse(), Ok(print));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
        assert_eq!(Fingerprint::of_certificate(b"garbage"), None);
    }
}
