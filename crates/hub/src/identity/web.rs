//! The certificate of the web side: the administrator's, or one of the hub's own CA.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use datacentered_link::tls::provider;
use datacentered_proto::Timestamp;
use rcgen::{KeyPair, SanType};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::IdentityError;
use super::ca::{Authority, open_key};
use super::spki::HostKey;
use crate::config::Config;

/// How long the hub's own web certificate is good for, in days: as long as browsers take. It is made anew at every
/// start and reload; its key, which `login` pins, stays.
const VALID_DAYS: i64 = 820;

/// Most certificates in the administrator's chain.
const MAX_CHAIN: usize = 16;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Where it comes from.
enum Source {
    Files { cert: PathBuf, key: PathBuf },
    Made { key: Box<KeyPair>, names: Vec<SanType> },
}

/// The web certificate in use.
pub(super) struct WebCertificate {
    source: Source,
    current: Arc<Current>,
}

/// What the TLS library asks for the certificate.
#[derive(Debug)]
struct Current {
    certified: ArcSwap<CertifiedKey>,
    fingerprint: ArcSwap<String>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.load_full())
    }
}

impl WebCertificate {
    /// Reads or makes the certificate.
    pub(super) fn open(
        config: &Config,
        directory: &Path,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let source = match (&config.tls.cert, &config.tls.key) {
            (Some(cert), Some(key)) => Source::Files { cert: cert.clone(), key: key.clone() },
            _ => Source::Made { key: Box::new(open_key(&directory.join("web.key"))?), names: names(config)? },
        };
        let (certified, fingerprint) = source.load(authority, now)?;
        let current = Arc::new(Current {
            certified: ArcSwap::from_pointee(certified),
            fingerprint: ArcSwap::from_pointee(fingerprint),
        });
        Ok(Self { source, current })
    }

    /// Reads or makes it again.
    pub(super) fn reload(&self, authority: &Authority, now: Timestamp) -> Result<(), IdentityError> {
        let (certified, fingerprint) = self.source.load(authority, now)?;
        self.current.certified.store(Arc::new(certified));
        self.current.fingerprint.store(Arc::new(fingerprint));
        Ok(())
    }

    /// SHA-256 of its public key.
    pub(super) fn fingerprint(&self) -> String {
        self.current.fingerprint.load().to_string()
    }

    /// Whether the administrator brought it.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.source, Source::Files { .. })
    }

    /// For the TLS library.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.current.clone()
    }
}

impl Source {
    fn load(&self, authority: &Authority, now: Timestamp) -> Result<(CertifiedKey, String), IdentityError> {
        let (chain, key) = match self {
            Self::Files { cert, key } => (read_chain(cert)?, read_key(key)?),
            Self::Made { key, names } => {
                let days = [now.plus_millis(-DAY_MS), now.plus_millis(VALID_DAYS * DAY_MS)].map(date);
                let leaf = authority.issue_web(key, names.clone(), days)?;
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                (vec![leaf, authority.certificate().clone()], key)
            }
        };
        let unusable = |why: String| match self {
            Self::Files { cert, .. } => IdentityError::WebCertificate { path: cert.clone(), why },
            Self::Made { .. } => IdentityError::Crypto { what: "the web certificate", why },
        };
        let fingerprint = chain
            .first()
            .and_then(HostKey::of_certificate)
            .ok_or_else(|| unusable("its first certificate cannot be read".into()))?
            .fingerprint;
        let certified = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| unusable(format!("certificate and key do not go together ({error})")))?;
        Ok((certified, fingerprint))
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let unusable = |why: String| IdentityError::WebCertificate { path: path.to_owned(), why };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.take(MAX_CHAIN).collect())
        .map_err(|error| unusable(error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable("there is no certificate in it".into()));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| IdentityError::WebCertificate { path: path.to_owned(), why: error.to_string() })
}

/// The day of a moment, in UTC.
fn date(moment: Timestamp) -> (i32, u8, u8) {
    let moment = jiff::Timestamp::from_millisecond(moment.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let date = moment.to_zoned(jiff::tz::TimeZone::UTC).date();
    (date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
}

/// The host in an address such as `https://[::1]:7272`.
fn host_of(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// What the hub's own web certificate is good for.
fn names(config: &Config) -> Result<Vec<SanType>, IdentityError> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    names.extend(config.names.iter().cloned());
    names.extend(config.public_url.as_deref().map(|url| host_of(url).to_owned()));
    if let Ok(address) = config.listen_address()
        && !address.ip().is_unspecified()
    {
        names.insert(address.ip().to_string());
    }
    let mut found = Vec::new();
    for name in names {
        found.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                name.clone().try_into().map_err(|_| IdentityError::Name { name: name.clone() })?,
            ),
        });
    }
    // The machine's own name is a convenience: one that no certificate can hold is left out.
    let machine = machine_name();
    if let Some(Ok(name)) = machine.map(TryInto::try_into) {
        found.push(SanType::DnsName(name));
    }
    Ok(found)
}

/// This machine's name.
pub(crate) fn machine_name() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(plain)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (url, host) in [
            ("https://hub.example.net:7272", "hub.example.net"),
            ("https://hub", "hub"),
            ("https://[::1]:7272/", "::1"),
            ("https://192.0.2.1:1/x", "192.0.2.1"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }

    #[test]
    fn days() {
        assert_eq!(date(Timestamp::from_millis(1_700_000_000_000)), (2023, 11, 14));
    }
}
