//! TLS on the two sides of the port.

use std::path::Path;
use std::sync::Arc;

use datacentered_link::tls::{any_client_certificate, provider};
use datacentered_proto::ALPN_AGENT;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::IdentityError;
use super::ca::{Authority, open_key};

fn refused(what: &'static str) -> impl FnOnce(rustls::Error) -> IdentityError {
    move |error| IdentityError::Crypto { what, why: error.to_string() }
}

/// For agents: the hub's own identity, a client certificate is required.
pub(super) fn agent_config(
    directory: &Path,
    authority: &Authority,
) -> Result<Arc<ServerConfig>, IdentityError> {
    const WHAT: &str = "the TLS settings for agents";
    static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    let key = open_key(&directory.join("hub.key"))?;
    let chain = vec![authority.issue_hub(&key)?, authority.certificate().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(refused(WHAT))?
        // A host is its key: the handshake proves that the peer has it, and the registry says what it may do, so that a
        // refusal can be a typed error that says what to do instead of a TLS alert.
        .with_client_cert_verifier(any_client_certificate())
        .with_single_cert(chain, key)
        .map_err(refused(WHAT))?;
    config.alpn_protocols = vec![ALPN_AGENT.as_bytes().to_vec()];
    // Links live for weeks: resumption would only keep memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For everyone else: the web certificate.
pub(super) fn web_config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, IdentityError> {
    static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(refused("the TLS settings of the web side"))?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
