//! The hub's certificate authority.

use std::path::Path;

use datacentered_proto::Error;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::spki::{HostKey, PublicKey, sha256_hex};
use super::{IdentityError, files};

/// The first and last year of certificates whose dates nobody looks at: pins compare keys, and revocation is the
/// registry's.
const YEARS: (i32, i32) = (2025, 2125);

/// The authority: signs the hub's own certificates and those of its hosts.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    fingerprint: String,
}

fn crypto(what: &'static str) -> impl FnOnce(rcgen::Error) -> IdentityError {
    move |error| IdentityError::Crypto { what, why: error.to_string() }
}

/// Opens a private key, or makes one (ECDSA P-256).
pub(super) fn open_key(path: &Path) -> Result<KeyPair, IdentityError> {
    if let Some(pem) = files::read_private(path)? {
        let damaged = |why: String| IdentityError::Damaged { path: path.to_owned(), why };
        let pem = String::from_utf8(pem).map_err(|_| damaged("it is not PEM".into()))?;
        return KeyPair::from_pem(&pem).map_err(|error| damaged(error.to_string()));
    }
    let key = KeyPair::generate().map_err(crypto("a private key"))?;
    files::write_private(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// Certificates that look like others of the same issuer must not share their number.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut number = [0; 16];
    getrandom::fill(&mut number)
        .map_err(|error| IdentityError::Crypto { what: "a serial number", why: error.to_string() })?;
    // Positive, and never with a leading zero byte.
    number[0] = (number[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&number))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "DataCentered");
    name.push(DnType::CommonName, common);
    name
}

/// A leaf's parameters, to be changed where needed.
fn leaf(common: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(YEARS.0, 1, 1);
    params.not_after = date_time_ymd(YEARS.1, 1, 1);
    params.serial_number = Some(serial()?);
    params.distinguished_name = name(common);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority_params() -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(YEARS.0, 1, 1);
    params.not_after = date_time_ymd(YEARS.1, 1, 1);
    params.serial_number = Some(serial()?);
    params.distinguished_name = name("DataCentered hub CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl Authority {
    /// Opens the authority; makes it at the first start.
    pub(super) fn open(directory: &Path) -> Result<Self, IdentityError> {
        let key_path = directory.join("ca.key");
        let pem_path = directory.join("ca.pem");
        let others = ["ca.pem", "hub.key", "web.key"];
        if !key_path.exists() && others.iter().any(|name| directory.join(name).exists()) {
            return Err(IdentityError::Missing { path: key_path });
        }
        let key = open_key(&key_path)?;
        let params = authority_params()?;
        let pem = if let Some(pem) = files::read_private(&pem_path)? {
            String::from_utf8(pem)
                .map_err(|_| IdentityError::Damaged { path: pem_path.clone(), why: "it is not PEM".into() })?
        } else {
            let made = params.self_signed(&key).map_err(crypto("the CA certificate"))?;
            files::write_private(&pem_path, made.pem().as_bytes())?;
            made.pem()
        };
        let damaged = |why: &str| IdentityError::Damaged { path: pem_path.clone(), why: why.to_owned() };
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(&error.to_string()))?;
        let spki = key.subject_public_key_info();
        match HostKey::of_certificate(&certificate) {
            Some(certified) if certified.spki == spki => {}
            Some(_) => return Err(damaged("it is not the certificate of ca.key")),
            None => return Err(damaged("it is not a certificate")),
        }
        Ok(Self { fingerprint: sha256_hex(&spki), issuer: Issuer::new(params, key), certificate, pem })
    }

    /// SHA-256 of the public key.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The certificate (PEM).
    pub(super) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The certificate.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate of the agents' side of the port.
    pub(super) fn issue_hub(&self, key: &KeyPair) -> Result<CertificateDer<'static>, IdentityError> {
        let params = leaf("DataCentered hub", ExtendedKeyUsagePurpose::ServerAuth)?;
        let made = params.signed_by(key, &self.issuer).map_err(crypto("the hub's certificate"))?;
        Ok(made.into())
    }

    /// The certificate of the web side, with the names it is good for and its first and last day.
    pub(super) fn issue_web(
        &self,
        key: &KeyPair,
        names: Vec<rcgen::SanType>,
        days: [(i32, u8, u8); 2],
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params = leaf("DataCentered hub", ExtendedKeyUsagePurpose::ServerAuth)?;
        let [first, last] = days.map(|(year, month, day)| date_time_ymd(year, month, day));
        (params.not_before, params.not_after) = (first, last);
        params.subject_alt_names = names;
        let made = params.signed_by(key, &self.issuer).map_err(crypto("the web certificate"))?;
        Ok(made.into())
    }

    /// A host's certificate.
    pub(super) fn issue_host(&self, spki: &[u8], host: &str) -> Result<String, Error> {
        let key = PublicKey::parse(spki).ok_or_else(|| {
            Error::invalid("this kind of key is not supported; make an ECDSA P-256, P-384 or Ed25519 key")
        })?;
        let internal = |error: &dyn std::fmt::Display| {
            Error::internal(format!("the host's certificate cannot be made: {error}"))
        };
        let params = leaf(host, ExtendedKeyUsagePurpose::ClientAuth).map_err(|error| internal(&error))?;
        Ok(params.signed_by(&key, &self.issuer).map_err(|error| internal(&error))?.pem())
    }
}
