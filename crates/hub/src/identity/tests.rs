//! The identity on disk: made once, kept, and explained where it is odd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use datacentered_link::tls::Fingerprint;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::*;

fn config(data: &Path) -> Config {
    Config { data_dir: data.to_owned(), ..Config::default() }
}

fn open(data: &Path) -> Result<Identity, IdentityError> {
    Identity::open(&config(data), &Clock::system())
}

#[test]
fn keys_are_made_once_and_are_private() {
    let data = tempfile::tempdir().expect("tempdir");
    let first = open(data.path()).expect("opens");
    let (ca, web, token) =
        (first.ca_fingerprint().to_owned(), first.web_fingerprint(), first.derive("token", b"1"));
    drop(first);
    let directory = data.path().join(IDENTITY_DIR);
    let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for name in FILES {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    let again = open(data.path()).expect("opens");
    assert_eq!((again.ca_fingerprint(), again.web_fingerprint()), (ca.as_str(), web.clone()));
    assert_eq!(again.derive("token", b"1"), token);
    assert_ne!(again.derive("token", b"2"), token);
    assert_ne!(again.derive("login", b"1"), token);
    assert_ne!(ca, web);
    let pem = CertificateDer::from_pem_slice(again.ca_certificate_pem().as_bytes()).expect("PEM");
    assert_eq!(Fingerprint::of_certificate(&pem).expect("certificate").to_string(), ca);
    assert!(!format!("{again:?}").contains("key"));
}

#[test]
fn a_host_gets_a_certificate_for_its_own_key() {
    let data = tempfile::tempdir().expect("tempdir");
    let identity = open(data.path()).expect("opens");
    let host = HostId::from_uuid(Clock::system().uuid());
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("key");
        let shown = CertificateParams::default().self_signed(&key).expect("signs");
        let seen = HostKey::of_certificate(shown.der()).expect("certificate");
        assert_eq!(seen.spki, key.subject_public_key_info());
        assert_eq!(*seen, *Fingerprint::of_public_key(&seen.spki).to_string());
        let pem = identity.issue_host_certificate(host, &seen.spki).expect("issues");
        let issued = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        assert_eq!(HostKey::of_certificate(&issued).expect("certificate"), seen);
    }
    assert!(identity.issue_host_certificate(host, b"nonsense").is_err());
    assert!(HostKey::of_certificate(&CertificateDer::from(vec![1, 2, 3])).is_none());
}

#[test]
fn what_is_missing_or_exposed_is_not_made_anew() {
    let check = |spoil: &dyn Fn(&Path), words: &[&str]| {
        let data = tempfile::tempdir().expect("tempdir");
        drop(open(data.path()).expect("opens"));
        spoil(&data.path().join(IDENTITY_DIR));
        let error = open(data.path()).expect_err("refused").to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    };
    check(&|dir| fs::remove_file(dir.join("ca.key")).expect("removes"), &["ca.key", "backup"]);
    check(&|dir| fs::remove_file(dir.join("master.secret")).expect("removes"), &["master.secret", "backup"]);
    check(&|dir| fs::write(dir.join("ca.key"), "x").expect("writes"), &["ca.key", "backup"]);
    check(&|dir| fs::write(dir.join("master.secret"), "x").expect("writes"), &["master.secret"]);
    let swap = |dir: &Path| {
        fs::copy(dir.join("web.key"), dir.join("ca.key")).expect("copies");
    };
    check(&swap, &["ca.pem"]);
    let expose = |dir: &Path| {
        fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o644)).expect("chmod");
    };
    check(&expose, &["chmod 600", "ca.key", "0644"]);
}

#[test]
fn the_administrators_certificate_is_taken_and_read_again() {
    let data = tempfile::tempdir().expect("tempdir");
    let (cert, key) = (data.path().join("web.pem"), data.path().join("web.pem.key"));
    let write = || {
        let pair = KeyPair::generate().expect("key");
        let made = CertificateParams::new(vec!["hub.example".into()])
            .expect("params")
            .self_signed(&pair)
            .expect("signs");
        fs::write(&cert, made.pem()).expect("writes");
        fs::write(&key, pair.serialize_pem()).expect("writes");
        Fingerprint::of_certificate(made.der()).expect("certificate").to_string()
    };
    let first = write();
    let mut config = config(data.path());
    config.tls.cert = Some(cert.clone());
    config.tls.key = Some(key.clone());
    let identity = Identity::open(&config, &Clock::system()).expect("opens");
    assert_eq!(identity.web_fingerprint(), first);
    let second = write();
    identity.reload_web().expect("reloads");
    assert_eq!(identity.web_fingerprint(), second);
    // A bad one leaves the good one in use.
    fs::write(&key, KeyPair::generate().expect("key").serialize_pem()).expect("writes");
    let error = identity.reload_web().expect_err("does not fit").to_string();
    assert!(error.contains("web.pem") && error.contains("--tls-key"), "{error}");
    fs::write(&cert, "nonsense").expect("writes");
    assert!(identity.reload_web().is_err());
    assert_eq!(identity.web_fingerprint(), second);
}

#[test]
fn names_that_no_certificate_can_hold_are_refused() {
    let data = tempfile::tempdir().expect("tempdir");
    let config = Config { names: vec!["b\u{fc}cher.example".into()], ..config(data.path()) };
    let error = Identity::open(&config, &Clock::system()).expect_err("refused").to_string();
    assert!(error.contains("hub.toml"), "{error}");
}
