//! The identity on disk: made once, kept, locked, and explained where it is odd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, IsCa, Issuer};

use super::*;

struct Hub {
    ca: Issuer<'static, KeyPair>,
    pem: String,
    fingerprint: Fingerprint,
}

fn hub() -> Hub {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signs").pem();
    let fingerprint = Fingerprint::of_public_key(&key.subject_public_key_info());
    Hub { ca: Issuer::new(params, key), pem, fingerprint }
}

fn hubs(text: &str) -> Vec<HubUrl> {
    HubUrl::parse_list(text).expect("parses")
}

fn reply(hub: &Hub, identity: &Identity) -> EnrolReply {
    EnrolReply {
        host: "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f".parse().expect("id"),
        name: "web-1".into(),
        certificate: CertificateParams::default().signed_by(&identity.key, &hub.ca).expect("signs").pem(),
        ca_certificate: hub.pem.clone(),
    }
}

#[test]
fn the_key_is_made_once_and_is_private() {
    let data = tempfile::tempdir().expect("tempdir");
    let first = Identity::open(data.path()).expect("opens");
    let fingerprint = first.key_fingerprint();
    drop(first);
    assert_eq!(Identity::open(data.path()).expect("opens").key_fingerprint(), fingerprint);
    let mode = |path: &str| fs::metadata(data.path().join(path)).expect("stat").permissions().mode() & 0o777;
    assert_eq!((mode("agent"), mode("agent/key.pem")), (0o700, 0o600));
}

#[test]
fn a_second_agent_is_told_who_is_there() {
    let data = tempfile::tempdir().expect("tempdir");
    let _first = Identity::open(data.path()).expect("opens");
    let error = Identity::open(data.path()).expect_err("is locked").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn an_enrolment_is_kept_and_binds_to_its_hub() {
    let data = tempfile::tempdir().expect("tempdir");
    let hub = hub();
    let mut identity = Identity::open(data.path()).expect("opens");
    assert!(matches!(identity.require_enrolment(), Err(IdentityError::NotEnrolled { .. })));
    let before = identity.certificate_chain();
    let answer = reply(&hub, &identity);
    identity.enrolled(hubs("wss://hub:7272"), hub.fingerprint, answer).expect("is kept");
    assert_ne!(identity.certificate_chain(), before, "the issued certificate is the one that is shown");
    drop(identity);

    let mut identity = Identity::open(data.path()).expect("opens");
    assert_eq!(identity.require_enrolment().expect("is enrolled").name, "web-1");
    identity.check_hub(hub.fingerprint).expect("the same hub");
    let error =
        identity.check_hub(Fingerprint::of_public_key(b"another")).expect_err("another hub").to_string();
    assert!(error.contains("web-1") && error.contains("remove"), "{error}");
    identity.set_hubs(hubs("wss://other:1")).expect("is kept");
    drop(identity);
    let identity = Identity::open(data.path()).expect("opens");
    assert_eq!(identity.require_enrolment().expect("is enrolled").hubs, hubs("other:1"));
}

#[test]
fn a_reply_for_another_key_or_of_another_ca_is_not_kept() {
    let (data, other) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    let hub = hub();
    let mut identity = Identity::open(data.path()).expect("opens");
    let stranger = Identity::open(other.path()).expect("opens");
    let for_another = reply(&hub, &stranger);
    assert!(identity.enrolled(hubs("h:1"), hub.fingerprint, for_another).is_err());
    let answer = reply(&hub, &identity);
    assert!(identity.enrolled(hubs("h:1"), Fingerprint::of_public_key(b"another"), answer).is_err());
    let garbage = EnrolReply { certificate: "garbage".into(), ..reply(&hub, &identity) };
    assert!(identity.enrolled(hubs("h:1"), hub.fingerprint, garbage).is_err());
    assert!(identity.enrolment().is_none());
}

#[test]
fn odd_files_are_named() {
    let data = tempfile::tempdir().expect("tempdir");
    drop(Identity::open(data.path()).expect("opens"));
    let (key, enrolment) = (data.path().join("agent/key.pem"), data.path().join("agent/enrolment.json"));

    fs::write(&enrolment, "{\"v\":9}").expect("writes");
    assert!(matches!(Identity::open(data.path()), Err(IdentityError::Newer { version: 9, .. })));
    for text in ["", "{}", "[]", "{\"v\":1,\"hubs\":[]}"] {
        fs::write(&enrolment, text).expect("writes");
        let error = Identity::open(data.path()).expect_err("is damaged").to_string();
        assert!(error.contains("enrolment.json"), "{error}");
    }
    fs::remove_file(&enrolment).expect("removes");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(matches!(Identity::open(data.path()), Err(IdentityError::KeyExposed { mode: 0o644, .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::write(&key, "no key").expect("writes");
    assert!(matches!(Identity::open(data.path()), Err(IdentityError::Key { .. })));
}
