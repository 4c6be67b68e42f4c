//! One attempt to connect: dial, start the link, say hello.

use std::error::Error as _;
use std::time::Duration;

use datacentered_link::dial::{self, DialError, DialOptions};
use datacentered_link::tls::{self, Fingerprint, Pin};
use datacentered_link::url::HubUrl;
use datacentered_link::{Called, Handler, Limits, Link, Request, Side};
use datacentered_proto::operations::SessionHello;
use datacentered_proto::ops::session::HelloParams;
use datacentered_proto::{CAPABILITIES, Code, Operation, PROTOCOL};

use crate::config::{ClientConfig, Secret, Trust};
use crate::error::{Attempt, Error};
use crate::supervisor::Connected;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// For now: it may work later, or with another hub.
    Now {
        /// Why, without the URL.
        reason: String,
        /// Not before this.
        retry_after: Option<Duration>,
    },
    /// For good.
    For(Error),
}

/// Tries every hub once.
pub(crate) async fn connect_first(config: &ClientConfig) -> Result<Connected, Error> {
    let mut attempts = Vec::new();
    for (index, url) in config.urls.iter().enumerate() {
        match connect_one(config, index).await {
            Ok(connected) => return Ok(connected),
            Err(Failed::For(error)) => return Err(error),
            Err(Failed::Now { reason, .. }) => attempts.push(Attempt { url: url.to_string(), reason }),
        }
    }
    if attempts.is_empty() {
        return Err(Error::Invalid("no hub is named; give its URL".into()));
    }
    Err(Error::Unreachable { attempts })
}

/// Tries one hub once.
pub(crate) async fn connect_one(config: &ClientConfig, index: usize) -> Result<Connected, Failed> {
    let Some(url) = config.urls.get(index) else {
        return Err(Failed::For(Error::Invalid("no hub is named; give its URL".into())));
    };
    let ws = dial::connect(url, &options(config, url)?).await.map_err(|error| failed(url, &error))?;
    let (link, mut driver) =
        Link::start(ws, Side::Dialled, std::sync::Arc::new(Nobody), config.limits.clone());
    let hello = HelloParams {
        protocol: PROTOCOL,
        capabilities: CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
        client: config.program.clone(),
        token: config.token.as_ref().map(|token| Secret::reveal(token).to_owned()),
        agent: None,
        now: Some(config.clock.wall()),
    };
    let greeted = async {
        tokio::select! {
            // First the answer: a hub that refuses may hang up right behind it.
            biased;
            answer = link.call::<SessionHello>(&hello) => answer,
            reason = &mut driver => {
                Err(datacentered_proto::Error::unavailable(format!("the hub did not greet: {reason}")))
            }
        }
    };
    let answer =
        tokio::time::timeout(config.limits.handshake_timeout(), greeted).await.unwrap_or_else(|_| {
            Err(datacentered_proto::Error::unavailable("the hub did not answer the greeting in time"))
        });
    match answer {
        Ok(hello) => Ok(Connected { link, driver, hello, index }),
        Err(error) if matches!(error.code, Code::Unavailable | Code::Indeterminate | Code::Limited) => {
            let retry_after = error.retry_after_ms.map(Duration::from_millis);
            Err(Failed::Now { reason: error.message, retry_after })
        }
        Err(error) => Err(Failed::For(Error::refused(SessionHello::SPEC.name, error))),
    }
}

/// The fingerprint of a hub's web key, to be shown and confirmed before it is trusted. Nothing is sent to the hub.
pub async fn probe_fingerprint(url: &HubUrl) -> Result<Fingerprint, Error> {
    let options = DialOptions::default();
    dial::fingerprint(url, &options).await.map_err(|error| match failed(url, &error) {
        Failed::For(error) => error,
        Failed::Now { reason, .. } => {
            Error::Unreachable { attempts: vec![Attempt { url: url.to_string(), reason }] }
        }
    })
}

fn options(config: &ClientConfig, url: &HubUrl) -> Result<DialOptions, Failed> {
    let tls = match (&config.trust, url.is_tls()) {
        (_, false) => None,
        (Trust::Pin(fingerprint), true) => {
            let made = tls::client_config(&[Pin::Key(*fingerprint)], None, &[]);
            Some(made.map_err(|error| Failed::For(Error::Invalid(error.to_string())))?)
        }
        (Trust::Nothing, true) => {
            return Err(Failed::For(Error::UnknownKey { url: url.to_string() }));
        }
    };
    Ok(DialOptions { tls, limits: Limits::clone(&config.limits), ..DialOptions::default() })
}

fn failed(url: &HubUrl, error: &DialError) -> Failed {
    match error {
        DialError::Pin { mismatch, .. } => Failed::For(Error::UntrustedKey {
            url: url.to_string(),
            presented: mismatch.presented.to_string(),
            trusted: mismatch.expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
        }),
        DialError::Options { detail, .. } => Failed::For(Error::Invalid(format!("{url}: {detail}"))),
        // Its own text repeats the URL, which stands before the reason already.
        DialError::Unreachable { source, .. } => {
            Failed::Now { reason: source.to_string(), retry_after: None }
        }
        other => {
            let mut reason = other.to_string();
            let mut source = other.source();
            while let Some(cause) = source {
                reason = format!("{reason} ({cause})");
                source = cause.source();
            }
            Failed::Now { reason, retry_after: None }
        }
    }
}

/// A client answers nothing but what the link answers itself.
struct Nobody;

impl Handler for Nobody {
    fn call(&self, _: Request) -> Called {
        Called::NoSuchMethod
    }
}
