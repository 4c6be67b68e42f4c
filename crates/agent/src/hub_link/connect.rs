//! One connection to the hub: dialled, greeted, and why it is not there.

use std::sync::Arc;
use std::time::Duration;

use datacentered_link::clock::Clock;
use datacentered_link::dial::{self, DialError, DialOptions};
use datacentered_link::tls::{self, Fingerprint, Identity, Pin, TlsError};
use datacentered_link::url::HubUrl;
use datacentered_link::{CloseReason, Handler, Link, Proxies, Side};
use datacentered_proto::operations::SessionHello;
use datacentered_proto::ops::session::{AgentHello, HelloParams, HelloReply};
use datacentered_proto::{ALPN_AGENT, CAPABILITIES, Code, Error, PROTOCOL, PROTOCOL_OLDEST};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::Settings;
use super::failures::FailureKind;
use crate::facts::AGENT_VERSION;
use crate::jobs::Jobs;
use crate::text::clean;

/// Longest text of another program that goes into a message of ours, in bytes.
const MAX_QUOTED: usize = 512;

/// Who this host is, and whom it talks to.
#[derive(Clone, Debug)]
pub struct Credentials {
    tls: Arc<ClientConfig>,
}

impl Credentials {
    /// With a certificate chain and its key, for the hub whose CA has the key `ca`.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        ca: Fingerprint,
    ) -> Result<Self, TlsError> {
        let identity = Identity { chain, key };
        Ok(Self { tls: tls::client_config(&[Pin::Authority(ca)], Some(identity), &[ALPN_AGENT])? })
    }
}

/// Why there is no link, or no longer one.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: String,
    /// When the hub wants to be asked again.
    pub(super) retry_after: Option<Duration>,
    /// The link had been up.
    pub(super) was_up: bool,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: String) -> Self {
        Self { kind, message, retry_after: None, was_up: false }
    }

    /// A link that was up has ended.
    pub(super) fn ended(reason: &CloseReason, announced: bool) -> Self {
        let kind = match reason {
            _ if announced => FailureKind::Draining,
            CloseReason::ClosedByPeer { .. } => FailureKind::Closed,
            _ => FailureKind::LinkLost,
        };
        let message = match kind {
            FailureKind::Draining => "the hub goes down in good order and said when to come back".to_owned(),
            _ => why_lost(reason),
        };
        Self { was_up: true, ..Self::new(kind, message) }
    }

    fn dial(error: &DialError) -> Self {
        let kind = match error {
            DialError::Pin { .. } => FailureKind::WrongHub,
            DialError::Status { status: 429 | 503, .. } => FailureKind::Unavailable,
            _ => FailureKind::Unreachable,
        };
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message = format!("{message} ({source})");
        }
        Self::new(kind, clean(&without_manual(&message), 2 * MAX_QUOTED))
    }

    /// The hub did not greet back.
    fn hello(error: &Error) -> Self {
        let quoted = clean(&without_manual(&error.message), MAX_QUOTED);
        let revoked = error.details.as_ref().is_some_and(|details| details["reason"] == "revoked");
        let (kind, message) = match error.code {
            Code::Unauthenticated | Code::Forbidden if revoked => (
                FailureKind::Revoked,
                // Not what the hub says about it, which is advice of its own for the same.
                "the hub has revoked this host's key. To bring the host back, stop the agent, remove the `agent` \
                 directory in its data directory, and join again with a new token"
                    .to_owned(),
            ),
            Code::Unauthenticated | Code::Forbidden => {
                (FailureKind::Refused, format!("the hub refuses this host: {quoted}"))
            }
            Code::Invalid => (
                FailureKind::Incompatible,
                format!(
                    "the hub does not understand this agent (version {AGENT_VERSION}, protocol {PROTOCOL_OLDEST} to \
                     {PROTOCOL}): {quoted}. A hub works with agents one release older: upgrade the hub first, then \
                     the agents"
                ),
            ),
            _ => (FailureKind::Unavailable, format!("the hub cannot serve now ({}): {quoted}", error.code)),
        };
        Self { retry_after: error.retry_after_ms.map(Duration::from_millis), ..Self::new(kind, message) }
    }
}

/// How it is said that a connection ended without a word; in which layer is of no interest to the people who read it.
const CUT: &str = "the connection was cut";

/// Why a link that was up is over, for a person.
fn why_lost(reason: &CloseReason) -> String {
    if let CloseReason::Lost { detail } = reason {
        let lower = detail.to_lowercase();
        let without_a_word = [
            "close_notify",
            "unexpected eof",
            "unexpected-eof",
            "unexpected end of file",
            "closing handshake",
        ];
        if without_a_word.iter().any(|words| lower.contains(words)) {
            return CUT.to_owned();
        }
    }
    clean(&without_manual(&reason.to_string()), MAX_QUOTED)
}

/// Without what rustls adds about its own manual.
fn without_manual(text: &str) -> String {
    const EOF: &str = "peer closed connection without sending TLS close_notify";
    let mut text = text.replace(EOF, CUT);
    while let Some(at) = text.find("https://docs.rs/") {
        let length = text[at..].find([' ', ')', ',', ';']).unwrap_or(text.len() - at);
        let begin = text[..at].trim_end_matches([' ', ':', '(']).len();
        text.replace_range(begin..at + length, "");
    }
    text
}

/// A link that is up, and the hub's greeting.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) link: Link,
    pub(super) hello: HelloReply,
    /// Runs the connection; it ends with this.
    pub(super) driver: AbortOnDropHandle<CloseReason>,
}

impl Connected {
    /// Ends the link in good order, within its own limits.
    pub(super) async fn part(self, reason: &str) {
        self.link.close(reason);
        // Why it ended is known: this side wanted it to.
        let _ = self.driver.await;
    }
}

/// Dials hubs, always in the same way.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    options: DialOptions,
    proxies: Proxies,
    hello_timeout: Duration,
    jobs: Arc<Jobs>,
    clock: Clock,
}

impl Dialler {
    pub(super) fn new(settings: &Settings, credentials: &Credentials, jobs: Arc<Jobs>, clock: Clock) -> Self {
        let tls = Some(credentials.tls.clone());
        let options = DialOptions { tls, limits: settings.link.clone(), ..DialOptions::default() };
        let proxies = settings.proxies.clone();
        Self { options, proxies, hello_timeout: settings.hub.hello_timeout(), jobs, clock }
    }

    /// Dials one address and greets; `handler` answers what the hub calls from the first moment on.
    pub(super) async fn connect(
        &self,
        hub: &HubUrl,
        handler: Arc<dyn Handler>,
    ) -> Result<Connected, Failure> {
        let proxy = self.proxies.for_hub(hub);
        let proxy = proxy.map_err(|error| Failure::new(FailureKind::Unreachable, error.to_string()))?;
        if let Some(proxy) = proxy {
            tracing::debug!(%hub, %proxy, "dialling through a proxy");
        }
        let options = DialOptions { proxy: proxy.cloned(), ..self.options.clone() };
        // Large, and over once the link is up: the agent does not keep the room for it.
        let ws = Box::pin(dial::connect(hub, &options)).await.map_err(|error| Failure::dial(&error))?;
        let (link, driver) = Link::start(ws, Side::Dialled, handler, self.options.limits.clone());
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        match self.hello(&link).await {
            Ok(hello) => Ok(Connected { link, hello, driver }),
            Err(failure) => {
                link.close("the greeting failed");
                let _ = driver.await;
                Err(failure)
            }
        }
    }

    async fn hello(&self, link: &Link) -> Result<HelloReply, Failure> {
        let params = HelloParams {
            protocol: PROTOCOL,
            capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
            client: format!("datacentered-agent {AGENT_VERSION}"),
            token: None,
            agent: Some(AgentHello {
                incarnation: self.jobs.incarnation().to_owned(),
                high_water: self.jobs.high_water(),
                boot_id: self.jobs.boot_id(),
                version: AGENT_VERSION.to_owned(),
            }),
            now: Some(self.clock.wall()),
        };
        let Ok(answered) = timeout(self.hello_timeout, link.call::<SessionHello>(&params)).await else {
            let message =
                format!("the hub did not answer the greeting within {} ms", self.hello_timeout.as_millis());
            return Err(Failure::new(FailureKind::Unavailable, message));
        };
        let hello = answered.map_err(|error| Failure::hello(&error))?;
        if !(PROTOCOL_OLDEST..=PROTOCOL).contains(&hello.protocol) {
            return Err(Failure::hello(&Error::invalid(format!(
                "hub version {} speaks protocol {} only",
                hello.version, hello.protocol
            ))));
        }
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let kind = |error: Error| Failure::hello(&error).kind;
        let revoked = Error::forbidden("no").with_details(serde_json::json!({"reason": "revoked"}));
        assert_eq!(kind(revoked), FailureKind::Revoked);
        assert_eq!(kind(Error::forbidden("no")), FailureKind::Refused);
        assert_eq!(kind(Error::unauthenticated("no")), FailureKind::Refused);
        assert_eq!(kind(Error::invalid("protocol version 9 is too new")), FailureKind::Incompatible);
        assert_eq!(kind(Error::limited("later")), FailureKind::Unavailable);
        let later = Failure::hello(&Error::limited("later").with_retry_after_ms(1500));
        assert_eq!(later.retry_after, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_the_hub_says_is_shown_without_control_characters() {
        let failure = Failure::hello(&Error::forbidden("a\x1b[2Jb\nc"));
        assert!(!failure.message.contains(['\x1b', '\n']), "{}", failure.message);
    }

    #[test]
    fn a_cut_is_said_without_the_manual_of_a_library() {
        let manual = "peer closed connection without sending TLS close_notify: \
                      https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        for detail in [
            manual.to_owned(),
            format!("IO error: {manual}"),
            "WebSocket protocol error: Connection reset without closing handshake".to_owned(),
        ] {
            assert_eq!(
                Failure::ended(&CloseReason::Lost { detail }, false).message,
                "the connection was cut"
            );
        }
        let reset = Failure::ended(&CloseReason::Lost { detail: "Connection reset by peer".into() }, false);
        assert_eq!(reset.message, "the connection broke: Connection reset by peer");
        let dialled = without_manual(&format!("cannot reach h:1 ({manual}); look at it"));
        assert_eq!(dialled, "cannot reach h:1 (the connection was cut); look at it");
    }

    #[test]
    fn a_revoked_host_gets_one_recipe() {
        let error = Error::forbidden("revoked; enrol it again")
            .with_details(serde_json::json!({"reason": "revoked"}));
        let message = Failure::hello(&error).message;
        assert_eq!(
            (message.matches("again").count(), message.matches("revoked").count()),
            (1, 1),
            "{message}"
        );
    }

    #[test]
    fn an_announced_end_is_no_loss() {
        let reason = CloseReason::Lost { detail: "x".into() };
        assert_eq!(Failure::ended(&reason, true).kind, FailureKind::Draining);
        assert_eq!(Failure::ended(&reason, false).kind, FailureKind::LinkLost);
        let closed = CloseReason::ClosedByPeer { code: 1000, reason: "replaced".into() };
        assert_eq!(Failure::ended(&closed, false).kind, FailureKind::Closed);
    }
}
